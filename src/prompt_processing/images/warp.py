"""Resampling of images onto the pixel grid of another WCS."""

from collections.abc import Iterable
from typing import Final

import numba
import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray

from prompt_processing.images.exposure import MaskedImage
from prompt_processing.images.masks import MASK_DTYPE, MaskPlane
from prompt_processing.images.threads import for_each

REACH: Final = 5
"""Pixels on either side of a position that are used along each axis."""
STEP: Final = 16
"""Distance of the nodes at which the WCSs are evaluated, in pixels of the destination."""
BAND: Final = 16
"""Rows of nodes that are resampled together; bands are worked on side by side."""
MAX_LOST_WEIGHT: Final = 0.1
"""Share of the kernel's absolute weight that may miss valid pixels before a result is ``NO_DATA``."""

_BLOCK: Final = 8
_PHASES: Final = 4096  # sub-pixel offsets of the kernel table: positions are good to 1/8192 px
_NO_DATA: Final = int(MaskPlane.NO_DATA)
_INTRP: Final = int(MaskPlane.INTRP)
_INVALID: Final = int(MaskPlane.BAD | MaskPlane.CR)


def warp(source: MaskedImage, from_wcs: WCS, to_wcs: WCS, to_shape: tuple[int, int]) -> MaskedImage:
    """Resample an image onto another pixel grid by interpolation with 10 x 10 pixels.

    Coordinates are exact at nodes 16 px apart and bilinear in between, which for the distortion of a single
    detector is good to about 1e-3 px.

    Parameters
    ----------
    source
        Image of surface brightness per pixel (for instance nJy per pixel), shape ``(ny, nx)``.
    from_wcs, to_wcs
        WCS of the source and of the result, 0-based pixels.
    to_shape
        Shape ``(ny, nx)`` of the result.

    Returns
    -------
    MaskedImage
        Values are multiplied by the ratio of the pixel areas, so the flux of a star stays the same.
        The variance is the one that a fit on the scale of a PSF sees: the interpolated variance times the
        area ratio. (Interpolation only takes away power near the Nyquist frequency and correlates neighbours;
        the variance of single pixels is therefore a few per cent lower.) A mask bit is set where one of
        the four source pixels around the position has it. Where more than `MAX_LOST_WEIGHT` of the kernel
        lies outside of the source or on pixels that hold no value (not finite, ``NO_DATA``, or ``BAD`` or
        ``CR`` without ``INTRP``), the result is 0 with ``NO_DATA`` and the bits; where less is lost it is
        ``INTRP``.

    Notes
    -----
    Lagrange interpolation: a polynomial of degree 9 through ten pixels along each axis. Sum, centroid and
    shape of a star are kept to 1e-4 of its peak if the FWHM is 5 pixels or more (1e-6 at 7.5 pixels), where a
    Lanczos-5 kernel of sum 1 is wrong by 1e-3 of the peak and moves the star by up to 0.01 pixels.
    """
    result = _empty(to_shape)
    _warp_onto(result, source, from_wcs, to_wcs)
    return result


def mosaic(patches: Iterable[tuple[MaskedImage, WCS]], to_wcs: WCS, to_shape: tuple[int, int]) -> MaskedImage:
    """Resample several overlapping images onto one grid; see `warp` for what is done to each.

    Where two patches overlap, the first that has data wins, so the order decides and is part of the result.
    Patches should overlap by at least ``2 * REACH`` pixels, or a seam without data remains.

    Parameters
    ----------
    patches
        Images with their WCSs. They are taken one at a time, so a generator keeps the memory low.
    to_wcs
        WCS of the result, 0-based pixels.
    to_shape
        Shape ``(ny, nx)`` of the result.

    Returns
    -------
    MaskedImage
        All ``NO_DATA`` where no patch has data.
    """
    result = _empty(to_shape)
    for patch, patch_wcs in patches:
        _warp_onto(result, patch, patch_wcs, to_wcs)
    return result


def _empty(shape: tuple[int, int]) -> MaskedImage:
    return MaskedImage(
        np.zeros(shape, dtype=np.float32),
        np.zeros(shape, dtype=np.float32),
        np.full(shape, _NO_DATA, dtype=MASK_DTYPE),
    )


def _warp_onto(result: MaskedImage, source: MaskedImage, from_wcs: WCS, to_wcs: WCS) -> None:
    """Fill the pixels of ``result`` that have no data yet and lie on ``source``."""
    box = _destination_box(source.shape, from_wcs, to_wcs, result.shape)
    if box is None:
        return
    nodes = _coordinate_nodes(box, from_wcs, to_wcs)
    invalid = _invalid_blocks(source.image, source.mask)
    table = _weight_table()
    x0, y0, nx, ny = box

    def resample_band(first: int) -> None:
        """Resample the rows that begin at a row of nodes."""
        start = first * STEP
        _resample(
            source.image,
            source.variance,
            source.mask,
            invalid,
            table,
            *(grid[first:] for grid in nodes),
            x0,
            y0 + start,
            nx,
            min(BAND * STEP, ny - start),
            result.image,
            result.variance,
            result.mask,
        )

    for_each(resample_band, range(0, (ny - 1) // STEP + 1, BAND))


def _destination_box(
    from_shape: tuple[int, int], from_wcs: WCS, to_wcs: WCS, to_shape: tuple[int, int]
) -> tuple[int, int, int, int] | None:
    """Return ``(x0, y0, nx, ny)`` of the part of the destination that the source can reach, or None."""
    ny, nx = from_shape
    xs, ys = np.linspace(-0.5, nx - 0.5, 33), np.linspace(-0.5, ny - 0.5, 33)
    edge_x = np.concatenate([xs, xs, np.full(33, xs[0]), np.full(33, xs[-1])])
    edge_y = np.concatenate([np.full(33, ys[0]), np.full(33, ys[-1]), ys, ys])
    ra, dec = from_wcs.all_pix2world(edge_x, edge_y, 0)
    x, y = to_wcs.all_world2pix(ra, dec, 0, quiet=True)
    x, y = x[np.isfinite(x)], y[np.isfinite(y)]
    if not x.size:
        return None  # on the other half of the sky
    margin = 2
    x0, x1 = max(0, int(np.min(x)) - margin), min(to_shape[1], int(np.max(x)) + margin + 1)
    y0, y1 = max(0, int(np.min(y)) - margin), min(to_shape[0], int(np.max(y)) + margin + 1)
    if x1 <= x0 or y1 <= y0:
        return None
    return x0, y0, x1 - x0, y1 - y0


def _coordinate_nodes(
    box: tuple[int, int, int, int], from_wcs: WCS, to_wcs: WCS
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return source x, source y and area ratio at nodes `STEP` px apart, from the box's first pixel on."""
    x0, y0, nx, ny = box
    node_x = x0 + STEP * np.arange((nx - 1) // STEP + 2, dtype=np.float64)
    node_y = y0 + STEP * np.arange((ny - 1) // STEP + 2, dtype=np.float64)
    to_x, to_y = np.meshgrid(node_x, node_y)
    ra, dec = to_wcs.all_pix2world(to_x.ravel(), to_y.ravel(), 0)
    x, y = from_wcs.all_world2pix(ra, dec, 0, quiet=True)
    x, y = x.reshape(to_x.shape), y.reshape(to_x.shape)
    x_down, x_right = np.gradient(x, STEP)
    y_down, y_right = np.gradient(y, STEP)
    return x, y, np.abs(x_right * y_down - x_down * y_right)


@numba.njit(cache=True, nogil=True)
def _is_invalid(value: float, bits: int) -> bool:
    unfilled = (bits & _INVALID) != 0 and (bits & _INTRP) == 0
    return unfilled or (bits & _NO_DATA) != 0 or not np.isfinite(value)


@numba.njit(cache=True, nogil=True)
def _invalid_blocks(image: NDArray[np.float32], mask: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """Tell for each block of 8 x 8 pixels whether any holds no value, so most stamps need no check."""
    ny, nx = image.shape
    blocks = np.zeros(((ny - 1) // _BLOCK + 1, (nx - 1) // _BLOCK + 1), dtype=np.bool_)
    for y in range(ny):
        for x in range(nx):
            if _is_invalid(image[y, x], mask[y, x]):
                blocks[y // _BLOCK, x // _BLOCK] = True
    return blocks


def _weight_table() -> NDArray[np.float32]:
    """Weights of the ``2 * REACH`` pixels around a position, at `_PHASES` + 1 sub-pixel offsets."""
    offset = np.linspace(0.0, 1.0, _PHASES + 1)
    places = np.arange(2 * REACH) - (REACH - 1)
    weights = np.ones((offset.size, places.size))
    for k, place in enumerate(places):
        for other in places:
            if other != place:
                weights[:, k] *= (offset - other) / (place - other)
    return weights.astype(np.float32)


@numba.njit(cache=True, nogil=True)
def _bilinear(nodes: NDArray[np.float64], row: int, column: int, down: float, right: float) -> float:
    above = nodes[row, column] * (1.0 - right) + nodes[row, column + 1] * right
    below = nodes[row + 1, column] * (1.0 - right) + nodes[row + 1, column + 1] * right
    return above * (1.0 - down) + below * down


@numba.njit(cache=True, nogil=True)
def _clean_stamp(invalid: NDArray[np.bool_], left: int, top: int) -> bool:
    """Tell whether no block that the kernel touches has an invalid pixel."""
    last = 2 * REACH - 1
    for by in range(top // _BLOCK, (top + last) // _BLOCK + 1):
        for bx in range(left // _BLOCK, (left + last) // _BLOCK + 1):
            if invalid[by, bx]:
                return False
    return True


@numba.njit(cache=True, nogil=True)
def _weighted_sum(
    image: NDArray[np.float32], left: int, top: int, wx: NDArray[np.float32], wy: NDArray[np.float32]
) -> float:
    """Sum of image times kernel, written out because a loop over ten taps is twice as slow."""
    w0, w1, w2, w3, w4 = wx[0], wx[1], wx[2], wx[3], wx[4]
    w5, w6, w7, w8, w9 = wx[5], wx[6], wx[7], wx[8], wx[9]
    total = np.float32(0.0)
    for k in range(2 * REACH):
        row = image[top + k]
        first = (w0 * row[left] + w1 * row[left + 1]) + (w2 * row[left + 2] + w3 * row[left + 3])
        second = (w4 * row[left + 4] + w5 * row[left + 5]) + (w6 * row[left + 6] + w7 * row[left + 7])
        third = w8 * row[left + 8] + w9 * row[left + 9]
        total += wy[k] * ((first + second) + third)
    return float(total)


@numba.njit(cache=True, nogil=True)
def _partial_sum(
    image: NDArray[np.float32],
    mask: NDArray[np.uint16],
    left: int,
    top: int,
    wx: NDArray[np.float32],
    wy: NDArray[np.float32],
) -> tuple[float, float]:
    """Weighted mean over the pixels that hold a value, and the share of absolute weight that is lost."""
    ny, nx = image.shape
    total, lost, everything, value = 0.0, 0.0, 0.0, 0.0
    for ky in range(2 * REACH):
        for kx in range(2 * REACH):
            weight = wx[kx] * wy[ky]
            if abs(weight) < 1e-12:
                continue
            px, py = left + kx, top + ky
            everything += abs(weight)
            if px < 0 or py < 0 or px >= nx or py >= ny or _is_invalid(image[py, px], mask[py, px]):
                lost += abs(weight)
            else:
                total += weight
                value += weight * image[py, px]
    share = lost / everything
    return (value / total if share <= MAX_LOST_WEIGHT else 0.0), share


@numba.njit(cache=True, nogil=True)
def _nearest_four(
    image: NDArray[np.float32], variance: NDArray[np.float32], mask: NDArray[np.uint16], x: float, y: float
) -> tuple[float, int]:
    """Interpolated variance (negative if there is none) and mask bits of the pixels around a position."""
    ny, nx = image.shape
    ix, iy = int(x + 1.0) - 1, int(y + 1.0) - 1
    weight_sum, variance_sum, bits = 0.0, 0.0, 0
    for py in range(iy, iy + 2):
        for px in range(ix, ix + 2):
            weight = (1.0 - abs(x - px)) * (1.0 - abs(y - py))
            if weight < 1e-6 or px < 0 or py < 0 or px >= nx or py >= ny:
                continue  # a pixel centre that is hit exactly is the only one that counts
            bits |= mask[py, px]
            if not _is_invalid(image[py, px], mask[py, px]) and np.isfinite(variance[py, px]):
                weight_sum += weight
                variance_sum += weight * variance[py, px]
    return (variance_sum / weight_sum if weight_sum > 0.0 else -1.0), bits


@numba.njit(cache=True, nogil=True)
def _resample(
    image: NDArray[np.float32],
    variance: NDArray[np.float32],
    mask: NDArray[np.uint16],
    invalid: NDArray[np.bool_],
    table: NDArray[np.float32],
    grid_x: NDArray[np.float64],
    grid_y: NDArray[np.float64],
    grid_area: NDArray[np.float64],
    x0: int,
    y0: int,
    nx: int,
    ny: int,
    out_image: NDArray[np.float32],
    out_variance: NDArray[np.float32],
    out_mask: NDArray[np.uint16],
) -> None:
    """Fill the pixels of a box of the output that have no data yet; node 0 is the box's first pixel."""
    from_ny, from_nx = image.shape
    for j in range(ny):
        row, down = j // STEP, (j % STEP) / STEP
        for i in range(nx):
            if out_mask[y0 + j, x0 + i] & _NO_DATA == 0:
                continue
            column, right = i // STEP, (i % STEP) / STEP
            x = _bilinear(grid_x, row, column, down, right)
            y = _bilinear(grid_y, row, column, down, right)
            # A coordinate that is not finite fails these comparisons, and its pixel stays without data.
            if not (x >= -0.5 and y >= -0.5 and x <= from_nx - 0.5 and y <= from_ny - 0.5):
                continue
            ix, iy = int(x + 1.0) - 1, int(y + 1.0) - 1
            left, top = ix - REACH + 1, iy - REACH + 1
            wx = table[int((x - ix) * _PHASES + 0.5)]
            wy = table[int((y - iy) * _PHASES + 0.5)]
            inside = left >= 0 and top >= 0 and left + 2 * REACH <= from_nx and top + 2 * REACH <= from_ny
            lost = 0.0
            if inside and _clean_stamp(invalid, left, top):
                value = _weighted_sum(image, left, top, wx, wy)
            else:
                value, lost = _partial_sum(image, mask, left, top, wx, wy)
            noise, bits = _nearest_four(image, variance, mask, x, y)
            if lost > MAX_LOST_WEIGHT or noise < 0.0:
                out_mask[y0 + j, x0 + i] |= bits
                continue
            area = _bilinear(grid_area, row, column, down, right)
            out_image[y0 + j, x0 + i] = value * area
            out_variance[y0 + j, x0 + i] = noise * area
            out_mask[y0 + j, x0 + i] = (bits & ~_NO_DATA) | (_INTRP if lost > 0.0 else 0)
