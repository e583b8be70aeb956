"""Sources: a matched filter, then connected pixels above a threshold."""

import numba
import numpy as np
import sep
from astropy.table import Table
from numpy.typing import NDArray

from prompt_processing.domain.errors import PsfError, ScienceError
from prompt_processing.images.exposure import MaskedImage
from prompt_processing.images.masks import UNUSABLE, MaskPlane

FWHM_PER_SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))
_PIXEL_STACK = 5_000_000
"""Pixels above the threshold that sep may hold at once."""
_BRIGHT = (40.0, 15.0)
"""Significance of a pixel, in units of the sky noise, of the stars that give the first FWHM; the second where
there are few."""
_MAX_HALF_FWHM = 20
"""Half of the widest image of a star that is looked for [pixel]."""


def estimate_fwhm(masked: MaskedImage) -> float:
    """Estimate the FWHM of the stars before anything is known about them.

    The area above half of its peak gives each bright source a diameter; most bright sources are stars, so the
    densest part of the distribution (half-sample mode) is the seeing.

    Parameters
    ----------
    masked
        Sky-subtracted image; cosmic rays should be marked.

    Returns
    -------
    fwhm
        In pixels.

    Raises
    ------
    PsfError
        If there are fewer than 5 bright sources.
    """
    unusable = (masked.mask & np.uint16(UNUSABLE | MaskPlane.SUSPECT)) != 0
    # A little smoothing keeps the noise of the brightest pixel from lifting the half-way level.
    sigma = 1.0
    smooth = smooth_gaussian(np.where(unusable, np.float32(0), masked.image), sigma)
    noise = _sky_noise(masked, unusable) / np.sqrt(4.0 * np.pi * sigma**2)
    for significance in _BRIGHT:
        objects, _ = _extract(smooth, significance * noise, unusable, segmentation=False)
        whole = objects[(objects["npix"] >= 9) & (objects["flag"] & sep.OBJ_TRUNC == 0)]
        areas = _half_peak_areas(
            smooth, unusable, whole["ypeak"].astype(np.int64), whole["xpeak"].astype(np.int64)
        )
        widths = np.sort(2.0 * np.sqrt(areas[areas >= 9] / np.pi))
        if widths.size >= 10:
            break
    if widths.size < 5:
        raise PsfError(f"{widths.size} bright sources that are neither saturated nor cut off: 5 are needed")
    return float(np.sqrt(max(half_sample_mode(widths) ** 2 - (FWHM_PER_SIGMA * sigma) ** 2, 1.0)))


def smooth_gaussian(image: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Convolve an image with a round Gaussian.

    Parameters
    ----------
    image
        Shape ``(ny, nx)``, finite.
    sigma
        Width of the Gaussian [pixel]; it is cut at 3.5 of them.

    Returns
    -------
    smooth
        Same shape. Beyond the border the image counts as 0.
    """
    radius = int(np.ceil(3.5 * sigma))
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return _convolve_separable(np.ascontiguousarray(image), (weights / weights.sum()).astype(np.float32))


@numba.njit(cache=True, nogil=True)
def _convolve_separable(image: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Convolve rows and columns with the same weights; the inner loops run along x, so they vectorise."""
    ny, nx = image.shape
    radius = weights.size // 2
    result = np.zeros((ny, nx), dtype=np.float32)
    padded = np.zeros(nx + 2 * radius, dtype=np.float32)
    column_sums = np.empty(nx, dtype=np.float32)
    for y in range(ny):
        column_sums[:] = 0
        for k in range(max(0, radius - y), min(weights.size, ny + radius - y)):
            row = image[y + k - radius]
            weight = weights[k]
            for x in range(nx):
                column_sums[x] += weight * row[x]
        padded[radius : radius + nx] = column_sums
        for k in range(weights.size):
            weight = weights[k]
            for x in range(nx):
                result[y, x] += weight * padded[x + k]
    return result


def half_sample_mode(values: NDArray[np.float64]) -> float:
    """Return the mode of a sample by halving it (Bickel & Fruehwirth 2006, CSDA 50, 3500).

    Parameters
    ----------
    values
        Finite numbers in ascending order, at least one.

    Returns
    -------
    mode
        Centre of the densest part.
    """
    while values.size > 3:
        n = (values.size + 1) // 2
        start = int(np.argmin(values[n - 1 :] - values[: values.size - n + 1]))
        values = values[start : start + n]
    return float(np.median(values))


@numba.njit(cache=True, nogil=True)
def _half_peak_areas(
    image: NDArray[np.float32],
    unusable: NDArray[np.bool_],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Count the pixels above half of each peak; 0 where one nearby is unusable."""
    ny, nx = image.shape
    areas = np.zeros(rows.size)
    for k in range(rows.size):
        half = 0.5 * image[rows[k], columns[k]]
        count = 0
        for y in range(max(0, rows[k] - _MAX_HALF_FWHM), min(ny, rows[k] + _MAX_HALF_FWHM + 1)):
            for x in range(max(0, columns[k] - _MAX_HALF_FWHM), min(nx, columns[k] + _MAX_HALF_FWHM + 1)):
                if unusable[y, x]:
                    if max(abs(y - rows[k]), abs(x - columns[k])) <= 4:
                        count = -10000
                elif image[y, x] > half:
                    count += 1
        areas[k] = max(count, 0)
    return areas


def _sky_noise(masked: MaskedImage, unusable: NDArray[np.bool_]) -> float:
    """Return the noise of the faint half of the pixels."""
    sample = masked.variance[::4, ::4][~unusable[::4, ::4]]
    if sample.size == 0:
        raise ScienceError("no source can be looked for: every pixel is unusable")
    return float(np.sqrt(np.median(sample)))


def _extract(
    image: NDArray[np.float32], threshold: float, unusable: NDArray[np.bool_], *, segmentation: bool
) -> tuple[NDArray[np.void], NDArray[np.int32] | None]:
    """Run sep's connected-pixel search and tell its failures in our words."""
    sep.set_extract_pixstack(_PIXEL_STACK)
    sep.set_sub_object_limit(4096)
    try:
        found = sep.extract(
            image,
            threshold,
            mask=unusable,
            filter_kernel=None,
            minarea=5,
            deblend_nthresh=16,
            segmentation_map=segmentation,
        )
    except Exception as error:
        # sep raises plain Exception when a buffer is full: the image is all source.
        raise ScienceError(f"sources cannot be told apart: {error}") from error
    return found if segmentation else (found, None)


def detect_sources(masked: MaskedImage, *, fwhm: float, threshold: float = 5.0) -> Table:
    """Find sources of at least a given significance and mark their pixels ``DETECTED``.

    Parameters
    ----------
    masked
        Sky-subtracted image; its mask changes, an earlier ``DETECTED`` plane is replaced.
    fwhm
        FWHM of the stars [pixel].
    threshold
        Least signal-to-noise ratio of a source as a star.

    Returns
    -------
    sources
        One row per source, brightest first: ``x``, ``y`` [pixel], ``flux`` (as a Gaussian, in the unit of
        the image: 20 % low for a star with wings), ``snr`` (at the peak), ``n_pixels``, ``a``, ``b`` [pixel,
        of the filtered image], ``flags`` (the mask bits found within half a FWHM of the peak).

    Raises
    ------
    ScienceError
        If every pixel is unusable or the image is all source.

    Notes
    -----
    The filter is a Gaussian of the given FWHM with equal weights: where the variance comes from the pixels
    themselves, weighting by it would bias faint sources. Saturated pixels stay in, so that a saturated star
    is one source and not a ring.
    """
    sigma = fwhm / FWHM_PER_SIGMA
    unusable = (masked.mask & np.uint16(MaskPlane.BAD | MaskPlane.NO_DATA)) != 0
    _sky_noise(masked, unusable)
    smooth = smooth_gaussian(np.where(unusable, np.float32(0), masked.image), sigma)
    # The square of a Gaussian is a Gaussian of width sigma / sqrt(2) and integral 1 / (4 pi sigma**2).
    variance = smooth_gaussian(masked.variance, sigma / np.sqrt(2.0))
    area = 4.0 * np.pi * sigma**2
    significance = smooth / np.sqrt(variance / area)
    objects, segments = _extract(significance, threshold, unusable, segmentation=True)
    detected = np.uint16(MaskPlane.DETECTED)
    masked.mask &= ~detected
    if segments is not None:
        masked.mask[segments > 0] |= detected
    rows, columns = objects["ypeak"].astype(np.int64), objects["xpeak"].astype(np.int64)
    sources = Table(
        {
            "x": objects["x"].astype(np.float64),
            "y": objects["y"].astype(np.float64),
            "flux": smooth[rows, columns].astype(np.float64) * area,
            "snr": significance[rows, columns].astype(np.float64),
            "n_pixels": objects["npix"].astype(np.int64),
            "a": objects["a"].astype(np.float64),
            "b": objects["b"].astype(np.float64),
            "flags": _collect_flags(masked.mask, rows, columns, max(1, round(fwhm / 2))).astype(np.int64),
        }
    )
    return sources[np.argsort(-sources["flux"], kind="stable")]


@numba.njit(cache=True, nogil=True)
def _collect_flags(
    mask: NDArray[np.uint16], rows: NDArray[np.int64], columns: NDArray[np.int64], radius: int
) -> NDArray[np.uint16]:
    """Return the bits that any pixel within the radius of each position has."""
    ny, nx = mask.shape
    flags = np.zeros(rows.size, dtype=np.uint16)
    for k in range(rows.size):
        for y in range(max(0, rows[k] - radius), min(ny, rows[k] + radius + 1)):
            for x in range(max(0, columns[k] - radius), min(nx, columns[k] + radius + 1)):
                if (y - rows[k]) ** 2 + (x - columns[k]) ** 2 <= radius**2:
                    flags[k] |= mask[y, x]
    return flags
