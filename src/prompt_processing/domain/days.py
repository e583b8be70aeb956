"""Observing days; a day ends at noon, TAI."""

from datetime import UTC, datetime
from typing import Final

_DAY: Final = 86400.0
_NOON: Final = _DAY / 2


def observing_days(moment: float) -> tuple[int, int]:
    """Return the observing day of a moment and the day that is nearest to it, both as YYYYMMDD.

    Parameters
    ----------
    moment
        TAI seconds since 1970.
    """
    begun = (moment - _NOON) % _DAY
    return _date(moment - _NOON), _date(moment - _NOON + (-_DAY if begun < _DAY / 2 else _DAY))


def _date(seconds: float) -> int:
    return int(f"{datetime.fromtimestamp(seconds, UTC):%Y%m%d}")
