"""Detection of sources of either sign on a difference image."""

from typing import Final

import numba
import numpy as np
from astropy.table import Table
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree

from prompt_processing.images.convolution import convolve
from prompt_processing.images.exposure import MaskedImage
from prompt_processing.images.masks import UNUSABLE, MaskPlane
from prompt_processing.images.psf import PsfModel

MERGE_RADIUS: Final = 1.0
"""Peaks of one sign that are nearer than this to a stronger one belong to it, in units of the FWHM."""
_NO_PEAK: Final = np.uint16(MaskPlane.NO_DATA | MaskPlane.EDGE)


def detect(difference: MaskedImage, psf: PsfModel, threshold: float = 5.0) -> Table:
    """Find positive and negative point-like sources on a difference image.

    The matched filter is the PSF at the centre of the image. The significance of a pixel is the filtered
    value over its noise from the variance plane, divided by the robust standard deviation that this ratio
    has over the image: a variance plane that is a few per cent off does not change the number of false
    detections.

    Parameters
    ----------
    difference
        Difference image with white noise. ``DETECTED`` and ``DETECTED_NEGATIVE`` of its mask are
        set anew, in place, where the significance exceeds the threshold.
    psf
        PSF of the difference.
    threshold
        Least significance of a peak.

    Returns
    -------
    Table
        One row per peak, ordered by y, then x: ``x``, ``y`` (pixel of the peak, int64), ``snr`` (positive;
        the rescaled significance), ``is_negative``, ``bbox_size`` (side in pixels of the square that holds
        the connected pixels above the threshold). ``meta["snr_std"]`` is the standard deviation that was
        divided by. Pixels of `UNUSABLE` planes do not contribute; there are no peaks on ``NO_DATA`` or
        ``EDGE``.
    """
    significance, spread = significance_map(difference, psf)
    allowed = (difference.mask & _NO_PEAK) == 0
    merge = MERGE_RADIUS * psf.fwhm(difference.shape[1] / 2, difference.shape[0] / 2)
    difference.mask &= ~np.uint16(MaskPlane.DETECTED | MaskPlane.DETECTED_NEGATIVE)
    rows = []
    for negative, plane in ((False, MaskPlane.DETECTED), (True, MaskPlane.DETECTED_NEGATIVE)):
        signed = -significance if negative else significance
        above = signed > threshold
        difference.mask[above] |= np.uint16(plane)
        y, x = _peaks(signed, allowed, threshold)
        kept = _strongest(x, y, signed[y, x], merge)
        y, x = y[kept], x[kept]
        rows.append((x, y, signed[y, x], np.full(len(x), negative), _box_sizes(above, x, y)))
    x, y, snr, is_negative, size = (np.concatenate(columns) for columns in zip(*rows, strict=True))
    order = np.lexsort((is_negative, x, y))
    table = Table(
        {
            "x": x[order].astype(np.int64),
            "y": y[order].astype(np.int64),
            "snr": snr[order].astype(np.float64),
            "is_negative": is_negative[order],
            "bbox_size": size[order].astype(np.int64),
        }
    )
    table.meta["snr_std"] = spread
    return table


def significance_map(difference: MaskedImage, psf: PsfModel) -> tuple[NDArray[np.float32], float]:
    """Filter a difference image with its central PSF and divide by the noise.

    Parameters
    ----------
    difference, psf
        As for `detect`.

    Returns
    -------
    significance
        Shape ``(ny, nx)``; robust standard deviation 1 over the usable pixels.
    spread
        The robust standard deviation before the division.
    """
    stamp = psf.at(difference.shape[1] / 2, difference.shape[0] / 2)
    unusable = (difference.mask & np.uint16(UNUSABLE)) != 0
    # The noise of unusable pixels stays in the sum: next to them is less signal, so less significance.
    signal = convolve(np.where(unusable, np.float32(0.0), difference.image), stamp[::-1, ::-1])
    noise = convolve(difference.variance, stamp[::-1, ::-1] ** 2)
    floor = np.float32(1e-3 * float(np.median(noise[::7, ::7])))  # where there are no data at all
    lowest = np.float32(max(floor, np.finfo(np.float32).tiny))
    significance = (signal / np.sqrt(np.maximum(noise, lowest))).astype(np.float32, copy=False)
    sample = significance[::3, ::3][~unusable[::3, ::3]]
    if sample.size == 0:
        return np.zeros_like(significance), 1.0
    spread = 1.4826 * float(np.median(np.abs(sample - np.median(sample))))
    if not spread > 0.0:
        return np.zeros_like(significance), 1.0
    significance /= np.float32(spread)
    return significance, spread


def _peaks(
    values: NDArray[np.float32], allowed: NDArray[np.bool_], threshold: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return y and x of pixels above the threshold that no neighbour exceeds."""
    y, x = np.nonzero((values > threshold) & allowed)
    peak = _is_peak(values, y, x)
    return y[peak], x[peak]


@numba.njit(cache=True, nogil=True)
def _is_peak(values: NDArray[np.float32], ys: NDArray[np.int64], xs: NDArray[np.int64]) -> NDArray[np.bool_]:
    ny, nx = values.shape
    result = np.ones(len(ys), dtype=np.bool_)
    for n in range(len(ys)):
        value = values[ys[n], xs[n]]
        for y in range(max(0, ys[n] - 1), min(ny, ys[n] + 2)):
            for x in range(max(0, xs[n] - 1), min(nx, xs[n] + 2)):
                earlier = y < ys[n] or (y == ys[n] and x < xs[n])
                if values[y, x] > value or (earlier and values[y, x] == value):
                    result[n] = False
    return result


def _strongest(
    x: NDArray[np.int64], y: NDArray[np.int64], snr: NDArray[np.float32], radius: float
) -> NDArray[np.bool_]:
    """Mark the peaks that have no stronger marked one within a radius."""
    kept = np.ones(len(x), dtype=bool)
    if len(x) < 2:
        return kept
    places = np.stack([x, y], axis=1).astype(float)
    near = KDTree(places).query_ball_point(places, radius, return_sorted=True)
    for n in np.lexsort((np.arange(len(x)), -snr)):
        if kept[n]:
            kept[[m for m in near[n] if m != n]] = False
    return kept


def _box_sizes(above: NDArray[np.bool_], x: NDArray[np.int64], y: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the larger side of the box around the connected region of each peak."""
    labels, _ = ndimage.label(above, structure=np.ones((3, 3), dtype=np.int8))
    boxes = ndimage.find_objects(labels)
    sides = [max(box[0].stop - box[0].start, box[1].stop - box[1].start) for box in boxes]
    return np.array([sides[label - 1] for label in labels[y, x]], dtype=np.int64)
