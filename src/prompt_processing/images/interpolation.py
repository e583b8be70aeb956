"""Values for pixels that have none."""

import numba
import numpy as np
from numpy.typing import NDArray

from prompt_processing.images.exposure import MaskedImage
from prompt_processing.images.masks import MaskPlane

_MAX_RADIUS = 5
"""Largest half width of the window [pixel]: holes wider than that get the level of the whole image."""
_MIN_GOOD = 5
"""Good pixels that a window must hold."""


@numba.njit(cache=True, nogil=True)
def _window_medians(
    image: NDArray[np.float32],
    variance: NDArray[np.float32],
    usable: NDArray[np.bool_],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return medians of the usable pixels in the smallest window that holds enough of them, else NaN."""
    ny, nx = image.shape
    values = np.full(rows.size, np.nan, dtype=np.float32)
    variances = np.full(rows.size, np.nan, dtype=np.float32)
    near = np.empty((2 * _MAX_RADIUS + 1) ** 2, dtype=np.float32)
    near_variance = np.empty_like(near)
    for k in range(rows.size):
        y, x = rows[k], columns[k]
        for radius in range(1, _MAX_RADIUS + 1):
            n = 0
            for yy in range(max(0, y - radius), min(ny, y + radius + 1)):
                for xx in range(max(0, x - radius), min(nx, x + radius + 1)):
                    if usable[yy, xx]:
                        near[n] = image[yy, xx]
                        near_variance[n] = variance[yy, xx]
                        n += 1
            if n >= _MIN_GOOD:
                values[k] = np.median(near[:n])
                variances[k] = np.median(near_variance[:n])
                break
    return values, variances


def fill_pixels(masked: MaskedImage, selected: NDArray[np.bool_], usable: NDArray[np.bool_]) -> None:
    """Replace pixels by the median of the usable pixels around them, in place.

    Convolutions need a finite value in every pixel; no measurement uses one that is filled. Pixels with at
    least 5 usable neighbours within 5 pixels become ``INTRP``; the others get the median of the image.

    Parameters
    ----------
    masked
        The image; its image, variance and mask planes change.
    selected
        Pixels to replace, shape ``(ny, nx)``.
    usable
        Pixels that values may be taken from, shape ``(ny, nx)``.
    """
    rows, columns = np.nonzero(selected)
    if rows.size == 0:
        return
    values, variances = _window_medians(masked.image, masked.variance, usable, rows, columns)
    far = np.isnan(values)
    if far.any():
        # A sample is enough for a level, and a median of 16 million pixels is slow.
        sample = np.zeros_like(usable)
        sample[::4, ::4] = usable[::4, ::4]
        if not sample.any():
            sample = usable
        values[far] = np.median(masked.image[sample]) if sample.any() else 0.0
        variances[far] = np.median(masked.variance[sample]) if sample.any() else 1.0
    masked.image[rows, columns] = values
    masked.variance[rows, columns] = variances
    masked.mask[rows[~far], columns[~far]] |= np.uint16(MaskPlane.INTRP)
