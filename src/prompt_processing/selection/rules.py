"""The rules of ``selection.yaml``: conditions on a visit, and the pipelines for those that meet them."""

from collections.abc import Iterator
from datetime import date
from fnmatch import fnmatchcase
from typing import Annotated, Any, Final

import astropy.units as u
from astropy.coordinates import SkyCoord
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from prompt_processing.domain.clock import from_tai_seconds
from prompt_processing.domain.visit import DetectorVisit, Dome
from prompt_processing.instruments.cameras import band_of
from prompt_processing.selection.sky_map import SkyMap

IMAGE_TYPES: Final = ("science", "calibration")
"""What an event lets one expect: calibration images with the dome closed, science with it open."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


Patterns = Annotated[tuple[str, ...], BeforeValidator(_listed), Field(min_length=1)]
Names = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_listed), Field(min_length=1)
]
Longitude = Annotated[float, Field(ge=0, le=360)]
Latitude = Annotated[float, Field(ge=-90, le=90)]


class Box(_Part):
    """A range of right ascension, which may run through 0 deg, and one of declination; ends included."""

    ra: tuple[Longitude, Longitude]
    dec: tuple[Latitude, Latitude]

    @model_validator(mode="after")
    def _check(self) -> "Box":
        if self.ra[0] == self.ra[1] or self.dec[0] >= self.dec[1]:
            raise ValueError(f"ra {self.ra} and dec {self.dec} hold no part of the sky")
        return self

    def contains(self, ra: float, dec: float) -> bool:
        """Return whether a position is inside.

        Parameters
        ----------
        ra, dec
            ICRS position [deg].

        Returns
        -------
        inside
            Edges are inside.
        """
        west, east = self.ra
        # 0 and 360 deg are the same place.
        turns = (ra, ra + 360.0)
        inside = any(west <= turn <= (east if west < east else east + 360.0) for turn in turns)
        return inside and self.dec[0] <= dec <= self.dec[1]


class Circle(_Part):
    """A circle on the sky."""

    ra: Longitude
    dec: Latitude
    radius_deg: Annotated[float, Field(gt=0, le=180)]

    def contains(self, ra: float, dec: float) -> bool:
        """Return whether a position is inside.

        Parameters
        ----------
        ra, dec
            ICRS position [deg].

        Returns
        -------
        inside
            Edges are inside.
        """
        centre = SkyCoord(self.ra, self.dec, unit="deg")
        return bool(centre.separation(SkyCoord(ra, dec, unit="deg")) <= self.radius_deg * u.deg)


class Position(_Part):
    """One of a box, a circle and an all-sky map."""

    box: Box | None = None
    circle: Circle | None = None
    healpix: SkyMap | None = None

    @model_validator(mode="after")
    def _check(self) -> "Position":
        if sum(shape is not None for shape in (self.box, self.circle, self.healpix)) != 1:
            raise ValueError("one of box, circle and healpix is needed")
        return self

    def contains(self, ra: float, dec: float) -> bool:
        """Return whether a position is inside.

        Parameters
        ----------
        ra, dec
            ICRS position [deg].

        Returns
        -------
        inside
            Edges are inside.
        """
        (shape,) = (shape for shape in (self.box, self.circle, self.healpix) if shape is not None)
        return shape.contains(ra, dec)


class Dates(_Part):
    """A range of observing days (noon to noon, TAI), ends included."""

    first: date | None = Field(default=None, alias="from")
    last: date | None = Field(default=None, alias="to")

    @model_validator(mode="after")
    def _check(self) -> "Dates":
        if self.first is None and self.last is None:
            raise ValueError("from or to is needed")
        if self.first is not None and self.last is not None and self.first > self.last:
            raise ValueError(f"from {self.first} is after to {self.last}")
        return self

    def contains(self, day: date) -> bool:
        """Return whether an observing day is in the range.

        Parameters
        ----------
        day
            Observing day.

        Returns
        -------
        inside
            Both ends are in the range.
        """
        return (self.first is None or self.first <= day) and (self.last is None or day <= self.last)


def _numbers(value: Any) -> Any:
    """Return the numbers of a list of numbers and ranges such as ``10-20``."""
    found: list[int] = []
    for item in _listed(value):
        first, _, last = str(item).partition("-")
        numbers = range(int(first), int(last or first) + 1)
        if not numbers:
            raise ValueError(f"{item} holds no detector")
        found += numbers
    return found


class Conditions(_Part):
    """What a visit must be for a rule to count; one that is left out is met by every visit."""

    deployment: Names | None = None
    instrument: Names | None = None
    survey: Patterns | None = None
    filter: Names | None = None
    position: Position | None = None
    date: Dates | None = None
    image_type: Names | None = None
    detector: Annotated[tuple[int, ...], BeforeValidator(_numbers), Field(min_length=1)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _check_values(cls, values: Any) -> Any:
        blank = [name for name, value in values.items() if value is None] if isinstance(values, dict) else []
        if blank:
            raise ValueError(f"{', '.join(blank)}: a value is missing")
        return values

    @model_validator(mode="after")
    def _check(self) -> "Conditions":
        unknown = set(self.image_type or ()) - set(IMAGE_TYPES)
        if unknown:
            raise ValueError(f"image_type {', '.join(sorted(unknown))}: known are {', '.join(IMAGE_TYPES)}")
        return self

    def hold_whenever(self, other: "Conditions") -> bool:
        """Tell whether a visit that meets other conditions meets these, as far as their form shows it."""
        mine, theirs = (
            {name: set(value) if isinstance(value, tuple) else value for name, value in conditions}
            for conditions in (self, other)
        )
        return all(
            value is None
            or (value >= theirs[name] if isinstance(value, set) and theirs[name] else value == theirs[name])
            for name, value in mine.items()
        )

    def problems(self, visit: DetectorVisit, centre: tuple[float, float], deployment: str) -> Iterator[str]:
        """Yield what keeps a visit from meeting the conditions.

        Parameters
        ----------
        visit
            The visit.
        centre
            Where the centre of the detector will look, ICRS [deg].
        deployment
            Name of the deployment.
        """
        if self.deployment is not None and deployment not in self.deployment:
            yield f"deployment is {deployment!r}"
        if self.instrument is not None and visit.instrument not in self.instrument:
            yield f"instrument is {visit.instrument!r}"
        if self.survey is not None and not _matches(visit.survey, self.survey):
            yield f"survey is {visit.survey!r}"
        if self.filter is not None and not self._has_filter(visit):
            yield f"filter is {visit.filters!r}" if visit.filter_names else "the event names no filter"
        if self.position is not None and not self.position.contains(*centre):
            yield f"the detector's centre is at ra {centre[0]:.4f}, dec {centre[1]:.4f} deg"
        if self.date is not None and not self.date.contains(observing_day(visit)):
            yield f"the observing day is {observing_day(visit)}"
        if self.image_type is not None and not set(self.image_type) & set(_image_types(visit)):
            yield f"the image type is {' or '.join(_image_types(visit))}"
        if self.detector is not None and visit.detector not in self.detector:
            yield f"detector is {visit.detector}"

    def _has_filter(self, visit: DetectorVisit) -> bool:
        """Tell whether every filter that the event allows is one of the rule's."""
        patterns = self.filter or ()
        return bool(visit.filter_names) and all(
            band_of(visit.instrument, name) in patterns or _matches(name, patterns)
            for name in visit.filter_names
        )


class Canary(_Part):
    """A share of the visits that other pipelines get, with their products apart."""

    share: Annotated[float, Field(gt=0, lt=1)]
    pipelines: Annotated[tuple[str, ...], Field(min_length=1)]


class Rule(_Part):
    """Pipelines for the visits that meet some conditions, best first; without any they are skipped."""

    name: Annotated[str, Field(min_length=1)]
    when: Conditions = Conditions()
    pipelines: tuple[str, ...]
    canary: Canary | None = None


class SelectionRules(_Part):
    """The content of ``selection.yaml``."""

    rules: Annotated[tuple[Rule, ...], Field(min_length=1)]


def observing_day(visit: DetectorVisit) -> date:
    """Return the observing day of a visit; it ends at noon, TAI."""
    noon = from_tai_seconds(visit.startTime) - 12 * u.hour
    return date.fromisoformat(noon.strftime("%Y-%m-%d"))


def _matches(value: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(value, pattern) for pattern in patterns)


def _image_types(visit: DetectorVisit) -> tuple[str, ...]:
    return {Dome.OPEN: IMAGE_TYPES[:1], Dome.CLOSED: IMAGE_TYPES[1:]}.get(visit.dome, IMAGE_TYPES)
