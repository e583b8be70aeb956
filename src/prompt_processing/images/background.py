"""The sky: a smooth surface through medians of a mesh."""

from dataclasses import dataclass

import numpy as np
import sep
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from prompt_processing.domain.errors import ScienceError
from prompt_processing.images.exposure import MaskedImage
from prompt_processing.images.masks import UNUSABLE, MaskPlane

_MIN_GOOD_FRACTION = 0.01


@dataclass(slots=True, frozen=True)
class Background:
    """A sky surface: natural bicubic spline through values at the centres of a mesh."""

    mesh: NDArray[np.float64]
    """Sky at the centres of the cells, shape ``(n_y, n_x)``, in the unit of the image."""
    cell: tuple[int, int]
    """Height and width of a cell [pixel]; cell (0, 0) begins at pixel (0, 0)."""
    shape: tuple[int, int]
    """Shape ``(ny, nx)`` of the image."""
    level: float
    """Median of the mesh."""
    rms: float
    """Noise of one pixel about the surface, from the image itself."""

    def render(self) -> NDArray[np.float32]:
        """Return the surface at every pixel, shape ``(ny, nx)``."""
        rows = _spline_matrix(self.mesh.shape[0], self.cell[0], self.shape[0])
        columns = _spline_matrix(self.mesh.shape[1], self.cell[1], self.shape[1])
        return ((rows @ self.mesh) @ columns.T).astype(np.float32)


def _centres(n_cells: int, cell: int, length: int) -> NDArray[np.float64]:
    return np.minimum((np.arange(n_cells) + 0.5) * cell - 0.5, length - 1.0)


def _spline_matrix(n_cells: int, cell: int, length: int) -> NDArray[np.float64]:
    """Return the weights of the mesh values at each pixel of an axis, shape ``(length, n_cells)``.

    Beyond the outer centres the surface goes on straight: a cubic would run away there.
    """
    if n_cells == 1:
        return np.ones((length, 1))
    centres = _centres(n_cells, cell, length)
    spline = CubicSpline(centres, np.eye(n_cells), bc_type="natural")
    pixels = np.arange(length, dtype=np.float64)
    inside = np.clip(pixels, centres[0], centres[-1])
    return np.asarray(spline(inside) + (pixels - inside)[:, np.newaxis] * spline(inside, 1))


def _cell_size(length: int, mesh: int) -> int:
    """Return the cell size next to ``mesh`` that leaves no sliver at the end."""
    return -(-length // max(1, round(length / mesh)))


def measure_background(masked: MaskedImage, mesh: int = 128) -> Background:
    """Measure the sky from the pixels that are neither unusable nor part of a detection.

    Parameters
    ----------
    masked
        The image; pixels of `UNUSABLE`, DETECTED or DETECTED_NEGATIVE are left out.
    mesh
        Approximate size of a cell [pixel].

    Returns
    -------
    background
        The surface.

    Raises
    ------
    ScienceError
        If hardly any pixel can be used.

    Notes
    -----
    Clipped mode of each cell and 3 x 3 median over the cells: Bertin & Arnouts 1996 (A&AS 117, 393), as in
    the library sep.
    """
    bits = np.uint16(UNUSABLE | MaskPlane.DETECTED | MaskPlane.DETECTED_NEGATIVE)
    excluded = ((masked.mask & bits) != 0) | ~np.isfinite(masked.image)
    good = 1.0 - float(excluded.mean())
    if good < _MIN_GOOD_FRACTION:
        raise ScienceError(
            f"no sky to measure: {100 * good:.2f} % of the pixels are usable and free of sources"
        )
    height, width = (_cell_size(length, mesh) for length in masked.shape)
    image = np.ascontiguousarray(masked.image)
    surface = sep.Background(image, mask=excluded, bw=width, bh=height, fw=3, fh=3)
    values = surface.back()
    y, x = (
        _centres(-(-length // cell), cell, length)
        for length, cell in zip(masked.shape, (height, width), strict=True)
    )
    # A centre may lie between two pixels; sep gives its surface at pixels only.
    grid = np.mean(
        [
            values[np.ix_(round_y(y).astype(int), round_x(x).astype(int))].astype(np.float64)
            for round_y in (np.floor, np.ceil)
            for round_x in (np.floor, np.ceil)
        ],
        axis=0,
    )
    return Background(grid, (height, width), masked.shape, float(np.median(grid)), float(surface.globalrms))


def subtract_background(masked: MaskedImage, mesh: int = 128) -> Background:
    """Subtract the sky, in place.

    Parameters
    ----------
    masked
        The image; only its image plane changes.
    mesh
        Approximate size of a cell [pixel].

    Returns
    -------
    background
        What was subtracted.

    Raises
    ------
    ScienceError
        If hardly any pixel can be used.
    """
    background = measure_background(masked, mesh)
    masked.image -= background.render()
    return background
