"""The exposures of a night: what is pointed where, when, and under which sky."""

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Final, Literal

import numpy as np
from astropy.time import Time, TimeDelta
from astropy.wcs import WCS
from numpy.typing import ArrayLike, NDArray

from prompt_processing.simulation.cameras import SimulatedDetector
from prompt_processing.simulation.optics import PsfField, true_wcs
from prompt_processing.simulation.profiles import SCIENCE_TIME, ZERO_POINT, Profile, stream

BAND: Final = "r"
CADENCE: Final = 40.0
"""Time from the start of one science exposure to the next [s]."""
Kind = Literal["bias", "dark", "flat", "template", "science"]
_FOLDERS: Final[dict[Kind, str]] = {
    "bias": "calib",
    "dark": "calib",
    "flat": "calib",
    "template": "template",
    "science": "raw",
}
_FLAT_LEVELS: Final = (20_000.0, 60_000.0)
_CALIBS_BEFORE: Final = 64
_TEMPLATES_BEFORE: Final = (56, 45, 33, 20)
_TEMPLATE_TIME: Final = 60.0


@dataclass(frozen=True, slots=True)
class Streak:
    """The trail of a satellite: a straight line across the detector, 0-based pixel positions of its ends."""

    x_begin: float
    y_begin: float
    x_end: float
    y_end: float
    peak: float
    """Brightness on the middle line [electron]."""


@dataclass(frozen=True, slots=True)
class Pointing:
    """Where an exposure points, as its header says and in truth, and the sky that it looks through."""

    ra: float
    """Boresight in the header, ICRS [deg]."""
    dec: float
    rotation: float
    """``ROTPA`` in the header [deg]."""
    true_ra: float
    """Where the centre of the detector really looks, ICRS [deg]."""
    true_dec: float
    true_rotation: float
    """The detector's own rotation [deg]."""
    psf: PsfField
    transparency: float
    """Part of the light that passes the sky, relative to a clear one."""
    sky: float
    """Sky at the centre of the detector [electron] in the whole exposure."""
    sky_terms: tuple[float, float, float]
    """Relative change of the sky from the centre to the edge: along x, along y, quadratic."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One exposure."""

    detector: SimulatedDetector
    kind: Kind
    day_obs: int
    seq: int
    begin: Time
    """Shutter open, TAI."""
    exposure_time: float
    """[s]"""
    group: str
    shape: tuple[int, int]
    """Shape ``(ny, nx)`` of the detector."""
    level: float = 0.0
    """Electrons at the centre of a flat."""
    pointing: Pointing | None = None
    announced: Time | None = None
    """When the visit was announced, TAI; only of science visits."""
    streak: Streak | None = None

    @property
    def obs_id(self) -> str:
        """Observation id, as in the header."""
        return f"{self.detector.prefix}_{self.day_obs}_{self.seq:06d}"

    @property
    def exposure_id(self) -> int:
        """Exposure id by Rubin's formula (controller O has the index 0)."""
        return int(f"{self.day_obs}{self.seq:05d}")

    @property
    def file_stem(self) -> str:
        """Name of the raw without its extension."""
        return f"{self.obs_id}_{self.detector.name}"

    @property
    def compressed(self) -> bool:
        """Whether the raw is Rice-compressed; template epochs are, so that a night has both forms."""
        return self.kind == "template"

    @property
    def dark_time(self) -> float:
        """Time from the end of clearing to the start of readout [s]."""
        return self.exposure_time + 0.009

    @property
    def end(self) -> Time:
        """Shutter close, TAI."""
        return self.begin + TimeDelta(self.dark_time, format="sec")

    def path(self, night: Path) -> Path:
        """Return the path of the raw in the folder of a night.

        Parameters
        ----------
        night
            Folder of the night.

        Returns
        -------
        path
            Path with the suffix ``.fits`` or ``.fits.fz``.
        """
        suffix = ".fits.fz" if self.compressed else ".fits"
        folder = night / _FOLDERS[self.kind] / self.detector.instrument / str(self.day_obs) / self.obs_id
        return folder / f"{self.file_stem}{suffix}"

    def sidecar(self, night: Path) -> Path:
        """Return the path of the sidecar in the folder of a night.

        Parameters
        ----------
        night
            Folder of the night.

        Returns
        -------
        path
            Path beside the raw, with the suffix ``.json``.
        """
        return self.path(night).with_name(f"{self.file_stem}.json")

    @property
    def aim(self) -> Pointing:
        """The pointing of an exposure of the sky.

        Raises
        ------
        ValueError
            If the exposure is a bias, dark or flat.
        """
        if self.pointing is None:
            raise ValueError(f"{self.kind} exposure {self.obs_id} points nowhere")
        return self.pointing

    @property
    def wcs(self) -> WCS:
        """The true WCS."""
        aim = self.aim
        return true_wcs(self.shape, aim.true_ra, aim.true_dec, aim.true_rotation, self.detector.pixel_scale)

    @property
    def electron_per_njy(self) -> float:
        """Electrons at the centre of the detector for each nJy in this exposure."""
        rate = 10 ** (-0.4 * (31.4 - ZERO_POINT))
        return float(rate * self.exposure_time * self.aim.transparency)

    def sky_at(self, x: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
        """Return the sky background at pixel positions.

        Parameters
        ----------
        x, y
            0-based pixel positions, of shapes that broadcast.

        Returns
        -------
        sky
            Background [electron], of the broadcast shape.

        Raises
        ------
        ValueError
            If the exposure is a bias, dark or flat.
        """
        ny, nx = self.shape
        u, v = 2 * np.asarray(x) / nx - 1, 2 * np.asarray(y) / ny - 1
        along_x, along_y, quadratic = self.aim.sky_terms
        in_x, in_y = u * (along_x + quadratic * u), v * (along_y + quadratic * v)
        return self.aim.sky * (1 + in_x) + self.aim.sky * in_y


def plan_frames(profile: Profile, seed: int, visits: int, detector: SimulatedDetector) -> list[Frame]:
    """Return all exposures of a night on one detector: calibs, template epochs, science visits.

    Parameters
    ----------
    profile : `Profile`
        Numbers of the night's size.
    seed : `int`
        Seed of the night; it also decides the date and the field.
    visits : `int`
        Number of science visits.
    detector : `~prompt_processing.simulation.cameras.SimulatedDetector`
        The detector. Dates, pointings and weather do not depend on it.

    Returns
    -------
    frames : `list` [`Frame`]
        Calibs, then template epochs, then science visits, each in order of time.
    """
    rng = stream(seed, "frames")
    tonight = date(2026, 3, 1) + timedelta(days=seed % 28)
    target = (rng.uniform(125.0, 140.0), rng.uniform(-36.0, -20.0))
    rotation = rng.uniform(0.0, 360.0)
    # Most of the pointing error is the same all the time, as an imperfect pointing model makes it.
    size, angle = rng.uniform(12.5, 17.5), rng.uniform(0, 2 * np.pi)
    error = size * np.array([np.cos(angle), np.sin(angle)])
    sky = _Sky(detector, profile, target, rotation, error)
    frames = _plan_calibs(detector, profile, tonight - timedelta(days=_CALIBS_BEFORE))
    for index, days in enumerate(_TEMPLATES_BEFORE):
        frames.append(sky.template(rng, tonight - timedelta(days=days), index))
    crossed = min(1, visits - 1)
    frames.extend(sky.visit(rng, tonight, index, streak=index == crossed) for index in range(visits))
    return frames


def _plan_calibs(detector: SimulatedDetector, profile: Profile, day: date) -> list[Frame]:
    kinds: list[tuple[Kind, float, float]] = [("bias", 0.0, 0.0)] * 5
    kinds += [("dark", 60.0, 0.0)] * 3
    kinds += [("flat", 5.0, level) for level in _FLAT_LEVELS for _ in range(2)]
    begin = Time(f"{day.isoformat()}T19:30:00.250", scale="tai", precision=3)
    frames = []
    for seq, (kind, exposure_time, level) in enumerate(kinds, start=1):
        group = _group(begin, -0.1)
        frames.append(
            Frame(
                detector,
                kind,
                _day_obs(day),
                seq,
                begin,
                exposure_time,
                group,
                profile.layout.shape,
                level=level,
            )
        )
        begin = begin + TimeDelta(exposure_time + 6.0, format="sec")
    return frames


@dataclass(frozen=True)
class _Sky:
    """What the exposures of one field have in common."""

    detector: SimulatedDetector
    profile: Profile
    target: tuple[float, float]
    rotation: float
    error: NDArray[np.float64]
    """Common pointing error, east and north [arcsec]."""

    def template(self, rng: np.random.Generator, day: date, index: int) -> Frame:
        """Return the template epoch of one night: one of four corners of a square around the target."""
        x, y = ((1, 1), (-1, 1), (-1, -1), (1, -1))[index % 4]
        dither = self.profile.dither * _to_sky(x, y, self.rotation)
        pointing = self._pointing(
            rng,
            dither,
            self.rotation + rng.uniform(-1.5, 1.5),
            psf=(self.detector.template_fwhm * rng.uniform(0.97, 1.03), 0.025, 0.02),
            transparency=rng.uniform(0.94, 1.02),
            sky=300.0 * rng.uniform(0.85, 1.15),
        )
        start = Time(f"{_after_midnight(day)}T02:{20 + index}:11.000", scale="tai", precision=3)
        begin = start + TimeDelta(round(rng.uniform(0, 9), 3), format="sec")
        return Frame(
            self.detector,
            "template",
            _day_obs(day),
            60 + index,
            begin,
            _TEMPLATE_TIME,
            _group(begin, -0.25),
            self.profile.layout.shape,
            pointing=pointing,
        )

    def visit(self, rng: np.random.Generator, day: date, index: int, *, streak: bool) -> Frame:
        """Return one science visit."""
        pointing = self._pointing(
            rng,
            np.zeros(2),
            self.rotation,
            psf=(
                self.detector.science_fwhm * rng.uniform(0.97, 1.05),
                rng.uniform(0.05, 0.07),
                rng.uniform(0.03, 0.04),
            ),
            transparency=rng.uniform(0.86, 1.0),
            sky=900.0 * rng.uniform(0.9, 1.1),
        )
        start = Time(f"{_after_midnight(day)}T02:10:00.000", scale="tai", precision=3)
        begin = start + TimeDelta(round(CADENCE * index + rng.uniform(0, 0.5), 3), format="sec")
        announced = begin - TimeDelta(round(rng.uniform(25.0, 29.0), 3), format="sec")
        return Frame(
            self.detector,
            "science",
            _day_obs(day),
            101 + index,
            begin,
            SCIENCE_TIME,
            announced.isot,
            self.profile.layout.shape,
            pointing=pointing,
            announced=announced,
            streak=_draw_streak(rng, self.profile.layout.shape) if streak else None,
        )

    def _pointing(
        self,
        rng: np.random.Generator,
        dither: NDArray[np.float64],
        rotation: float,
        *,
        psf: tuple[float, float, float],
        transparency: float,
        sky: float,
    ) -> Pointing:
        ra, dec = _offset(*self.target, dither)
        size, angle = rng.uniform(0, self.profile.jitter), rng.uniform(0, 2 * np.pi)
        error = self.error + size * np.array([np.cos(angle), np.sin(angle)])
        fwhm, variation, ellipticity = psf
        along_x, along_y, quadratic = rng.uniform(-1, 1, 3) * (0.015, 0.015, 0.006)
        turn = rng.uniform(-0.3, 0.3)
        true_ra, true_dec, true_rotation = self.detector.looks_at(*_offset(ra, dec, error), rotation + turn)
        return Pointing(
            ra=ra,
            dec=dec,
            rotation=rotation % 360.0,
            true_ra=true_ra,
            true_dec=true_dec,
            true_rotation=true_rotation,
            psf=PsfField.draw(
                rng, self.profile.layout.shape, fwhm=fwhm, variation=variation, ellipticity=ellipticity
            ),
            transparency=transparency,
            sky=sky,
            sky_terms=(float(along_x), float(along_y), float(quadratic)),
        )


def _to_sky(x: float, y: float, rotation: float) -> NDArray[np.float64]:
    """Return the direction on the sky (east, north) of a direction on the detector."""
    cosine, sine = np.cos(np.deg2rad(rotation)), np.sin(np.deg2rad(rotation))
    return np.array([cosine * x - sine * y, -sine * x - cosine * y])


def _offset(ra: float, dec: float, offset: NDArray[np.float64]) -> tuple[float, float]:
    """Move a position [deg] by a small offset to the east and to the north [arcsec]."""
    east, north = offset / 3600.0
    return float(ra + east / np.cos(np.deg2rad(dec))), float(dec + north)


def _draw_streak(rng: np.random.Generator, shape: tuple[int, int]) -> Streak:
    """Return a line from the first to the last column, brighter than the noise of one pixel."""
    ny, nx = shape
    y_begin, y_end = rng.uniform(0.15, 0.85, 2) * ny
    return Streak(0.0, float(y_begin), nx - 1.0, float(y_end), float(rng.uniform(150.0, 300.0)))


def _group(begin: Time, seconds: float) -> str:
    return str((begin + TimeDelta(seconds, format="sec")).isot)


def _day_obs(day: date) -> int:
    return int(day.strftime("%Y%m%d"))


def _after_midnight(day: date) -> str:
    return (day + timedelta(days=1)).isoformat()
