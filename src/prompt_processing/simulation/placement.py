"""Places for transients."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from prompt_processing.domain.errors import ConfigError
from prompt_processing.simulation.detector import Electronics
from prompt_processing.simulation.optics import moffat_core, moffat_peak, moffat_radius, to_pixels
from prompt_processing.simulation.profiles import FULL_WELL
from prompt_processing.simulation.render import StaticSky

EDGE: Final = 45.0
"""Smallest distance from the edge of every visit's image [px]."""
SEPARATION: Final = 30.0
"""Smallest distance between two events of a night, in whatever visit they are [px]."""
_STAR_DISTANCE: Final = 25.0
_COLUMN_DISTANCE: Final = 8.0
_ATTEMPTS: Final = 1000
_HOST_ATTEMPTS: Final = 200


class Placement:
    """Finds places that every visit sees, away from saturated stars and bad columns.

    Places keep a distance from the edges of all visits, from saturated stars and their bleed trails, from bad
    columns, and from one another; otherwise they are uniform.

    Parameters
    ----------
    templates, visits : `~collections.abc.Sequence` [`~prompt_processing.simulation.render.StaticSky`]
        Template epochs and science visits.
    electronics : `~prompt_processing.simulation.detector.Electronics`
        The list of bad columns.
    rng : `numpy.random.Generator`
        Source of randomness.
    """

    def __init__(
        self,
        templates: Sequence[StaticSky],
        visits: Sequence[StaticSky],
        electronics: Electronics,
        rng: np.random.Generator,
    ) -> None:
        self._visits = visits
        self._templates = templates
        self._bad_columns = electronics.bad_columns
        self._rng = rng
        self._occupied: list[tuple[float, float]] = []
        self._saturated = _Saturated(templates, visits)

    def anywhere(self) -> tuple[float, float]:
        """Return a free place (ra, dec) [deg] and take it.

        Raises
        ------
        ConfigError
            If 1000 attempts find no free place.
        """
        first = self._visits[0]
        ny, nx = first.frame.shape
        for _ in range(_ATTEMPTS):
            x, y = self._rng.uniform(EDGE, nx - EDGE), self._rng.uniform(EDGE, ny - EDGE)
            ra, dec = (float(value) for value in first.wcs.all_pix2world(x, y, 0))
            if self.accept(ra, dec):
                return ra, dec
        raise ConfigError(f"no room for so many transients on {nx} x {ny} pixels: simulate fewer visits")

    def near_galaxy(self) -> tuple[float, float] | None:
        """Return a free place (ra, dec) [deg] in a galaxy and take it; `None` after 200 attempts."""
        first = self._visits[0]
        galaxies = first.galaxies
        ny, nx = first.frame.shape
        inside = (first.galaxy_x > 0) & (first.galaxy_x < nx) & (first.galaxy_y > 0) & (first.galaxy_y < ny)
        hosts = np.flatnonzero(inside)
        for _ in range(_HOST_ATTEMPTS if hosts.size else 0):
            host = self._rng.choice(hosts)
            distance = float(galaxies.radius[host]) * self._rng.uniform(0.2, 2.0) / 3600.0
            angle = self._rng.uniform(0, 2 * np.pi)
            dec = float(galaxies.dec[host]) + distance * np.cos(angle)
            ra = float(galaxies.ra[host]) + distance * np.sin(angle) / np.cos(np.deg2rad(dec))
            if self.accept(float(ra), float(dec)):
                return float(ra), float(dec)
        return None

    def accept(self, ra: float, dec: float) -> bool:
        """Take a place if it is free.

        Parameters
        ----------
        ra, dec
            ICRS position [deg].

        Returns
        -------
        accepted
            Whether the place was free and is now taken.
        """
        x, y = _first(*to_pixels(self._visits[0].wcs, ra, dec))
        taken = any(np.hypot(x - ox, y - oy) < SEPARATION for ox, oy in self._occupied)
        if taken or self._saturated.reaches(x, y) or self._is_near_bad_column(ra, dec):
            return False
        if not self.inside(ra, dec):
            return False
        self.occupy(ra, dec)
        return True

    def inside(self, ra: float, dec: float) -> bool:
        """Return whether every visit and a template epoch contain a place, at least `EDGE` from their edges.

        Parameters
        ----------
        ra, dec
            ICRS position [deg].

        Returns
        -------
        inside
            Whether they do.
        """
        return all(_within(visit, ra, dec, EDGE) for visit in self._visits) and any(
            _within(template, ra, dec, EDGE) for template in self._templates
        )

    def occupy(self, ra: float, dec: float) -> None:
        """Take a place without a check: later places keep their distance from it.

        Parameters
        ----------
        ra, dec
            ICRS position [deg].
        """
        self._occupied.append(_first(*to_pixels(self._visits[0].wcs, ra, dec)))

    def _is_near_bad_column(self, ra: float, dec: float) -> bool:
        """Tell whether a place falls on or beside a bad column in any visit."""
        for visit in self._visits:
            vx, vy = _first(*to_pixels(visit.wcs, ra, dec))
            near = np.abs(self._bad_columns["x"] - vx) < _COLUMN_DISTANCE
            near &= self._bad_columns["y_first"] - _COLUMN_DISTANCE < vy
            near &= self._bad_columns["y_last"] + _COLUMN_DISTANCE > vy
            if near.any():
                return True
        return False


class _Saturated:
    """Stars that saturate in any exposure, with what they spoil, in pixels of the first visit."""

    def __init__(self, templates: Sequence[StaticSky], visits: Sequence[StaticSky]) -> None:
        stars = visits[0].stars
        self._radius = np.zeros(stars.x.size)
        self._trail = np.zeros(stars.x.size)
        for static in (*templates, *visits):
            fwhm, _, _ = static.frame.aim.psf.parameters(static.stars.x, static.stars.y)
            peak = moffat_peak(static.stars.electrons, fwhm)
            radius = moffat_radius(static.stars.electrons, fwhm, FULL_WELL)
            hit = peak > FULL_WELL
            self._radius[hit] = np.maximum(self._radius, radius + _STAR_DISTANCE)[hit]
            self._trail[hit] = np.maximum(self._trail, _trail_length(peak, fwhm) + _STAR_DISTANCE)[hit]
        chosen = self._radius > 0
        self._x, self._y = stars.x[chosen], stars.y[chosen]
        self._radius, self._trail = self._radius[chosen], self._trail[chosen]

    def reaches(self, x: float, y: float) -> bool:
        """Tell whether a star or its bleed trail comes near a pixel position of the first visit."""
        dx, dy = np.abs(self._x - x), np.abs(self._y - y)
        return bool(((np.hypot(dx, dy) < self._radius) | ((dx < self._radius) & (dy < self._trail))).any())


def _trail_length(peak: NDArray[np.float64], fwhm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far the charge of a star's middle column spills either way [px].

    The column holds ``peak * sum((1 + y**2/alpha**2)**-beta)``, about ``1.07 peak alpha`` for beta 3.5; it
    fills that many pixels to the full well.
    """
    return 1.07 * peak * moffat_core(fwhm) / FULL_WELL / 2 + moffat_core(fwhm)


def _within(static: StaticSky, ra: float, dec: float, edge: float) -> bool:
    x, y = _first(*to_pixels(static.wcs, ra, dec))
    ny, nx = static.frame.shape
    return edge <= x <= nx - 1 - edge and edge <= y <= ny - 1 - edge


def _first(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    return float(x[0]), float(y[0])
