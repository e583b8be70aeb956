"""Convolution of full images with small kernels by FFT, tile by tile."""

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from prompt_processing.images.threads import for_each

TILE: Final = 640
"""Side of a tile with its margin, in pixels: a tile and its transform stay in the processor's cache."""
_Positions = NDArray[np.float64]


def convolve(image: NDArray[np.float32], kernel: NDArray[np.float64]) -> NDArray[np.float32]:
    """Convolve an image with a kernel; the image is taken as 0 outside of its edges.

    Parameters
    ----------
    image
        Shape ``(ny, nx)``, finite.
    kernel
        Shape ``(size, size)``, ``size`` odd; its middle pixel is the origin.

    Returns
    -------
    NDArray
        Shape ``(ny, nx)``.
    """
    return convolve_sum(image, kernel[np.newaxis], lambda _k, y, x: (np.ones(y.size), np.ones(x.size)))


def convolve_sum(
    image: NDArray[np.float32],
    kernels: NDArray[np.float64],
    factor: Callable[[int, _Positions, _Positions], tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> NDArray[np.float32]:
    """Convolve with several kernels and add the results, each times a factor that varies over the image.

    This is the exact convolution with a kernel that is a sum of constant kernels with coefficients which
    depend on the position of the result: one forward transform and one inverse transform for each kernel.

    Parameters
    ----------
    image
        Shape ``(ny, nx)``, finite; taken as 0 outside of its edges.
    kernels
        Shape ``(n, size, size)``, ``size`` odd; the middle pixel is the origin.
    factor
        ``factor(k, y, x)`` gives the factor of kernel k in rows ``y`` and in columns ``x`` of the result; the
        factor of a pixel is the product of the two.

    Returns
    -------
    NDArray
        Shape ``(ny, nx)``.

    Notes
    -----
    Overlap-save: tiles of `TILE` pixels overlap by the kernel, so that the cyclic wrap falls on the overlap.
    """
    half = kernels.shape[-1] // 2
    result = np.empty_like(image)
    tile_ny, tile_nx = (fft.next_fast_len(min(TILE, n + 2 * half), real=True) for n in image.shape)
    transforms = [_transform(kernel, (tile_ny, tile_nx)) for kernel in kernels]

    def convolve_tile(tile: tuple[slice, slice]) -> None:
        rows, columns = tile
        padded = np.zeros((tile_ny, tile_nx), dtype=np.float32)
        _cut(image, rows.start - half, columns.start - half, padded)
        spectrum = fft.rfft2(padded)
        y = np.arange(rows.start, rows.stop, dtype=np.float64)
        x = np.arange(columns.start, columns.stop, dtype=np.float64)
        total = np.zeros((y.size, x.size), dtype=np.float32)
        for k, transform in enumerate(transforms):
            full = fft.irfft2(spectrum * transform, s=padded.shape, overwrite_x=True)
            part = full[half : half + y.size, half : half + x.size]
            down, right = factor(k, y, x)
            part *= down.astype(np.float32)[:, np.newaxis]
            part *= right.astype(np.float32)
            total += part
        result[rows, columns] = total

    for_each(convolve_tile, _tiles(image.shape, (tile_ny - 2 * half, tile_nx - 2 * half)))
    return result


def _transform(kernel: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.complex64]:
    """Fourier transform of a kernel whose middle goes to the first pixel."""
    half = kernel.shape[0] // 2
    field = np.zeros(shape, dtype=np.float32)
    field[: kernel.shape[0], : kernel.shape[1]] = kernel
    transform: NDArray[np.complex64] = fft.rfft2(np.roll(field, (-half, -half), axis=(0, 1)))
    return transform


def _tiles(shape: tuple[int, int], step: tuple[int, int]) -> Iterator[tuple[slice, slice]]:
    for y in range(0, shape[0], step[0]):
        for x in range(0, shape[1], step[1]):
            yield slice(y, min(y + step[0], shape[0])), slice(x, min(x + step[1], shape[1]))


def _cut(image: NDArray[np.float32], y0: int, x0: int, out: NDArray[np.float32]) -> None:
    """Copy the part of an image that begins at (x0, y0) into ``out``, with zeros outside of the image."""
    out[:] = 0.0
    y1, x1 = min(y0 + out.shape[0], image.shape[0]), min(x0 + out.shape[1], image.shape[1])
    top, left = max(y0, 0), max(x0, 0)
    out[top - y0 : y1 - y0, left - x0 : x1 - x0] = image[top:y1, left:x1]
