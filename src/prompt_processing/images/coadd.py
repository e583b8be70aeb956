"""Coaddition of images on one grid."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from prompt_processing.images.exposure import MaskedImage
from prompt_processing.images.masks import MASK_DTYPE, UNUSABLE, MaskPlane

CLIP: Final = 5.0
"""Deviation from the median, in standard deviations, of values that are left out."""
MODEL_ERROR: Final = 0.15
"""Part of a value by which epochs may differ because their PSFs do: keeps the cores of stars."""
_ROWS: Final = 256
_KEPT: Final = np.uint16(MaskPlane.SAT | MaskPlane.SUSPECT)


def coadd(images: Sequence[MaskedImage]) -> MaskedImage:
    """Return the mean of images of one grid, weighted by inverse variance, without what is in one only.

    With three or more values at a pixel, one that is far above or below their median is left out: a cosmic
    ray, a satellite, a transient or a moving object. Pixels that are unusable in one image come from the others.

    Parameters
    ----------
    images
        Images of one shape [nJy].

    Returns
    -------
    coadd
        ``NO_DATA`` with NaN where no image has a usable pixel; ``SAT`` and ``SUSPECT`` where most have it.

    Raises
    ------
    ValueError
        If there is no image, or they differ in shape.
    """
    if not images or len({image.shape for image in images}) > 1:
        raise ValueError(f"images of one shape are needed, not {[image.shape for image in images]}")
    result = MaskedImage(
        np.empty(images[0].shape, dtype=np.float32),
        np.empty(images[0].shape, dtype=np.float32),
        np.zeros(images[0].shape, dtype=MASK_DTYPE),
    )
    for start in range(0, result.shape[0], _ROWS):
        _coadd_rows(images, result, slice(start, start + _ROWS))
    return result


def _coadd_rows(images: Sequence[MaskedImage], result: MaskedImage, rows: slice) -> None:
    values = np.stack([image.image[rows] for image in images])
    variances = np.stack([image.variance[rows] for image in images])
    masks = np.stack([image.mask[rows] for image in images])
    usable = (masks & np.uint16(UNUSABLE) == 0) & np.isfinite(values) & (variances > 0)
    usable &= ~_outliers(values, variances, usable)
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = np.where(usable, 1 / variances, 0).astype(np.float64)
        total = weights.sum(axis=0)
        result.image[rows] = np.where(usable, values * weights, 0).sum(axis=0) / total
        result.variance[rows] = 1 / total
    empty = total == 0
    result.image[rows][empty] = np.nan
    result.variance[rows][empty] = np.nan
    result.mask[rows] = _vote(masks)
    result.mask[rows][empty] |= np.uint16(MaskPlane.NO_DATA)


def _outliers(
    values: NDArray[np.float32], variances: NDArray[np.float32], usable: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Tell which values are far from the median of three or more."""
    masked = np.where(usable, values, np.nan)
    with np.errstate(invalid="ignore"):
        # Sorting puts NaN last: the middle of the finite ones is the (lower) median.
        count = usable.sum(axis=0)
        ordered = np.sort(masked, axis=0)
        middle = np.maximum(count - 1, 0)[np.newaxis]
        median = 0.5 * (
            np.take_along_axis(ordered, middle // 2, axis=0)
            + np.take_along_axis(ordered, (middle + 1) // 2, axis=0)
        )
        allowed = CLIP * np.sqrt(variances) + MODEL_ERROR * np.abs(median)
        return (np.abs(values - median) > allowed) & (count >= 3)


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
