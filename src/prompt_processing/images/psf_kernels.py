"""Compiled inner loops of PSF rendering and PSF fits."""

import numba
import numpy as np
from numpy.typing import NDArray

_REACH = 3
"""Pixels on either side of the nearest one that the interpolation uses."""
_TAPS = 2 * _REACH + 1
PADDING = 8
"""Zeros around a stamp: reach of the interpolation, and room for a star to leave its pixel."""


@numba.njit(cache=True, nogil=True)
def lagrange_weights(s: float, weights: NDArray[np.float64], slopes: NDArray[np.float64]) -> None:
    """Write the weights of 7-point Lagrange interpolation and their derivatives.

    ``f(s) = sum_k weights[k] f(k - 3)``. Exact for polynomials of degree 6: sum, centroid and second moments
    of what is shifted are kept.

    Parameters
    ----------
    s
        Offset from the middle point, -0.5 to 0.5.
    weights, slopes
        Shape ``(7,)``, written: the weights and their derivatives with respect to ``s``.
    """
    for k in range(-_REACH, _REACH + 1):
        weight = 1.0
        slope = 0.0
        for m in range(-_REACH, _REACH + 1):
            if m != k:
                slope = (slope * (s - m) + weight) / (k - m)
                weight *= (s - m) / (k - m)
        weights[k + _REACH] = weight
        slopes[k + _REACH] = slope


@numba.njit(cache=True, nogil=True)
def _combine_rows(padded: NDArray[np.float64], top: int, left: int, weights: NDArray[np.float64],
                  work: NDArray[np.float64]) -> None:  # fmt: skip
    """Interpolate in y: ``work[i] = sum_k weights[k] padded[top + i + k, left:]``."""
    width = work.shape[1]
    for i in range(work.shape[0]):
        target = work[i]
        target[:] = 0.0
        for k in range(_TAPS):
            source = padded[top + i + k, left : left + width]
            weight = weights[k]
            for j in range(width):
                target[j] += weight * source[j]


@numba.njit(cache=True, nogil=True)
def _combine_columns(
    work: NDArray[np.float64], weights: NDArray[np.float64], result: NDArray[np.float64]
) -> None:
    """Interpolate in x: ``result[:, j] = sum_k weights[k] work[:, j + k]``."""
    width = result.shape[1]
    for i in range(result.shape[0]):
        target = result[i]
        target[:] = 0.0
        for k in range(_TAPS):
            source = work[i, k : k + width]
            weight = weights[k]
            for j in range(width):
                target[j] += weight * source[j]


@numba.njit(cache=True, nogil=True)
def shift_stamp(padded: NDArray[np.float64], dx: float, dy: float, result: NDArray[np.float64]) -> None:
    """Shift a stamp by a fraction of a pixel.

    Parameters
    ----------
    padded
        The stamp with `PADDING` zeros around it.
    dx, dy
        Shift [pixel], -0.5 to 0.5: the star moves from the middle pixel to (middle + dx, middle + dy).
    result
        Written, shape ``(n, n)``, n odd, at most the stamp's size: the central part of the shifted stamp.
    """
    n = result.shape[0]
    wx, wy, unused = np.empty(_TAPS), np.empty(_TAPS), np.empty(_TAPS)
    lagrange_weights(-dx, wx, unused)
    lagrange_weights(-dy, wy, unused)
    first = padded.shape[0] // 2 - n // 2 - _REACH
    work = np.empty((n, n + 2 * _REACH))
    _combine_rows(padded, first, first, wy, work)
    _combine_columns(work, wx, result)


@numba.njit(cache=True, nogil=True)
def evaluate_psf(
    coefficients: NDArray[np.float64],
    order: int,
    shape: tuple[int, int],
    x: float,
    y: float,
    padded: NDArray[np.float64],
) -> None:
    """Write the PSF at a position, sum 1: `PsfModel.at` for compiled loops.

    Parameters
    ----------
    coefficients, order, shape
        Of the `PsfModel`.
    x, y
        Position [pixel].
    padded
        Written: shape of a stamp and `PADDING` on every side, which becomes 0.
    """
    u = 2.0 * x / shape[1] - 1.0
    v = 2.0 * y / shape[0] - 1.0
    size = coefficients.shape[1]
    padded[:] = 0.0
    k = 0
    for i in range(order + 1):
        for j in range(order + 1 - i):
            term = u**i * v**j
            for a in range(size):
                source = coefficients[k, a]
                target = padded[PADDING + a, PADDING : PADDING + size]
                for b in range(size):
                    target[b] += term * source[b]
            k += 1
    padded /= padded.sum()


@numba.njit(cache=True, nogil=True)
def add_star(
    image: NDArray[np.float32],
    padded: NDArray[np.float64],
    x: float,
    y: float,
    flux: float,
    stamp: NDArray[np.float64],
) -> None:
    """Add a star to an image, in place; a negative flux takes it away.

    Parameters
    ----------
    image
        Shape ``(ny, nx)``; changed.
    padded
        PSF at the position, from `evaluate_psf`.
    x, y
        Position [pixel].
    flux
        Flux, in the unit of the image.
    stamp
        Work space of the size of a stamp; holds the shifted PSF afterwards.
    """
    xi, yi = int(np.floor(x + 0.5)), int(np.floor(y + 0.5))
    shift_stamp(padded, x - xi, y - yi, stamp)
    ny, nx = image.shape
    half = stamp.shape[0] // 2
    left, right = max(0, xi - half), min(nx, xi + half + 1)
    for yy in range(max(0, yi - half), min(ny, yi + half + 1)):
        if left < right:
            target = image[yy, left:right]
            source = stamp[yy - yi + half, left - xi + half : right - xi + half]
            for j in range(right - left):
                target[j] += flux * source[j]


@numba.njit(cache=True, nogil=True)
def _load_disc(
    image: NDArray[np.float32],
    variance: NDArray[np.float32],
    unusable: NDArray[np.bool_],
    xi: int,
    yi: int,
    values: NDArray[np.float64],
    noise: NDArray[np.float64],
    weights: NDArray[np.float64],
    disc: NDArray[np.float64],
) -> int:
    """Copy the pixels of a disc around a pixel; weights are 1 where a pixel is usable, else 0."""
    ny, nx = image.shape
    half = values.shape[0] // 2
    count = 0
    values[:] = 0.0
    noise[:] = 1.0
    weights[:] = 0.0
    for i in range(values.shape[0]):
        y = yi - half + i
        for j in range(values.shape[1]):
            x = xi - half + j
            disc[i, j] = 1.0 if (i - half) ** 2 + (j - half) ** 2 <= half**2 else 0.0
            if disc[i, j] > 0 and 0 <= y < ny and 0 <= x < nx and not unusable[y, x]:
                values[i, j] = image[y, x]
                noise[i, j] = variance[y, x]
                weights[i, j] = 1.0
                count += 1
    return count


@numba.njit(cache=True, nogil=True)
def _render_planes(
    padded: NDArray[np.float64],
    offset_x: float,
    offset_y: float,
    work: NDArray[np.float64],
    planes: NDArray[np.float64],
) -> None:
    """Write the PSF of a star at an offset from the middle pixel, and its derivatives in x and y."""
    n = planes.shape[1]
    wx, gx, wy, gy = np.empty(_TAPS), np.empty(_TAPS), np.empty(_TAPS), np.empty(_TAPS)
    whole_x, whole_y = int(np.floor(offset_x + 0.5)), int(np.floor(offset_y + 0.5))
    lagrange_weights(whole_x - offset_x, wx, gx)
    lagrange_weights(whole_y - offset_y, wy, gy)
    first = padded.shape[0] // 2 - n // 2 - _REACH
    _combine_rows(padded, first - whole_y, first - whole_x, wy, work)
    _combine_columns(work, wx, planes[0])
    # The weights are functions of minus the star's offset.
    _combine_columns(work, -gx, planes[1])
    _combine_rows(padded, first - whole_y, first - whole_x, -gy, work)
    _combine_columns(work, wx, planes[2])


@numba.njit(cache=True, nogil=True)
def fit_star(
    image: NDArray[np.float32],
    variance: NDArray[np.float32],
    unusable: NDArray[np.bool_],
    padded: NDArray[np.float64],
    half: int,
    start: NDArray[np.float64],
    origin: NDArray[np.float64],
    iterations: int,
    max_move: float,
    row: NDArray[np.float64],
) -> None:
    """Fit flux, and position if ``iterations > 0``, of one star by Gauss-Newton steps.

    Every pixel has the same weight, so noise in the variance cannot bias the flux; the errors are those of
    this estimator under the variance plane: ``(A^T A)^-1 A^T V A (A^T A)^-1``.

    Parameters
    ----------
    image
        The image without its other stars, shape ``(ny, nx)``.
    variance, unusable
        Variance and pixels to leave out, same shape.
    padded
        PSF near the star, from `evaluate_psf`.
    half
        Radius of the disc that is fitted [pixel].
    start
        x and y to begin with [pixel], shape ``(2,)``.
    origin
        Where the star was found [pixel], shape ``(2,)``: the centre of the disc.
    iterations
        Steps of the position; 0 keeps it.
    max_move
        Largest distance of the result from ``origin`` [pixel]; beyond it the position is put back there.
    row
        Written, shape ``(9,)``: x, y, x_err, y_err, flux, flux_err, chi-square, pixels, coverage (usable part
        of the sum of the squared PSF). Without usable pixels flux and errors are NaN; a position that was not
        fitted has NaN errors.
    """
    n = 2 * half + 1
    values, noise, weights, disc = np.empty((n, n)), np.empty((n, n)), np.empty((n, n)), np.empty((n, n))
    planes, work = np.empty((3, n, n)), np.empty((n, n + 2 * _REACH))
    basis = np.empty((3, n * n))
    xi, yi = int(np.floor(origin[0] + 0.5)), int(np.floor(origin[1] + 0.5))
    count = _load_disc(image, variance, unusable, xi, yi, values, noise, weights, disc)
    data, flat_noise, flat_weights = values.ravel(), noise.ravel(), weights.ravel()
    x, y, flux = start[0], start[1], 0.0
    free = iterations > 0
    row[:] = np.nan
    row[0], row[1], row[7], row[8] = x, y, count, 0.0
    reach = min(max_move, padded.shape[0] // 2 - half - _REACH - 1.0)
    for step in range(iterations + 2):
        _render_planes(padded, x - xi, y - yi, work, planes)
        for a in range(3):
            basis[a] = planes[a].ravel() * flat_weights
        power = np.dot(basis[0], basis[0])
        total = np.sum(planes[0] ** 2 * disc)
        row[8] = power / total if total > 0 else 0.0
        if count < 4 or row[8] < 0.05:
            return
        # First the flux alone, then steps in all three, at last the flux at the final place.
        if step == 0 or step > iterations or not free:
            flux = np.dot(basis[0], data) / power
            continue
        basis[1:] *= flux
        normal = np.dot(basis, basis.T)
        delta = np.zeros(3)
        if np.linalg.det(normal) > 1e-9 * normal[0, 0] * normal[1, 1] * normal[2, 2]:
            delta = np.linalg.solve(normal, np.dot(basis, data - flux * basis[0]))
        else:
            free = False
        length = np.hypot(delta[1], delta[2])
        scale = 1.0 / max(length, 1.0)
        flux += delta[0] * scale
        x += delta[1] * scale
        y += delta[2] * scale
        if not np.hypot(x - origin[0], y - origin[1]) <= reach:
            free = False
        if not free:
            x, y = origin[0], origin[1]
    _write_result(x, y, flux, free, basis, data, flat_noise, row)


@numba.njit(cache=True, nogil=True)
def _write_result(
    x: float,
    y: float,
    flux: float,
    free: bool,
    basis: NDArray[np.float64],
    data: NDArray[np.float64],
    noise: NDArray[np.float64],
    row: NDArray[np.float64],
) -> None:
    """Write place, flux, errors and chi-square of a fit; ``basis`` holds the PSF and its two derivatives."""
    row[0], row[1], row[4] = x, y, flux
    residual = data - flux * basis[0]
    used = basis[0] != 0.0
    row[6] = np.sum(np.where(used, residual**2 / noise, 0.0))
    row[5] = np.sqrt(np.dot(basis[0] * noise, basis[0])) / np.dot(basis[0], basis[0])
    if not free or flux == 0.0:
        return
    basis[1:] *= flux
    inverse = np.linalg.pinv(np.dot(basis, basis.T))
    covariance = np.dot(np.dot(inverse, np.dot(basis * noise, basis.T)), inverse)
    row[5], row[2], row[3] = np.sqrt(covariance[0, 0]), np.sqrt(covariance[1, 1]), np.sqrt(covariance[2, 2])
