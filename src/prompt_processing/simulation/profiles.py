"""What a simulated night holds: the numbers of its two sizes, and its streams of random numbers."""

from dataclasses import dataclass, replace
from typing import Final, Literal
from zlib import crc32

import numpy as np

from prompt_processing.simulation.camera import CameraLayout
from prompt_processing.simulation.cameras import LATISS, SimulatedDetector

Size = Literal["full", "small"]

FULL_WELL: Final = 150_000.0
"""Charge that a pixel holds before it spills along its column [electron]."""
ZERO_POINT: Final = 24.2
"""AB magnitude that gives 1 electron/s through a clear sky."""
SCIENCE_TIME: Final = 30.0
"""Exposure time of a science visit [s]."""


@dataclass(frozen=True, slots=True)
class Profile:
    """The numbers that differ between the sizes of a night.

    Star fluxes are electrons of a 30 s exposure through a clear sky.
    """

    layout: CameraLayout
    pixel_scale: float
    """Nominal [arcsec]."""
    stars: int
    """Stars in an area as large as the detector."""
    flux_range: tuple[float, float]
    """Faintest and brightest star of the population with ``dN/dF ~ F**-1.55``."""
    saturated: int
    """Additional stars, in the detector's area, that saturate and bleed."""
    galaxies: int
    """Galaxies in an area as large as the detector."""
    variables: int
    """Variable stars that every visit sees."""
    persistent: int
    """Transients that every visit sees."""
    single: int
    """Further transients of each visit that no other visit sees."""
    cosmic_rays: float
    """Mean number per second of exposure."""
    bad_columns: int
    dither: float
    """Distance of the template epochs from the target along either axis [arcsec]."""
    jitter: float
    """Largest part of the pointing error that changes from exposure to exposure [arcsec]."""


PROFILES: Final[dict[Size, Profile]] = {
    "full": Profile(
        layout=CameraLayout(columns=509, rows=2000, prescan=3, overscan=64, parallel=48),
        pixel_scale=LATISS.pixel_scale,
        stars=2500,
        flux_range=(1.5e3, 6e6),
        saturated=6,
        galaxies=300,
        variables=20,
        persistent=36,
        single=18,
        cosmic_rays=2.0,
        bad_columns=6,
        dither=20.0,
        jitter=2.0,
    ),
    "small": Profile(
        layout=CameraLayout(columns=80, rows=300, prescan=3, overscan=29, parallel=20),
        pixel_scale=LATISS.pixel_scale,
        stars=170,
        flux_range=(5e3, 3e6),
        saturated=1,
        galaxies=28,
        variables=4,
        persistent=10,
        single=5,
        cosmic_rays=0.4,
        bad_columns=1,
        dither=6.0,
        jitter=0.8,
    ),
}
"""The sizes, with the detector of LATISS."""
_E2V_LAYOUTS: Final[dict[Size, CameraLayout]] = {
    "full": CameraLayout(columns=512, rows=2002, prescan=10, overscan=54, parallel=46, turned=True),
    "small": CameraLayout(columns=82, rows=302, prescan=10, overscan=24, parallel=18, turned=True),
}


def profile_of(size: Size, detector: SimulatedDetector) -> Profile:
    """Return the profile of a size with the layout and pixel scale of a detector.

    Parameters
    ----------
    size
        Size of the simulated images.
    detector
        The detector.

    Returns
    -------
    profile
        The profile.
    """
    profile = PROFILES[size]
    layout = _E2V_LAYOUTS[size] if detector.vendor == "E2V" else profile.layout
    return replace(profile, layout=layout, pixel_scale=detector.pixel_scale)


def stream(seed: int, *names: str) -> np.random.Generator:
    """Return a stream of random numbers that depends on the seed and the purpose only.

    Parameters
    ----------
    seed : `int`
        Seed of the night, not negative.
    names : `str`
        Purpose of the numbers; other names give an independent stream.

    Returns
    -------
    generator : `numpy.random.Generator`
        A new generator at the start of its stream.
    """
    keys = tuple(crc32(name.encode()) for name in names)
    return np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=keys))
