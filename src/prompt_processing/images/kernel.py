"""The kernel that matches a template's PSF to a science image.

References: Alard & Lupton 1998, ApJ 503, 325; Alard 2000, A&AS 144, 363 (spatial variation).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from prompt_processing.domain.errors import SubtractionError
from prompt_processing.images.exposure import MaskedImage
from prompt_processing.images.kernel_stamps import (
    DEGREES,
    REFERENCE_FWHM,
    SMALL_DEGREES,
    StampEquations,
    Stamps,
    exponents,
    make_basis,
)
from prompt_processing.images.psf import polynomial_terms

STAMPS_FOR_ORDER: Final = ((150, 3), (40, 2), (12, 1), (1, 0))
"""Number of stamps from which on a spatial order is used, and that order."""
STAMPS_FOR_FULL_BASIS: Final = 60
RELATIVE_EIGENVALUE: Final = 1e-11
"""Directions in parameter space whose eigenvalue is a smaller share of the largest are left out."""
CLIP: Final = 4.0
"""Stamps whose chi2 per pixel is this many robust standard deviations above the median are left out ..."""
MODEL_ERROR: Final = 0.02
"""... and whose residual is also more than this share of the signal."""
MAX_CLIPPED_SHARE: Final = 0.4
ITERATIONS: Final = 6
REPAIRS: Final = 2
"""How often stamps that were left out are searched for transients, and tried again without those."""


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
        """Return the kernel at a position.

        Parameters
        ----------
        x, y
            0-based pixel position.

        Returns
        -------
        kernel
            Shape ``(size, size)``.
        """
        return np.tensordot(polynomial_terms(x, y, self.shape, self.order), self.planes, axes=1)

    def factor(
        self, k: int, y: NDArray[np.float64], x: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the spatial factors of a plane; their outer product multiplies the plane.

        Parameters
        ----------
        k
            Number of the plane.
        y, x
            0-based rows and columns [px].

        Returns
        -------
        in_y, in_x
            Factors with the shapes of ``y`` and ``x``.
        """
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
    basis = make_basis(scale, DEGREES if len(x) >= STAMPS_FOR_FULL_BASIS else SMALL_DEGREES)
    stamps = Stamps(science, template, usable, x, y, basis)
    filled = stamps.equations.pixels > 0.3 * stamps.equations.pixels.max(initial=1.0)
    if not filled.any():
        raise SubtractionError(f"none of the {len(x)} stamps has pixels that both images can be compared on")
    fit = _fit_clipped(stamps.equations, x, y, science.shape, filled, filled)
    for _ in range(REPAIRS):
        left_out = np.flatnonzero(filled & ~fit.used)
        repaired = [int(s) for s in left_out if stamps.repair(int(s), fit.coefficients[s])]
        if not repaired:
            break
        again = fit.used.copy()
        again[repaired] = True
        fit = _fit_clipped(stamps.equations, x, y, science.shape, filled, again)
    if fit.used.sum() < (1.0 - MAX_CLIPPED_SHARE) * filled.sum():
        raise SubtractionError(
            f"the kernel fits only {fit.used.sum()} of {filled.sum()} stamps: "
            "template and science image differ"
        )
    planes = np.tensordot(fit.solution[:, :-1], basis.functions(), axes=1)
    kernel = MatchingKernel(planes, fit.order, science.shape)
    return KernelFit(kernel, fit.used, float(np.median(fit.chi2[fit.used])), fit.rank, fit.n_parameters)


@dataclass(slots=True, frozen=True)
class _ClippedFit:
    """A solution and what it says about every stamp."""

    solution: NDArray[np.float64]
    """Shape ``(n_terms, n_basis + 1)``."""
    order: int
    rank: int
    n_parameters: int
    used: NDArray[np.bool_]
    coefficients: NDArray[np.float64]
    """Shape ``(n_stamps, n_basis + 1)``."""
    chi2: NDArray[np.float64]
    """Per pixel."""


def _fit_clipped(
    equations: StampEquations,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    shape: tuple[int, int],
    filled: NDArray[np.bool_],
    first: NDArray[np.bool_],
) -> _ClippedFit:
    """Solve, beginning with the stamps of ``first``, and leave out stamps until the rest agree."""
    used = first
    pixels = np.maximum(equations.pixels, 1.0)
    # What the kernel cannot model shows first at the brightest stars, which must not fall out for it.
    forgiven = MODEL_ERROR**2 * equations.norm / pixels
    for _ in range(ITERATIONS):
        order = next(order for least, order in STAMPS_FOR_ORDER if used.sum() >= least)
        terms = polynomial_terms(x, y, shape, order).T
        solution, rank, n_parameters = _solve(equations, terms, used, order)
        coefficients = terms @ solution
        chi2 = equations.chi2(coefficients) / pixels
        fit = _ClippedFit(solution, order, rank, n_parameters, used, coefficients, chi2)
        kept = filled & (chi2 <= _clip_limit(chi2[used]) + forgiven)
        if np.array_equal(kept, used) or not kept.any():
            break
        used = kept
    return fit


def _clip_limit(chi2: NDArray[np.float64]) -> float:
    middle = float(np.median(chi2))
    return middle + CLIP * max(1.4826 * float(np.median(np.abs(chi2 - middle))), 0.05 * middle)


def _solve(
    equations: StampEquations, terms: NDArray[np.float64], used: NDArray[np.bool_], order: int
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
