"""What changes on the sky during a night: transients, variable stars, a moving object."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from prompt_processing.simulation.detector import Electronics
from prompt_processing.simulation.noise import NoiseModel
from prompt_processing.simulation.optics import to_pixels
from prompt_processing.simulation.placement import Placement
from prompt_processing.simulation.profiles import Profile, stream
from prompt_processing.simulation.render import Points, StaticSky

SNR_RANGE: Final = (5.0, 50.0)
_VARIABLE_SNR: Final = (12.0, 50.0)
_MOVING_SNR: Final = (25.0, 45.0)
_VARIABLE_FLUX: Final = (3e4, 1.5e6)
"""Fluxes of stars that may vary [electron]."""
_RATE: Final = 2.0
"""Motion of the moving object [arcsec/min]."""
_MOVING_VISITS: Final = 3
"""Visits for which the moving object stays in the field at least."""
_FIRST_VARIABLE: Final = 10_001
_MOVING_ID: Final = 20_001

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class VisitChanges:
    """What is different in one visit; every row has ``id, ra, dec, x, y, flux, flux_err, snr``."""

    transients: list[Row]
    variables: list[Row]
    moving: list[Row]
    points: Points
    """The light to add (or to take away)."""


def plan_changes(
    profile: Profile,
    seed: int,
    templates: Sequence[StaticSky],
    visits: Sequence[StaticSky],
    electronics: Electronics,
) -> list[VisitChanges]:
    """Decide where something happens on the sky, and how bright it is in every visit.

    Parameters
    ----------
    profile : `~prompt_processing.simulation.profiles.Profile`
        Numbers of the night's size.
    seed : `int`
        Seed of the night.
    templates, visits : `~collections.abc.Sequence` [`~prompt_processing.simulation.render.StaticSky`]
        Template epochs and science visits.
    electronics : `~prompt_processing.simulation.detector.Electronics`
        Properties of the detector.

    Returns
    -------
    changes : `list` [`VisitChanges`]
        One for each visit.

    Raises
    ------
    ConfigError
        If the detector has no room for so many transients.
    """
    rng = stream(seed, "changes")
    place = Placement(templates, visits, electronics, rng)
    noises = [NoiseModel(visit, templates, electronics) for visit in visits]
    night = _Night(visits, noises, rng)
    moving = night.moving(place)
    variables = night.variables(place, profile.variables)
    transients = night.transients(place, profile.persistent, profile.single)
    changes = []
    for parts in zip(transients, variables, moving, strict=True):
        light = Points.join(*(row.pop("points") for rows in parts for row in rows))
        changes.append(VisitChanges(*parts, light))
    return changes


@dataclass(frozen=True)
class _Night:
    """The visits of a night, each with its noise."""

    visits: Sequence[StaticSky]
    noises: list[NoiseModel]
    rng: np.random.Generator

    def transients(self, place: Placement, persistent: int, single: int) -> list[list[Row]]:
        """Return the transients of each visit: some that all visits see, and others in one visit only."""
        rows: list[list[Row]] = [[] for _ in self.visits]
        everywhere = range(len(self.visits))
        lives: list[Iterable[int]] = [everywhere] * persistent
        lives += [[visit] for visit in everywhere for _ in range(single)]
        for number, life in enumerate(lives, start=1):
            # Many visits of a small field can run out of galaxies.
            host = place.near_galaxy() if number % 3 == 0 else None
            ra, dec = host or place.anywhere()
            slope, flux = self.rng.uniform(-0.15, 0.15), None
            low, high = np.log(SNR_RANGE)
            snr = float(np.exp(self.rng.uniform(low, high)))
            for visit in life:
                point = self._point(visit, ra, dec)
                error = self.noises[visit].flux_error(point)
                if flux is None:
                    flux = snr * error
                flux *= float(np.exp(slope + 0.05 * self.rng.normal()))
                flux = float(np.clip(flux, SNR_RANGE[0] * error, SNR_RANGE[1] * error))
                row = self._row(number, visit, point, ra=ra, dec=dec, flux=flux, error=error)
                rows[visit].append(row | {"near_galaxy": host is not None, "persistent": life is everywhere})
        return rows

    def variables(self, place: Placement, number: int) -> list[list[Row]]:
        """Return the stars whose flux differs from that of the template epochs, by visit."""
        rows: list[list[Row]] = [[] for _ in self.visits]
        first = self.visits[0]
        electrons = first.stars.electrons
        candidates = self.rng.permutation(
            np.flatnonzero((electrons > _VARIABLE_FLUX[0]) & (electrons < _VARIABLE_FLUX[1]))
        )
        found = 0
        for star in candidates:
            x, y = float(first.stars.x[star]), float(first.stars.y[star])
            ra, dec = (float(value) for value in first.wcs.all_pix2world(x, y, 0))
            if not place.accept(ra, dec):
                continue
            found += 1
            mean = float(electrons[star]) / first.frame.electron_per_njy
            low, high = np.log(_VARIABLE_SNR)
            snr = float(np.exp(self.rng.uniform(low, high)))
            sign = float(self.rng.choice([-1.0, 1.0]))
            change = sign * min(snr * self.noises[0].flux_error(self._point(0, ra, dec)), 0.5 * mean)
            for visit in range(len(self.visits)):
                point = self._point(visit, ra, dec)
                error = self.noises[visit].flux_error(point)
                flux = change * float(self.rng.uniform(0.85, 1.15))
                row = self._row(
                    _FIRST_VARIABLE + found - 1, visit, point, ra=ra, dec=dec, flux=flux, error=error
                )
                rows[visit].append(row | {"star": int(star), "mean_flux": mean})
            if found == number:
                break
        return rows

    def moving(self, place: Placement) -> list[list[Row]]:
        """Return the moving object in each visit that it is in the field of."""
        rate = _RATE * float(self.rng.uniform(0.85, 1.15))
        start = place.anywhere()
        angle = self._direction(place, start, rate)
        flux: float | None = None
        snr = float(self.rng.uniform(*_MOVING_SNR))
        rows: list[list[Row]] = []
        for visit, static in enumerate(self.visits):
            half = static.frame.exposure_time / 120.0
            minutes = self._minutes(visit) + np.linspace(-half, half, 31)
            ra, dec = _move(*start, angle, rate * minutes)
            middle = minutes.size // 2
            centre = float(ra[middle]), float(dec[middle])
            if not place.inside(*centre):
                rows.append([])
                continue
            place.occupy(*centre)
            trail = Points(*to_pixels(static.wcs, ra, dec), np.ones(ra.size))
            error = self.noises[visit].flux_error(trail)
            flux = snr * error if flux is None else flux
            row = self._row(_MOVING_ID, visit, trail, ra=centre[0], dec=centre[1], flux=flux, error=error)
            ends = {"x_begin": trail.x[0], "y_begin": trail.y[0], "x_end": trail.x[-1], "y_end": trail.y[-1]}
            rows.append([row | ends | {"rate": rate, "position_angle": angle}])
        return rows

    def _direction(self, place: Placement, start: tuple[float, float], rate: float) -> float:
        """Return a position angle [deg] along which an object stays in the field for some visits."""
        last = self._minutes(min(len(self.visits), _MOVING_VISITS) - 1)
        while True:
            angle = float(self.rng.uniform(0.0, 360.0))
            ra, dec = _move(*start, angle, np.array([rate * last]))
            if place.inside(float(ra[0]), float(dec[0])):
                return angle

    def _minutes(self, visit: int) -> float:
        """Return the time from the middle of the first visit to that of another [min]."""
        return float((self.visits[visit].frame.begin - self.visits[0].frame.begin).to_value("min"))

    def _point(self, visit: int, ra: float, dec: float) -> Points:
        x, y = to_pixels(self.visits[visit].wcs, ra, dec)
        return Points(x, y, np.ones(1))

    def _row(
        self, number: int, visit: int, shape: Points, *, ra: float, dec: float, flux: float, error: float
    ) -> Row:
        """Return a row of truth, with the light itself under ``points``."""
        electrons = flux * self.visits[visit].frame.electron_per_njy
        light = Points(shape.x, shape.y, electrons * shape.electrons / shape.electrons.sum())
        middle = shape.x.size // 2
        return {
            "id": number,
            "ra": ra,
            "dec": dec,
            "x": float(shape.x[middle]),
            "y": float(shape.y[middle]),
            "flux": flux,
            "flux_err": error,
            "snr": abs(flux) / error,
            "electrons": electrons,
            "points": light,
        }


def _move(
    ra: float, dec: float, angle: float, distance: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return positions [deg] at some distances [arcsec] along a position angle [deg, from N through E]."""
    east, north = np.sin(np.deg2rad(angle)), np.cos(np.deg2rad(angle))
    return ra + distance * east / 3600.0 / np.cos(np.deg2rad(dec)), dec + distance * north / 3600.0
