"""Flags of difference-image sources: what the mask says about their pixels."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from prompt_processing.images.exposure import MaskedImage
from prompt_processing.images.masks import MaskPlane

DISQUALIFYING_FLAGS: Final = {
    "pixelFlags_edge": "part of it is outside of the image, or where the kernel lacks template pixels",
    "pixelFlags_offimage": "the fitted centre is outside of the image",
    "pixelFlags_nodataCenter": "there is no template or no detector at the centre",
    "pixelFlags_interpolatedCenter": "the centre was invented from neighbours: a defect or a cosmic ray",
    "pixelFlags_crCenter": "a cosmic ray hit the centre, or it is too sharp to be an image of the sky",
    "pixelFlags_saturatedCenter": "light is missing at the centre, in the image or the template",
    "pixelFlags_suspectCenter": "what a bright star leaves behind is larger than the noise here",
    "pixelFlags_streakCenter": "the centre is on the trail of a satellite",
    "isDipole": "a star that the astrometry or the kernel has not put exactly on its template",
    "psfFlux_flag": "the flux could not be measured",
}
"""Reason for each flag column that excludes a source from the real detections.
``isNegative`` is not a reason: a source that is fainter than in the template is real."""

_PLANES: Final = {
    "pixelFlags_bad": MaskPlane.BAD,
    "pixelFlags_cr": MaskPlane.CR,
    "pixelFlags_edge": MaskPlane.EDGE,
    "pixelFlags_nodata": MaskPlane.NO_DATA,
    "pixelFlags_interpolated": MaskPlane.INTRP,
    "pixelFlags_saturated": MaskPlane.SAT | MaskPlane.SAT_TEMPLATE,
    "pixelFlags_suspect": MaskPlane.SUSPECT,
    "pixelFlags_streak": MaskPlane.STREAK,
}
_CENTRE_TOO: Final = ("cr", "nodata", "interpolated", "saturated", "suspect", "streak")
MIN_RADIUS: Final = 4
"""Least radius of the disc whose pixels count as the source's, in pixels."""


def pixel_flags(
    mask: NDArray[np.uint16],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    size: NDArray[np.int64],
    fwhm: float,
) -> dict[str, NDArray[np.bool_]]:
    """Read the mask under sources.

    Parameters
    ----------
    mask
        Bits of `~.masks.MaskPlane`, shape ``(ny, nx)``.
    x, y
        Centres in pixels, shape ``(n,)``.
    size
        Sides of the boxes around the detected pixels. The pixels of a source are the disc of that diameter,
        of at most the FWHM's radius and at least `MIN_RADIUS`.
    fwhm
        FWHM of the PSF in pixels.

    Returns
    -------
    dict
        The APDB's ``pixelFlags*`` columns, shape ``(n,)`` each. ``...Center`` is about the 3 x 3 pixels at
        the centre. A source that leaves the image is ``edge``; with its centre outside it is ``offimage``
        too.
    """
    ny, nx = mask.shape
    n = len(x)
    everywhere, centre = np.zeros(n, dtype=np.uint16), np.zeros(n, dtype=np.uint16)
    cut, outside = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    for k in range(n):
        ix, iy = int(np.floor(x[k] + 0.5)), int(np.floor(y[k] + 0.5))
        outside[k] = not (0 <= ix < nx and 0 <= iy < ny)
        radius = max(MIN_RADIUS, min(int(size[k]) // 2, round(fwhm)))
        everywhere[k], cut[k] = _bits_in_disc(mask, ix, iy, radius)
        centre[k] = np.bitwise_or.reduce(
            mask[max(0, iy - 1) : max(0, iy + 2), max(0, ix - 1) : max(0, ix + 2)], axis=None
        )
    flags: dict[str, NDArray[np.bool_]] = {}
    for name, plane in _PLANES.items():
        flags[name] = (everywhere & np.uint16(plane)) != 0
        if name.removeprefix("pixelFlags_") in _CENTRE_TOO:
            flags[f"{name}Center"] = (centre & np.uint16(plane)) != 0
    flags["pixelFlags_edge"] |= cut | outside
    flags["pixelFlags_offimage"] = outside
    flags["pixelFlags"] = np.zeros(n, dtype=bool)
    return flags


def _bits_in_disc(mask: NDArray[np.uint16], x: int, y: int, radius: int) -> tuple[np.uint16, bool]:
    """Return all bits in a disc, and whether it leaves the image."""
    ny, nx = mask.shape
    top, left = max(0, y - radius), max(0, x - radius)
    part = mask[top : max(0, y + radius + 1), left : max(0, x + radius + 1)]
    rows, columns = np.ogrid[top : top + part.shape[0], left : left + part.shape[1]]
    inside = (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
    cut = y < radius or x < radius or y + radius >= ny or x + radius >= nx
    return np.bitwise_or.reduce(part[inside], initial=np.uint16(0)), cut


SHARP_RATIO: Final = 3.0
"""A pixel this many times brighter than the fitted PSF's peak ..."""
SHARP_EXCESS: Final = 6.0
"""... and this many standard deviations above it is no image of a point source."""


def is_sharp(
    difference: MaskedImage,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    flux: NDArray[np.float64],
    peak: float,
) -> NDArray[np.bool_]:
    """Tell which sources are sharper than the PSF: cosmic rays that the search for them has missed.

    Parameters
    ----------
    difference
        Difference image.
    x, y
        Pixels of the peaks, shape ``(n,)``.
    flux
        Fitted PSF fluxes (their sign tells the sign of the source), shape ``(n,)``.
    peak
        Central pixel of the PSF of flux 1.

    Returns
    -------
    NDArray
        Shape ``(n,)``.
    """
    sharp = np.zeros(len(x), dtype=bool)
    for k in range(len(x)):
        part = slice(max(0, int(y[k]) - 2), int(y[k]) + 3), slice(max(0, int(x[k]) - 2), int(x[k]) + 3)
        sign = 1.0 if flux[k] >= 0 else -1.0
        values = sign * difference.image[part]
        model = abs(flux[k]) * peak
        brightest = np.unravel_index(int(np.argmax(values)), values.shape)
        noise = float(np.sqrt(difference.variance[part][brightest]))
        value = float(values[brightest])
        sharp[k] = value > SHARP_RATIO * model and value - model > SHARP_EXCESS * noise
    return sharp
