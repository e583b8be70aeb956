"""A point spread function that varies over the image."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import map_coordinates

from prompt_processing.images.psf_kernels import PADDING, shift_stamp


def polynomial_terms(x: ArrayLike, y: ArrayLike, shape: tuple[int, int], order: int) -> NDArray[np.float64]:
    """Return the terms ``u**i v**j``, ``i + j <= order``, of a polynomial over an image.

    Parameters
    ----------
    x, y
        Positions [pixel], of one shape.
    shape
        Shape ``(ny, nx)`` of the image: ``u = 2 x / nx - 1``, ``v = 2 y / ny - 1``.
    order
        Highest sum of the exponents.

    Returns
    -------
    terms
        Shape ``(n_terms, *shape of x)``, with i in the outer and j in the inner loop: for order 2
        1, v, v^2, u, u v, u^2.
    """
    u = 2.0 * np.asarray(x, dtype=np.float64) / shape[1] - 1.0
    v = 2.0 * np.asarray(y, dtype=np.float64) / shape[0] - 1.0
    return np.stack([u**i * v**j for i in range(order + 1) for j in range(order + 1 - i)])


@dataclass(slots=True, frozen=True)
class PsfModel:
    """A PSF whose every pixel is a polynomial of the position in the image.

    ``psf(x, y) = sum_k coefficients[k] * term_k(u, v)`` with ``u = 2 x / nx - 1``, ``v = 2 y / ny - 1`` and
    the terms ``u**i v**j``, ``i + j <= order``, in the order of `polynomial_terms`.
    """

    coefficients: NDArray[np.float64]
    """Shape ``(n_terms, size, size)``, ``size`` odd; the PSF is centred on the middle pixel."""
    order: int
    """Polynomial order in position."""
    shape: tuple[int, int]
    """Shape ``(ny, nx)`` of the image it belongs to."""

    @property
    def size(self) -> int:
        """Side of a stamp [pixel], odd."""
        return int(self.coefficients.shape[-1])

    def at(self, x: float, y: float) -> NDArray[np.float64]:
        """Return the PSF at a position, centred on the middle pixel.

        Parameters
        ----------
        x, y
            Position in the image [pixel].

        Returns
        -------
        stamp
            Shape ``(size, size)``, sum 1.
        """
        terms = polynomial_terms(x, y, self.shape, self.order)
        stamp = np.zeros((self.size, self.size))
        for term, plane in zip(terms, self.coefficients, strict=True):
            stamp += term * plane
        return stamp / stamp.sum()

    def render(self, x: float, y: float) -> NDArray[np.float64]:
        """Return the image of a star of flux 1, shifted by the fraction of its position.

        Parameters
        ----------
        x, y
            Position of the star [pixel].

        Returns
        -------
        stamp
            Shape ``(size, size)``; its middle pixel is the image's pixel ``(floor(x + 0.5), floor(y +
            0.5))``.
        """
        stamp = np.empty((self.size, self.size))
        padded = np.pad(self.at(x, y), PADDING)
        shift_stamp(padded, x - np.floor(x + 0.5), y - np.floor(y + 0.5), stamp)
        return stamp

    def fwhm(self, x: float, y: float) -> float:
        """Return the full width at half maximum at a position.

        Parameters
        ----------
        x, y
            Position in the image [pixel].

        Returns
        -------
        fwhm
            Diameter [pixel] of the circle of the same area as the contour at half of the peak.
        """
        stamp = self.at(x, y)
        fine = np.arange(0, self.size - 1 + 1e-9, 0.1)
        values = map_coordinates(stamp, np.meshgrid(fine, fine, indexing="ij"), order=3, mode="nearest")
        return float(2.0 * np.sqrt(np.count_nonzero(values > values.max() / 2.0) * 0.01 / np.pi))
