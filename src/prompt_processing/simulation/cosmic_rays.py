"""Cosmic rays: straight tracks of charge that no optics has blurred."""

from typing import Final

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

_MEAN_LENGTH: Final = 7.0
_CHARGE: Final = 900.0
"""Median charge per pixel of track [electron]."""
_STEPS: Final = 4
"""Points per pixel along a track."""


def draw_cosmic_rays(rng: np.random.Generator, shape: tuple[int, int], mean_number: float) -> Table:
    """Return the cosmic rays of one exposure.

    Parameters
    ----------
    rng : `numpy.random.Generator`
        Source of randomness.
    shape : `tuple` [`int`, `int`]
        Shape ``(ny, nx)`` of the detector.
    mean_number : `float`
        Mean number of rays; the number is a Poisson variable.

    Returns
    -------
    rays : `astropy.table.Table`
        Columns ``x_begin``, ``y_begin``, ``x_end``, ``y_end`` [px, 0-based] and ``electrons`` (in the whole
        track).
    """
    ny, nx = shape
    n = int(rng.poisson(mean_number))
    x, y = rng.uniform(0, nx - 1, n), rng.uniform(0, ny - 1, n)
    length, angle = rng.exponential(_MEAN_LENGTH, n), rng.uniform(0, 2 * np.pi, n)
    charge = _CHARGE * np.exp(0.8 * rng.normal(size=n))
    return Table(
        {
            "x_begin": x,
            "y_begin": y,
            "x_end": np.clip(x + length * np.cos(angle), 0, nx - 1),
            "y_end": np.clip(y + length * np.sin(angle), 0, ny - 1),
            "electrons": charge * (1.0 + length),
        }
    )


def add_cosmic_rays(charge: NDArray[np.float32], rays: Table) -> None:
    """Add the charge of cosmic rays to an image of the detector [electron], in place.

    Parameters
    ----------
    charge
        Image of the detector [electron], shape ``(ny, nx)``; changed in place.
    rays
        Tracks with columns ``x_begin``, ``y_begin``, ``x_end``, ``y_end`` [px] and ``electrons``.
    """
    for ray in rays:
        dx, dy = ray["x_end"] - ray["x_begin"], ray["y_end"] - ray["y_begin"]
        n = _STEPS * (int(np.hypot(dx, dy)) + 1)
        along = (np.arange(n) + 0.5) / n
        rows = np.rint(ray["y_begin"] + along * dy).astype(np.intp)
        columns = np.rint(ray["x_begin"] + along * dx).astype(np.intp)
        np.add.at(charge, (rows, columns), np.float32(ray["electrons"] / n))
