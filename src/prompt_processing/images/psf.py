"""A point spread function that varies over the image."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(slots=True, frozen=True)
class PsfModel:
    """A PSF whose every pixel is a polynomial of the position in the image.

    ``psf(x, y) = sum_k coefficients[k] * term_k(u, v)`` with ``u = 2 x / nx - 1``, ``v = 2 y / ny - 1`` and the
    terms ``u**i v**j``, ``i + j <= order``, in the order of `polynomial_terms`.
    """

    coefficients: NDArray[np.float64]
    """Shape ``(n_terms, size, size)``, ``size`` odd; the PSF is centred on the middle pixel."""
    order: int
    """Polynomial order in position."""
    shape: tuple[int, int]
    """Shape ``(ny, nx)`` of the image it belongs to."""
