"""Time: the clocks that the system reads, and the step between TAI and UTC.

SAL's ``private_sndStamp`` is TAI and ``private_efdStamp`` is UTC, 37 s apart since 2017; both count from
1970. All conversions go through `astropy.time`.
"""

import time
from dataclasses import dataclass
from typing import Final, Protocol

from astropy.time import Time, TimeDelta
from astropy.utils import iers

# Predictions of the Earth's rotation are not needed for TAI and UTC, and a worker must not wait for a
# download in the middle of a visit. The table that astropy carries knows every leap second.
iers.conf.auto_download = False

SECONDS_PER_DAY: Final = 86400.0


class Clock(Protocol):
    """Tells the time that a night is played at.

    Used for the expiry of events, the validity of calibs and the latency. Deadlines and leases need a clock
    that never jumps: the monotonic one, or the database's.
    """

    def now(self) -> Time:
        """Return the present time (UTC scale)."""
        ...


@dataclass(frozen=True, slots=True)
class WallClock:
    """The clock on the wall."""

    def now(self) -> Time:
        """Return the present time (UTC scale)."""
        return Time(time.time(), format="unix", scale="utc")


@dataclass(frozen=True, slots=True)
class NightClock:
    """The wall clock plus a constant offset, for playing another night in real time."""

    offset: float
    """What is added to the wall clock [s]; negative for a night in the past."""

    @classmethod
    def starting_at(cls, start: Time) -> "NightClock":
        """Return a clock that shows ``start`` now."""
        return cls(float(start.utc.unix) - time.time())

    def now(self) -> Time:
        """Return the present time of that night (UTC scale)."""
        return Time(time.time() + self.offset, format="unix", scale="utc")


def from_tai_seconds(seconds: float) -> Time:
    """Return the time of a TAI stamp such as ``private_sndStamp`` or ``startTime``.

    Parameters
    ----------
    seconds
        TAI seconds since 1970.
    """
    return Time(seconds, format="unix_tai", scale="tai")


def utc_seconds(moment: Time) -> float:
    """Return a time as UTC (UNIX) seconds since 1970."""
    return float(moment.utc.unix)


def from_mjd_tai(days: float) -> Time:
    """Return the time of a TAI Modified Julian Date [d], the inverse of `mjd_tai`."""
    return Time(days, format="mjd", scale="tai")


def mjd_tai(moment: Time) -> float:
    """Return a time as a TAI Modified Julian Date [d], the form of every time in the APDB."""
    return float(moment.tai.mjd)


def seconds_between(start: Time, end: Time) -> float:
    """Return the seconds from ``start`` to ``end``, whatever their scales."""
    elapsed: TimeDelta = end.tai - start.tai
    return float(elapsed.to_value("s"))
