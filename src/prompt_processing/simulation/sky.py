"""The sky that all exposures of a night see: stars, galaxies, and the reference catalogue."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from astropy.table import Table
from astropy.units import Unit
from numpy.typing import NDArray

from prompt_processing.simulation.profiles import SCIENCE_TIME, ZERO_POINT, Profile, stream

CATALOG_EPOCH: Final = 2016.0
"""Julian year of the positions in the reference catalogue."""
_SLOPE: Final = 1.55
_MARGIN: Final = 75.0
_MISSING: Final = 0.15
_POSITION_ERROR: Final = 0.010
_FAINTER_MISSING: Final = 2.0


def njy_to_magnitude(flux: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the AB magnitude of a flux [nJy].

    Parameters
    ----------
    flux
        Fluxes [nJy].

    Returns
    -------
    magnitude
        ``31.4 - 2.5 log10(flux)``, of the same shape.
    """
    return 31.4 - 2.5 * np.log10(flux)


@dataclass(frozen=True, slots=True)
class Stars:
    """Stars; arrays of one length."""

    ra: NDArray[np.float64]
    """ICRS at `CATALOG_EPOCH` [deg]."""
    dec: NDArray[np.float64]
    pm_ra: NDArray[np.float64]
    """Proper motion along the equator, with cos(dec) [mas/yr]."""
    pm_dec: NDArray[np.float64]
    parallax: NDArray[np.float64]
    """[mas]; too small to move anything visibly, only listed in the catalogue."""
    flux: NDArray[np.float64]
    """In the band of the night [nJy]."""

    def positions(self, epoch: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the positions of the stars at an epoch, with proper motion and without parallax.

        Parameters
        ----------
        epoch
            Epoch [Julian year].

        Returns
        -------
        ra, dec
            ICRS positions [deg], shape ``(n_stars,)``.
        """
        years = epoch - CATALOG_EPOCH
        dec = self.dec + years * self.pm_dec / 3.6e6
        return self.ra + years * self.pm_ra / 3.6e6 / np.cos(np.deg2rad(self.dec)), dec


@dataclass(frozen=True, slots=True)
class Galaxies:
    """Galaxies with Sersic profiles; arrays of one length."""

    ra: NDArray[np.float64]
    dec: NDArray[np.float64]
    flux: NDArray[np.float64]
    """[nJy]"""
    radius: NDArray[np.float64]
    """Half-light radius [arcsec]."""
    index: NDArray[np.float64]
    """Sersic index."""
    g1: NDArray[np.float64]
    """Shear along east."""
    g2: NDArray[np.float64]
    """Shear along the diagonal of east and north."""


@dataclass(frozen=True, slots=True)
class Scene:
    """All that does not change from one exposure to the next, except by proper motion."""

    stars: Stars
    galaxies: Galaxies


def make_scene(profile: Profile, seed: int, ra: float, dec: float) -> Scene:
    """Return a scene around a position [deg], wide enough for every exposure of a night.

    Parameters
    ----------
    profile
        Numbers of the night's size.
    seed
        Seed of the scene.
    ra, dec
        ICRS position of the centre [deg].

    Returns
    -------
    scene
        Stars and galaxies.
    """
    rng = stream(seed, "scene")
    ny, nx = profile.layout.shape
    half = np.hypot(nx, ny) / 2 * profile.pixel_scale + _MARGIN
    crowding = (2 * half) ** 2 / (nx * ny * profile.pixel_scale**2)
    n_stars, n_saturated = round(profile.stars * crowding), round(profile.saturated * crowding)
    electrons = np.concatenate(
        [
            _power_law(rng, *profile.flux_range, n_stars),
            np.exp(rng.uniform(np.log(2.5e7), np.log(1.2e8), n_saturated)),
        ]
    )
    star_ra, star_dec = _scatter(rng, ra, dec, half, electrons.size)
    # Every night has saturated stars in the middle of its field, however few there are on average.
    middle = slice(n_stars, n_stars + profile.saturated)
    star_ra[middle], star_dec[middle] = _scatter(
        rng, ra, dec, 0.3 * ny * profile.pixel_scale, profile.saturated
    )
    stars = Stars(
        ra=star_ra,
        dec=star_dec,
        pm_ra=rng.normal(-2.0, 3.0, electrons.size),
        pm_dec=rng.normal(1.0, 3.0, electrons.size),
        parallax=np.exp(rng.uniform(np.log(0.1), np.log(1.0), electrons.size)),
        flux=electrons / _CLEAR,
    )
    n = round(profile.galaxies * crowding)
    galaxy_ra, galaxy_dec = _scatter(rng, ra, dec, half, n)
    light = np.exp(rng.uniform(np.log(8e3), np.log(3e5), n))
    shear, angle = rng.uniform(0, 0.4, n), rng.uniform(0, 2 * np.pi, n)
    galaxies = Galaxies(
        ra=galaxy_ra,
        dec=galaxy_dec,
        flux=light / _CLEAR,
        radius=np.exp(rng.uniform(np.log(0.35), np.log(1.4), n)),
        index=rng.choice([1.0, 1.5, 2.0], n),
        g1=shear * np.cos(angle),
        g2=shear * np.sin(angle),
    )
    return Scene(stars, galaxies)


_CLEAR: Final = 10 ** (-0.4 * (31.4 - ZERO_POINT)) * SCIENCE_TIME
"""Electrons for each nJy in a science exposure through a clear sky."""


def make_refcat(scene: Scene, profile: Profile, seed: int) -> Table:
    """Return the reference catalogue: the brighter stars, some of them missing, with errors.

    Columns ``id``, ``ra``, ``dec`` [deg], ``<band>_mag``, ``<band>_magErr`` for u, g, r, i, z, y, ``pm_ra``
    (with cos dec), ``pm_dec`` [mas/yr], ``parallax`` [mas]; ``meta`` holds ``epoch`` (Julian year).

    Parameters
    ----------
    scene
        The scene with its stars.
    profile
        Numbers of the night's size.
    seed
        Seed of the night.

    Returns
    -------
    refcat
        The catalogue, in random order.
    """
    rng = stream(seed, "refcat")
    stars = scene.stars
    bright = stars.flux * _CLEAR > _FAINTER_MISSING * profile.flux_range[0]
    chosen = np.flatnonzero(bright & (rng.random(stars.flux.size) >= _MISSING))
    # The order must not depend on the brightness.
    chosen = rng.permutation(chosen)
    n = chosen.size
    error_ra, error_dec = rng.normal(0.0, _POSITION_ERROR / 3600.0, (2, n))
    table = Table(
        {
            "id": np.arange(n, dtype=np.int64) + 1_000_000,
            "ra": stars.ra[chosen] + error_ra / np.cos(np.deg2rad(stars.dec[chosen])),
            "dec": stars.dec[chosen] + error_dec,
        }
    )
    magnitude = njy_to_magnitude(stars.flux[chosen])
    color = rng.gamma(4.0, 0.18, n)
    slopes = {"u": 2.6, "g": 1.0, "r": 0.0, "i": -0.45, "z": -0.65, "y": -0.75}
    for band, slope in slopes.items():
        value = magnitude + slope * color
        error = 0.008 + 0.012 * 10 ** (0.3 * (value - 20.0))
        table[f"{band}_mag"] = value + error * rng.normal(size=n)
        table[f"{band}_magErr"] = error
    table["pm_ra"] = stars.pm_ra[chosen]
    table["pm_dec"] = stars.pm_dec[chosen]
    table["parallax"] = stars.parallax[chosen]
    for name in table.colnames[1:]:
        unit = {"ra": "deg", "dec": "deg", "pm_ra": "mas / yr", "pm_dec": "mas / yr", "parallax": "mas"}
        table[name].unit = Unit(unit.get(name, "mag"))
    table.meta = {"epoch": CATALOG_EPOCH, "epoch_format": "jyear", "frame": "ICRS"}
    return table


def _power_law(rng: np.random.Generator, low: float, high: float, n: int) -> NDArray[np.float64]:
    """Draw from ``dN/dF ~ F**-1.55`` between two limits by inverting the cumulative distribution."""
    power = 1.0 - _SLOPE
    first, last = low**power, high**power
    return (first + (last - first) * rng.random(n)) ** (1.0 / power)


def _scatter(
    rng: np.random.Generator, ra: float, dec: float, half: float, n: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return uniformly scattered positions [deg] within a square of half-width ``half`` [arcsec]."""
    east, north = rng.uniform(-half, half, (2, n)) / 3600.0
    return ra + east / np.cos(np.deg2rad(dec)), dec + north
