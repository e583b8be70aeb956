"""The kernel that matches a template's PSF to a science image: Alard-Lupton basis and fit.

References: Alard & Lupton 1998, ApJ 503, 325; Alard 2000, A&AS 144, 363 (spatial variation).
"""

from dataclasses import dataclass
from typing import Final

import numba
import numpy as np
from numpy.typing import NDArray

from prompt_processing.domain.errors import SubtractionError
from prompt_processing.images.exposure import MaskedImage
from prompt_processing.images.psf import polynomial_terms

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
STAMPS_FOR_ORDER: Final = ((150, 3), (40, 2), (12, 1), (1, 0))
"""Number of stamps from which on a spatial order is used, and that order."""
STAMPS_FOR_FULL_BASIS: Final = 60
RELATIVE_ERROR: Final = 0.002
"""Error of a pixel in units of its value that is added in quadrature to its noise: what no smooth kernel can
model (local astrometric errors, detector effects) must not let a few bright stars decide the fit."""
RELATIVE_EIGENVALUE: Final = 1e-11
"""Directions in parameter space whose eigenvalue is a smaller share of the largest are left out."""
CLIP: Final = 4.0
"""Stamps whose chi2 per pixel is this many robust standard deviations above the median are left out ..."""
MODEL_ERROR: Final = 0.02
"""... and whose residual is also more than this share of the signal."""
MAX_CLIPPED_SHARE: Final = 0.4
ITERATIONS: Final = 6


def exponents(order: int) -> list[tuple[int, int]]:
    """Return the exponents (i, j), ``i + j <= order``, in the order of `~.psf.polynomial_terms`."""
    return [(i, j) for i in range(order + 1) for j in range(order + 1 - i)]


@dataclass(slots=True, frozen=True)
class MatchingKernel:
    """A convolution kernel whose every pixel is a polynomial of the position in the image.

    ``kernel(x, y) = sum_k planes[k] * u**i_k * v**j_k`` with ``u = 2 x / nx - 1``, ``v = 2 y / ny - 1`` and
    the order of terms of `~.psf.polynomial_terms`.
    """

    planes: NDArray[np.float64]
    """Shape ``(n_terms, size, size)``, ``size`` odd; the middle pixel is the origin."""
    order: int
    """Polynomial order in position."""
    shape: tuple[int, int]
    """Shape ``(ny, nx)`` of the image it belongs to."""

    def at(self, x: float, y: float) -> NDArray[np.float64]:
        """Return the kernel at a position (0-based pixels), shape ``(size, size)``."""
        return np.tensordot(polynomial_terms(x, y, self.shape, self.order), self.planes, axes=1)

    def factor(
        self, k: int, y: NDArray[np.float64], x: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the factors of plane ``k`` in rows ``y`` and in columns ``x``; they are to be multiplied."""
        i, j = exponents(self.order)[k]
        ny, nx = self.shape
        return (2.0 * y / ny - 1.0) ** j, (2.0 * x / nx - 1.0) ** i

    def to_arrays(self) -> dict[str, NDArray[np.float64]]:
        """Return all that defines the kernel: ``planes``, ``order`` (one element) and ``shape`` (ny, nx)."""
        return {
            "planes": self.planes,
            "order": np.array([float(self.order)]),
            "shape": np.array(self.shape, float),
        }

    @property
    def central(self) -> NDArray[np.float64]:
        """The kernel at the centre of the image."""
        return self.at(self.shape[1] / 2, self.shape[0] / 2)


@dataclass(slots=True, frozen=True)
class KernelFit:
    """A fitted kernel and how well it went."""

    kernel: MatchingKernel
    used: NDArray[np.bool_]
    """Which of the given stamps were kept, shape ``(n,)``."""
    chi2_per_pixel: float
    """Median over the stamps that were kept, with `RELATIVE_ERROR` as part of the noise."""
    rank: int
    """Number of directions in parameter space that were constrained ..."""
    n_parameters: int
    """... of so many."""


@dataclass(slots=True, frozen=True)
class _Basis:
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


def _make_basis(scale: float, degrees: tuple[int, ...]) -> _Basis:
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
    return _Basis(stack, np.array(reach), np.array(row), np.array(column), mixing)


@dataclass(slots=True, frozen=True)
class _NormalEquations:
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
        """Chi2 of each stamp for its coefficients, shape ``(n_stamps, n_basis)``."""
        linear = np.einsum("sb,sb->s", coefficients, self.vector)
        quadratic = np.einsum("sb,sbc,sc->s", coefficients, self.matrix, coefficients, optimize=True)
        return self.norm - 2.0 * linear + quadratic


def fit_kernel(
    science: MaskedImage,
    template: MaskedImage,
    usable: NDArray[np.bool_],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    *,
    fwhm: float,
) -> KernelFit:
    """Fit the kernel that makes a template look like a science image, on stamps around stars.

    A background that varies like the kernel is fitted along and not kept.

    Parameters
    ----------
    science, template
        Images on one pixel grid and in one unit, shape ``(ny, nx)``.
    usable
        Pixels of the science image that may be compared with the convolved template, shape ``(ny, nx)``.
    x, y
        Centres of the stamps in pixels, shape ``(n,)``.
    fwhm
        FWHM of the science PSF in pixels; it scales the widths of the basis.

    Returns
    -------
    KernelFit

    Raises
    ------
    SubtractionError
        If no stamp has pixels to compare, or so many stamps disagree that the rest means nothing.
    """
    scale = float(np.clip(fwhm / REFERENCE_FWHM, 0.5, 1.5))
    basis = _make_basis(scale, DEGREES if len(x) >= STAMPS_FOR_FULL_BASIS else SMALL_DEGREES)
    equations = _stamp_equations(science, template, usable, x, y, basis)
    filled = equations.pixels > 0.3 * equations.pixels.max(initial=1.0)
    if not filled.any():
        raise SubtractionError(f"none of the {len(x)} stamps has pixels that both images can be compared on")
    used = filled
    for _ in range(ITERATIONS):
        order = next(order for least, order in STAMPS_FOR_ORDER if used.sum() >= least)
        terms = polynomial_terms(x, y, science.shape, order).T
        solution, rank, n_parameters = _solve(equations, terms, used, order)
        chi2 = equations.chi2(terms @ solution) / np.maximum(equations.pixels, 1.0)
        limit = _clip_limit(chi2[used])
        # What the kernel cannot model shows first at the brightest stars, which must not fall out for it.
        forgiven = MODEL_ERROR**2 * equations.norm / np.maximum(equations.pixels, 1.0)
        kept = filled & (chi2 <= limit + forgiven)
        if kept.sum() < (1.0 - MAX_CLIPPED_SHARE) * filled.sum():
            raise SubtractionError(
                f"the kernel fits only {kept.sum()} of {filled.sum()} stamps: "
                "template and science image differ"
            )
        if np.array_equal(kept, used):
            break
        used = kept
    kernel = MatchingKernel(np.tensordot(solution[:, :-1], basis.functions(), axes=1), order, science.shape)
    return KernelFit(kernel, used, float(np.median(chi2[used])), rank, n_parameters)


def _clip_limit(chi2: NDArray[np.float64]) -> float:
    middle = float(np.median(chi2))
    return middle + CLIP * max(1.4826 * float(np.median(np.abs(chi2 - middle))), 0.05 * middle)


def _solve(
    equations: _NormalEquations, terms: NDArray[np.float64], used: NDArray[np.bool_], order: int
) -> tuple[NDArray[np.float64], int, int]:
    """Solve for the coefficients of all basis functions in all spatial terms.

    The sum of the kernel (function 0) may vary linearly at most. Directions which the stamps do not constrain
    are left out (pseudo-inverse of the matrix scaled to unit diagonal), so that few stamps still give a
    kernel.

    Returns
    -------
    solution, rank, n_parameters
        ``solution`` has the shape ``(n_terms, n_basis)``.
    """
    n_basis, n_terms = equations.vector.shape[1], terms.shape[1]
    kept_terms = terms[used]
    matrix = np.einsum(
        "st,su,sbc->tbuc", kept_terms, kept_terms, equations.matrix[used], optimize=True
    ).reshape(n_terms * n_basis, n_terms * n_basis)
    vector = np.einsum("st,sb->tb", kept_terms, equations.vector[used]).ravel()
    free = np.ones((n_terms, n_basis), dtype=bool)
    free[:, 0] = [i + j <= 1 for i, j in exponents(order)]
    index = np.flatnonzero(free.ravel())
    matrix, vector = matrix[np.ix_(index, index)], vector[index]
    scaling = 1.0 / np.sqrt(np.maximum(np.diag(matrix), np.finfo(float).tiny))
    values, vectors = np.linalg.eigh(matrix * scaling[:, np.newaxis] * scaling[np.newaxis, :])
    good = values > RELATIVE_EIGENVALUE * values[-1]
    vectors = vectors[:, good]
    solution = np.zeros(n_terms * n_basis)
    solution[index] = scaling * (vectors @ ((vectors.T @ (scaling * vector)) / values[good]))
    return solution.reshape(n_terms, n_basis), int(good.sum()), index.size


def _stamp_equations(
    science: MaskedImage,
    template: MaskedImage,
    usable: NDArray[np.bool_],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    basis: _Basis,
) -> _NormalEquations:
    n_basis = len(basis.row)
    half = basis.filters.shape[1] // 2
    size = 2 * (half + STAMP_MARGIN) + 1
    matrix = np.zeros((len(x), n_basis + 1, n_basis + 1))
    vector = np.zeros((len(x), n_basis + 1))
    norm, pixels = np.zeros(len(x)), np.zeros(len(x))
    cut = np.empty((size + 2 * half, size + 2 * half))
    functions = np.ones((n_basis + 1, size, size))
    for s in range(len(x)):
        x0, y0 = round(x[s]) - size // 2, round(y[s]) - size // 2
        data, weight = np.zeros((size, size)), np.zeros((size, size))
        _data_and_weight(science.image, science.variance, template.variance, usable, x0, y0, data, weight)
        _cut(template.image, x0 - half, y0 - half, cut)
        _convolve_separable(cut, basis.filters, basis.reach, basis.row, basis.column, functions[:-1])
        by_pixel = np.ascontiguousarray(functions.reshape(n_basis + 1, -1).T)
        _accumulate(by_pixel, data.ravel(), weight.ravel(), matrix[s], vector[s])
        norm[s] = (data * data * weight).sum()
        pixels[s] = np.count_nonzero(weight)
    mixing = np.eye(n_basis + 1)
    mixing[:-1, :-1] = basis.mixing
    return _NormalEquations(mixing @ matrix @ mixing.T, vector @ mixing.T, norm, pixels)


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
