"""Coaddition of images on one grid."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from prompt_processing.images.exposure import MaskedImage
from prompt_processing.images.masks import MASK_DTYPE, UNUSABLE, MaskPlane

CLIP: Final = 5.0
"""Deviation from the median, in standard deviations, of values that are left out."""
MODEL_ERROR: Final = 0.55
"""Share of the brightest value nearby by which epochs may differ because their PSFs do: keeps the cores of
stars whole while the FWHM differs by 20 %."""
NEARBY: Final = 5
"""Side of the square of that neighbourhood, in pixels."""
GROWTH: Final = 4
"""Distance from a value that is left out within which its image is left out too, in pixels: the wings of a
transient are below the noise of a pixel, but not of a PSF."""
_ROWS: Final = 256
_MARGIN: Final = GROWTH + NEARBY
_KEPT: Final = np.uint16(MaskPlane.SAT | MaskPlane.SUSPECT)


def coadd(images: Sequence[MaskedImage]) -> MaskedImage:
    """Return the weighted mean of images of one grid, without what is in one only.

    With three or more values at a pixel, one that is far above or below their median is left out: a cosmic
    ray, a satellite, a transient or a moving object. Pixels that are unusable in one image come from the
    others. The weight of an image is one over its median variance, the same for all of its pixels: weights
    that follow the light of a star would give bright and faint stars different PSFs and fluxes.

    Parameters
    ----------
    images
        Images of one shape [nJy].

    Returns
    -------
    coadd
        ``SAT`` and ``SUSPECT`` where most images have it; where all that have data are saturated, the mean
        of their values, which is better than a hole in a star. ``NO_DATA`` with NaN where nothing is left.

    Raises
    ------
    ValueError
        If there is no image, or they differ in shape.

    Notes
    -----
    Gruen, Seitz & Bernstein 2014, PASP 126, 158 (clipping that tolerates different PSFs).
    """
    if not images or len({image.shape for image in images}) > 1:
        raise ValueError(f"images of one shape are needed, not {[image.shape for image in images]}")
    ny, nx = images[0].shape
    result = MaskedImage(
        np.empty((ny, nx), dtype=np.float32),
        np.empty((ny, nx), dtype=np.float32),
        np.zeros((ny, nx), dtype=MASK_DTYPE),
    )
    weights = np.array([_weight(image) for image in images])
    for start in range(0, ny, _ROWS):
        _coadd_rows(images, weights, result, start, min(start + _ROWS, ny))
    return result


def _weight(image: MaskedImage) -> float:
    """Return one over the median variance of the usable pixels, 0 if there are none."""
    variance = image.variance[_usable(image.image, image.variance, image.mask)]
    return 1.0 / float(np.median(variance)) if variance.size else 0.0


def _usable(
    values: NDArray[np.float32],
    variances: NDArray[np.float32],
    masks: NDArray[np.uint16],
    bad: MaskPlane = UNUSABLE,
) -> NDArray[np.bool_]:
    usable: NDArray[np.bool_] = (
        (masks & np.uint16(bad) == 0) & np.isfinite(values) & np.isfinite(variances) & (variances > 0)
    )
    return usable


def _coadd_rows(
    images: Sequence[MaskedImage], weights: NDArray[np.float64], result: MaskedImage, start: int, stop: int
) -> None:
    """Fill rows of the result; a few rows around them are looked at as well, so that seams do not show."""
    first = max(0, start - _MARGIN)
    rows = slice(first, stop + _MARGIN)
    inner = slice(start - first, stop - first)
    values = np.stack([image.image[rows] for image in images])
    variances = np.stack([image.variance[rows] for image in images])
    masks = np.stack([image.mask[rows] for image in images])
    usable = _usable(values, variances, masks)
    usable = (usable & ~_outliers(values, variances, usable))[:, inner]
    values, variances, masks = values[:, inner], variances[:, inner], masks[:, inner]
    usable |= _usable(values, variances, masks, UNUSABLE & ~MaskPlane.SAT) & ~usable.any(axis=0)
    applied = np.where(usable, weights[:, np.newaxis, np.newaxis], 0.0)
    total = applied.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        result.image[start:stop] = np.where(usable, values * applied, 0.0).sum(axis=0) / total
        result.variance[start:stop] = np.where(usable, variances * applied**2, 0.0).sum(axis=0) / total**2
    empty = total == 0
    result.mask[start:stop] = _vote(masks)
    result.mask[start:stop][empty] |= np.uint16(MaskPlane.NO_DATA)


def _outliers(
    values: NDArray[np.float32], variances: NDArray[np.float32], usable: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Tell which values, of three or more, are far from the median or next to one that is."""
    count = usable.sum(axis=0)
    # Sorting puts NaN last: the middle of the finite ones is the median.
    ordered = np.sort(np.where(usable, values, np.nan), axis=0)
    middle = np.maximum(count - 1, 0)[np.newaxis]
    median = 0.5 * (
        np.take_along_axis(ordered, middle // 2, axis=0)
        + np.take_along_axis(ordered, (middle + 1) // 2, axis=0)
    )
    bright = np.nan_to_num(np.abs(median[0]))
    allowed = MODEL_ERROR * ndimage.maximum_filter(bright, NEARBY, mode="nearest")
    with np.errstate(invalid="ignore"):
        far = usable & (np.abs(values - median) > CLIP * np.sqrt(variances) + allowed)
    far &= count >= 3
    grown = ndimage.maximum_filter(far, (1, 2 * GROWTH + 1, 2 * GROWTH + 1), mode="constant")
    # Growth takes a value only while others are left.
    left = (usable & ~grown).any(axis=0)
    outliers: NDArray[np.bool_] = far | (grown & left)
    return outliers


def _vote(masks: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Return the planes that most of the images with data have."""
    has_data = masks & np.uint16(MaskPlane.NO_DATA) == 0
    number = has_data.sum(axis=0)
    result = np.zeros(masks.shape[1:], dtype=MASK_DTYPE)
    for plane in MaskPlane:
        if plane & _KEPT:
            votes = (has_data & (masks & np.uint16(plane) != 0)).sum(axis=0)
            result[votes * 2 > number] |= np.uint16(plane)
    return result
