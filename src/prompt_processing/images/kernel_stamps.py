"""Least-squares problems of a matching kernel: one for each stamp around a star.

The basis is that of Alard & Lupton 1998, ApJ 503, 325: Gaussians times polynomials, which are products of a
function of x and one of y.
"""

from dataclasses import dataclass
from typing import Final

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from prompt_processing.images.exposure import MaskedImage

REFERENCE_FWHM: Final = 9.0
"""FWHM of the science image, in pixels, for which the widths below were chosen; they scale with it."""
WIDTHS: Final = (1.0, 2.1, 4.2, 8.0)
"""Standard deviations of the Gaussians at `REFERENCE_FWHM`, in pixels."""
DEGREES: Final = (4, 3, 2, 2)
"""Degree of the polynomial that each Gaussian is multiplied with."""
SMALL_DEGREES: Final = (3, 3, 2, 0)
"""The same where there are few stamps."""
CUTOFF: Final = 5.5
"""Each Gaussian is 0 beyond this many standard deviations."""
HALF_SIZE: Final = 24
"""Half size of the kernel at `REFERENCE_FWHM`, in pixels."""
STAMP_MARGIN: Final = 6
"""A stamp's half size is the kernel's plus this."""
RELATIVE_ERROR: Final = 0.002
"""Error of a pixel in units of its value that is added in quadrature to its noise: what no smooth kernel can
model (local astrometric errors, detector effects) must not let a few bright stars decide the fit."""
FOREIGN: Final = 5.0
"""Significance of 5 x 5 pixels of a residual from which on something else is there ..."""
FOREIGN_SHARE: Final = 0.05
"""... if it is also more than this share of the light there."""
FOREIGN_GROWTH: Final = 4
"""Distance around it that is left out too, in pixels."""


def exponents(order: int) -> list[tuple[int, int]]:
    """Return the exponents (i, j), ``i + j <= order``, in the order of `~.psf.polynomial_terms`.

    Parameters
    ----------
    order
        Largest ``i + j``.

    Returns
    -------
    exponents
        Pairs of exponents of x and y.
    """
    return [(i, j) for i in range(order + 1) for j in range(order + 1 - i)]


@dataclass(slots=True, frozen=True)
class Basis:
    """Separable functions ``filters[row[k]](y) * filters[column[k]](x)`` and their recombination.

    After recombination function 0 has sum 1 and all others sum 0, so that the sum of the kernel is the
    coefficient of function 0 alone.
    """

    filters: NDArray[np.float64]
    """Shape ``(n_filters, size)``."""
    reach: NDArray[np.int64]
    """Distance from the middle beyond which a filter is 0, shape ``(n_filters,)``."""
    row: NDArray[np.int64]
    column: NDArray[np.int64]
    mixing: NDArray[np.float64]

    def functions(self) -> NDArray[np.float64]:
        """Return the recombined functions, shape ``(n, size, size)``."""
        raw = self.filters[self.row][:, :, np.newaxis] * self.filters[self.column][:, np.newaxis, :]
        return np.tensordot(self.mixing, raw, axes=1)


def make_basis(scale: float, degrees: tuple[int, ...]) -> Basis:
    """Return the basis of Gaussians times polynomials (Alard & Lupton 1998).

    Parameters
    ----------
    scale
        Factor on the widths; 1 at `REFERENCE_FWHM`.
    degrees
        Degree of the polynomial of each Gaussian in `WIDTHS`.

    Returns
    -------
    basis
        Separable functions with normalized filters.
    """
    half = round(HALF_SIZE * scale)
    u = np.arange(-half, half + 1, dtype=np.float64)
    filters: list[NDArray[np.float64]] = []
    reach: list[int] = []
    row: list[int] = []
    column: list[int] = []
    for width, degree in zip(WIDTHS, degrees, strict=True):
        sigma = width * scale
        first = len(filters)
        cutoff = min(half, int(np.ceil(CUTOFF * sigma)))
        reach += [cutoff] * (degree + 1)
        envelope = np.exp(-0.5 * (u / sigma) ** 2) * (np.abs(u) <= cutoff)
        filters += [envelope * (u / sigma) ** power for power in range(degree + 1)]
        for i, j in exponents(degree):
            column.append(first + i)
            row.append(first + j)
    stack = np.stack([f / np.abs(f).sum() for f in filters])
    sums = stack.sum(axis=1)
    total = sums[row] * sums[column]
    even = np.abs(total) > 1e-9
    mixing = np.diag(np.where(even, 1.0 / np.where(even, total, 1.0), 1.0))
    mixing[1:, 0] -= np.where(even[1:], mixing[0, 0], 0.0)
    return Basis(stack, np.array(reach), np.array(row), np.array(column), mixing)


@dataclass(slots=True, frozen=True)
class StampEquations:
    """One least-squares problem per stamp; the last function is a constant background."""

    matrix: NDArray[np.float64]
    """Shape ``(n_stamps, n_basis + 1, n_basis + 1)``."""
    vector: NDArray[np.float64]
    """Shape ``(n_stamps, n_basis + 1)``."""
    norm: NDArray[np.float64]
    """Shape ``(n_stamps,)``: the weighted sum of squares of the data."""
    pixels: NDArray[np.float64]
    """Shape ``(n_stamps,)``: number of pixels with weight."""

    def chi2(self, coefficients: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the chi2 of each stamp.

        Parameters
        ----------
        coefficients
            Coefficients of the basis for each stamp, shape ``(n_stamps, n_basis)``.

        Returns
        -------
        chi2
            Shape ``(n_stamps,)``.
        """
        linear = np.einsum("sb,sb->s", coefficients, self.vector)
        quadratic = np.einsum("sb,sbc,sc->s", coefficients, self.matrix, coefficients, optimize=True)
        return self.norm - 2.0 * linear + quadratic


class Stamps:
    """The stamps around stars on a pair of images.

    Parameters
    ----------
    science, template
        Images on one pixel grid and in one unit, shape ``(ny, nx)``.
    usable
        Pixels of the science image that may be compared with the convolved template, shape ``(ny, nx)``.
    x, y
        Centres in pixels, shape ``(n,)``.
    basis
        Functions of the kernel.
    """

    def __init__(
        self,
        science: MaskedImage,
        template: MaskedImage,
        usable: NDArray[np.bool_],
        x: NDArray[np.float64],
        y: NDArray[np.float64],
        basis: Basis,
    ) -> None:
        self._science, self._template, self._usable, self._basis = science, template, usable, basis
        half = basis.filters.shape[1] // 2
        self._half = half
        self._size = 2 * (half + STAMP_MARGIN) + 1
        self._x0 = np.rint(x).astype(np.int64) - self._size // 2
        self._y0 = np.rint(y).astype(np.int64) - self._size // 2
        self._cut = np.empty((self._size + 2 * half, self._size + 2 * half))
        n = len(basis.row) + 1
        self._functions = np.ones((n, self._size, self._size))  # the last one is the background
        self._mixing = np.eye(n)
        self._mixing[:-1, :-1] = basis.mixing
        self.equations = StampEquations(
            np.zeros((len(x), n, n)), np.zeros((len(x), n)), np.zeros(len(x)), np.zeros(len(x))
        )
        for s in range(len(x)):
            data, weight = self._fill(s)
            self._write(s, data, weight)

    def repair(self, s: int, coefficients: NDArray[np.float64]) -> bool:
        """Leave out the pixels of a stamp on which something is that a kernel cannot explain: a transient.

        Parameters
        ----------
        s
            Number of the stamp.
        coefficients
            Its coefficients from the other stamps, shape ``(n_basis + 1,)``.

        Returns
        -------
        bool
            Whether pixels were left out. If the star itself has changed, nothing is done.
        """
        data, weight = self._fill(s)
        model = np.tensordot(self._mixing.T @ coefficients, self._functions, axes=1)
        smooth = ndimage.uniform_filter((data - model) * np.sqrt(weight), 5) * 5.0
        light = ndimage.uniform_filter(np.abs(model) * np.sqrt(weight), 5) * 5.0
        foreign = (np.abs(smooth) > FOREIGN) & (np.abs(smooth) > FOREIGN_SHARE * light)
        foreign = ndimage.binary_dilation(foreign, np.ones((3, 3)), FOREIGN_GROWTH)
        middle = self._size // 2
        if not foreign.any() or foreign[middle - 2 : middle + 3, middle - 2 : middle + 3].any():
            return False
        weight[foreign] = 0.0
        self._write(s, data, weight)
        return True

    def _fill(self, s: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Convolve the template with every function, and return data and weights of the science image."""
        x0, y0 = int(self._x0[s]), int(self._y0[s])
        data, weight = np.zeros((self._size, self._size)), np.zeros((self._size, self._size))
        image, variance, noise = self._science.image, self._science.variance, self._template.variance
        _data_and_weight(image, variance, noise, self._usable, x0, y0, data, weight)
        _cut(self._template.image, x0 - self._half, y0 - self._half, self._cut)
        basis = self._basis
        _convolve_separable(
            self._cut, basis.filters, basis.reach, basis.row, basis.column, self._functions[:-1]
        )
        return data, weight

    def _write(self, s: int, data: NDArray[np.float64], weight: NDArray[np.float64]) -> None:
        """Store the equations of the stamp that was filled last."""
        n = len(self._functions)
        by_pixel = np.ascontiguousarray(self._functions.reshape(n, -1).T)
        matrix, vector = np.zeros((n, n)), np.zeros(n)
        _accumulate(by_pixel, data.ravel(), weight.ravel(), matrix, vector)
        self.equations.matrix[s] = self._mixing @ matrix @ self._mixing.T
        self.equations.vector[s] = self._mixing @ vector
        self.equations.norm[s] = (data * data * weight).sum()
        self.equations.pixels[s] = np.count_nonzero(weight)


@numba.njit(cache=True, nogil=True)
def _cut(image: NDArray[np.float32], x0: int, y0: int, out: NDArray[np.float64]) -> None:
    """Copy the square that begins at (x0, y0), 0 outside of the image."""
    ny, nx = image.shape
    for j in range(out.shape[0]):
        for i in range(out.shape[1]):
            inside = 0 <= y0 + j < ny and 0 <= x0 + i < nx
            out[j, i] = image[y0 + j, x0 + i] if inside else 0.0


@numba.njit(cache=True, nogil=True)
def _data_and_weight(
    image: NDArray[np.float32],
    variance: NDArray[np.float32],
    template_variance: NDArray[np.float32],
    usable: NDArray[np.bool_],
    x0: int,
    y0: int,
    data: NDArray[np.float64],
    weight: NDArray[np.float64],
) -> None:
    """Fill data and inverse variance of a stamp, both 0 where a pixel is not usable."""
    ny, nx = image.shape
    for j in range(data.shape[0]):
        for i in range(data.shape[1]):
            px, py = x0 + i, y0 + j
            if 0 <= py < ny and 0 <= px < nx and usable[py, px]:
                value = image[py, px]
                data[j, i] = value
                noise = variance[py, px] + template_variance[py, px] + (RELATIVE_ERROR * value) ** 2
                weight[j, i] = 1.0 / noise if noise > 0.0 else 0.0


@numba.njit(cache=True, nogil=True)
def _convolve_separable(
    cut: NDArray[np.float64],
    filters: NDArray[np.float64],
    reach: NDArray[np.int64],
    row: NDArray[np.int64],
    column: NDArray[np.int64],
    out: NDArray[np.float64],
) -> None:
    """Convolve a cut with each function (not recombined); results are smaller by the kernel."""
    n_filters, taps = filters.shape
    half = taps // 2
    size = out.shape[1]
    along_x = np.zeros((n_filters, cut.shape[0], size))
    for f in range(n_filters):
        for j in range(cut.shape[0]):
            target = along_x[f, j]
            for k in range(half - reach[f], half + reach[f] + 1):
                weight = filters[f, taps - 1 - k]
                line = cut[j, k : k + size]
                for i in range(size):
                    target[i] += weight * line[i]
    out[:] = 0.0
    for b in range(out.shape[0]):
        f = row[b]
        for j in range(size):
            target = out[b, j]
            for k in range(half - reach[f], half + reach[f] + 1):
                weight = filters[f, taps - 1 - k]
                line = along_x[column[b], j + k]
                for i in range(size):
                    target[i] += weight * line[i]


@numba.njit(cache=True, nogil=True)
def _accumulate(
    functions: NDArray[np.float64],
    data: NDArray[np.float64],
    weight: NDArray[np.float64],
    matrix: NDArray[np.float64],
    vector: NDArray[np.float64],
) -> None:
    """Add up the normal equations of one stamp; ``functions`` has the shape ``(pixels, n)``.

    The loops run over functions innermost: the order of every sum is fixed, and the compiler can still use
    vector instructions. (A matrix library may split sums by the number of its threads.)
    """
    n_pixels, n = functions.shape
    for p in range(n_pixels):
        if weight[p] == 0.0:
            continue
        values = functions[p]
        for b in range(n):
            scaled = weight[p] * values[b]
            vector[b] += scaled * data[p]
            line = matrix[b]
            for c in range(n):
                line[c] += scaled * values[c]
