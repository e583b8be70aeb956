"""Integer ids of exposures, visits, detector-exposures and sources, by Rubin's formulas.

The formulas are those of ``lsst/obs_lsst`` (``translators/lsst.py`` and ``_packer.py``), so that the ids of a
LATISS or LSSTCam image are the same here as at the Rubin Observatory.

A controller is the system that took the image: ``O`` the observatory's, ``C`` the camera's own, ``H P Q S``
simulators. It once had a sequence counter of its own, which is why it is part of an id.
"""

import hashlib
import re
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

from prompt_processing.domain.errors import HeaderError, ScienceError

CONTROLLERS: Final = "OCHPQS"
"""Codes of the controllers, in the order of their index."""
SIMULATED_CONTROLLERS: Final = frozenset("HPQS")
"""Controllers whose images are simulated."""
EXPOSURE_ID_MAX: Final = 7_050_123_199_999
"""Largest exposure id that Rubin's formula gives until the end of 2050."""
RANK_BITS: Final = 22
"""Bits of a source id that number the sources of one detector-exposure."""

_CONTROLLER_STEP = 1000_00_00
_SEQUENCE_DIGITS = 5
_UNIFIED_FROM = {"C": 20231004, "P": 20250417, "Q": 20250417, "S": 20250417}
"""Last day on which a controller counted for itself; afterwards all share one counter."""
_FIRST_DAY = date(2010, 1, 1)
_DAYS = 16384
_SEQUENCES = 32768
_DETECTORS = 256
_CONTROLLER_SLOTS = 8
_GROUP_EPOCH = datetime(2015, 1, 1)  # noqa: DTZ001 - a group is a label, counted without time zone
_GROUP_PATTERN = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{3})(?:[+#](\d{1,4}))?", re.ASCII)
_GROUP_LENGTH = 64
_OBS_ID_PATTERN = re.compile(r"([A-Z]{2})_([A-Z])_(\d{8})_(\d{6})", re.ASCII)


@dataclass(frozen=True, slots=True)
class ObservationNumber:
    """What numbers an exposure of one instrument: day, sequence number and controller."""

    day_obs: int
    """Day of observation, YYYYMMDD; a day begins 12 h after midnight UTC."""
    seq_num: int
    """Counter within the day, 0 to 99999."""
    controller: str
    """One of `CONTROLLERS`."""

    def __post_init__(self) -> None:
        day_ordinal(self.day_obs)
        if not 0 <= self.seq_num < 10**_SEQUENCE_DIGITS:
            raise HeaderError(f"sequence number {self.seq_num} is not in 0..{10**_SEQUENCE_DIGITS - 1}")
        if len(self.controller) != 1 or self.controller not in CONTROLLERS:
            raise HeaderError(f"controller {self.controller!r} is not one of {CONTROLLERS}")


def day_ordinal(day_obs: int) -> int:
    """Return the number of days from 2010-01-01 to a day of observation.

    Parameters
    ----------
    day_obs
        Day as YYYYMMDD.

    Raises
    ------
    HeaderError
        If that is not a date, or it is outside 2010-01-01 to 2050-12-31, the days that have ids.
    """
    year_month, day = divmod(day_obs, 100)
    year, month = divmod(year_month, 100)
    try:
        days = (date(year, month, day) - _FIRST_DAY).days
    except (ValueError, OverflowError) as error:
        raise HeaderError(f"day of observation {day_obs} is not a date YYYYMMDD") from error
    if days < 0 or year > 2050:
        raise HeaderError(f"day of observation {day_obs} is not between 20100101 and 20501231")
    return days


def parse_obs_id(obs_id: str) -> ObservationNumber:
    """Take an observation id such as ``AT_O_20240624_000106`` apart.

    Raises
    ------
    HeaderError
        If it has another form, or one of its parts is out of range.
    """
    match = _OBS_ID_PATTERN.fullmatch(obs_id)
    if match is None:
        raise HeaderError(f"observation id {obs_id!r} is not of the form AT_O_YYYYMMDD_NNNNNN")
    return ObservationNumber(int(match[3]), int(match[4]), match[2])


def exposure_id(number: ObservationNumber) -> int:
    """Return the exposure id: the day and five digits of sequence number.

    Ten million times the index of the controller is added to the day, as long as that controller had a
    counter of its own (``C`` until 2023-10-04; ``P``, ``Q``, ``S`` until 2025-04-17; ``H`` always).
    """
    index = CONTROLLERS.index(number.controller)
    if number.day_obs > _UNIFIED_FROM.get(number.controller, 9999_99_99):
        index = 0
    return (number.day_obs + index * _CONTROLLER_STEP) * 10**_SEQUENCE_DIGITS + number.seq_num


def parse_exposure_id(exposure: int) -> ObservationNumber:
    """Take an exposure id apart; controllers that share the counter of ``O`` are given as ``O``.

    Raises
    ------
    HeaderError
        If it is not an exposure id.
    """
    day, seq_num = divmod(exposure, 10**_SEQUENCE_DIGITS)
    index = day // _CONTROLLER_STEP - 2
    if not 0 <= index < len(CONTROLLERS):
        raise HeaderError(f"{exposure} is not an exposure id")
    return ObservationNumber(day - index * _CONTROLLER_STEP, seq_num, CONTROLLERS[index])


def detector_exposure_id(exposure: int, detector: int) -> int:
    """Return the id of one detector in one exposure, less than 2**41.

    ``detector + 256 (seq_num + 32768 (days since 2010-01-01 + 16384 controller index))``; Rubin's top bit,
    for a snap taken as a visit of its own beside a visit of several snaps, stays 0.

    Parameters
    ----------
    exposure
        Exposure id.
    detector
        Detector id, 0 to 255.

    Raises
    ------
    HeaderError
        If one of the parts does not fit into its bits.
    """
    number = parse_exposure_id(exposure)
    if not 0 <= detector < _DETECTORS:
        raise HeaderError(f"detector {detector} is not in 0..{_DETECTORS - 1}")
    if number.seq_num >= _SEQUENCES:
        raise HeaderError(
            f"exposure {exposure}: sequence number {number.seq_num} is not below {_SEQUENCES}, "
            "so its sources cannot be numbered"
        )
    days = day_ordinal(number.day_obs) + _DAYS * CONTROLLERS.index(number.controller)
    return detector + _DETECTORS * (number.seq_num + _SEQUENCES * days)


def source_id(detector_exposure: int, rank: int) -> int:
    """Return the id of a source: ``detector_exposure * 2**22 + rank``, a positive 63-bit integer.

    Parameters
    ----------
    detector_exposure
        Id from `detector_exposure_id`.
    rank
        Number of the source among those of its detector-exposure, from 0.

    Raises
    ------
    ScienceError
        If there are more sources than numbers, 4 194 304.
    """
    if not 0 <= rank < 1 << RANK_BITS:
        raise ScienceError(f"source {rank} of detector-exposure {detector_exposure} has no id left")
    if not 0 <= detector_exposure < 2 * _CONTROLLER_SLOTS * _DAYS * _SEQUENCES * _DETECTORS:
        raise ScienceError(f"{detector_exposure} is not a detector-exposure id")
    return (detector_exposure << RANK_BITS) + rank


def visit_id_from_group(group: str) -> int:
    """Return the visit id that Rubin derives from a group name, less than 2**63.

    A group such as ``2024-06-25T01:26:31.895#1`` gives the seconds since 2015-01-01, the three digits of the
    fraction and four digits of the number (0 if there is none). A group of digits only is its own id. Any
    other name gives the first 56 bits of its BLAKE2b hash in decimal and two digits of its length.

    Raises
    ------
    HeaderError
        If the group is empty, longer than 64 characters, not ASCII, or too large a number.
    """
    if not group or len(group) > _GROUP_LENGTH or not group.isascii():
        raise HeaderError(f"group {group!r} is not 1 to {_GROUP_LENGTH} ASCII characters")
    if group.isdigit():
        visit = int(group)
    elif (match := _GROUP_PATTERN.fullmatch(group)) is not None:
        visit = int(f"{_seconds(group, match[1])}{match[2]}{int(match[3] or 0):04d}")
    else:
        digest = hashlib.blake2b(group.encode("ascii")).hexdigest()[:14]
        visit = int(f"{int(digest, 16)}{len(group):02d}")
    if visit >= 1 << 63:
        raise HeaderError(f"group {group!r} is too large a number for a visit id")
    return visit


def _seconds(group: str, time: str) -> int:
    """Return whole seconds from 2015-01-01 to an ISO time."""
    try:
        elapsed = datetime.fromisoformat(time) - _GROUP_EPOCH
    except ValueError as error:
        raise HeaderError(f"group {group!r} is not a valid time") from error
    if elapsed.days < 0:
        raise HeaderError(f"group {group!r} is before 2015")
    return int(elapsed.total_seconds())
