"""Summaries of objects that are recomputed because a visit came late, or beside another one.

A version of an object summarises all its sources up to that version. A visit that is stored later than one
that was taken after it changes what the newer versions ought to say; so does a visit that was processed at
the same time, which the other one could not know.
"""

from collections.abc import Iterable
from typing import Any, Final

import pandas as pd

from prompt_processing.apdb.tables import conform, records
from prompt_processing.images.association import summarise

_KEPT: Final = ("validityStartMjdTai", "validityEndMjdTai")


def outdated(
    versions: Iterable[dict[str, Any]], sources: pd.DataFrame, visit_time: float, days: float
) -> list[dict[str, Any]]:
    """Return the versions whose summary does not hold any more after a visit was stored.

    Parameters
    ----------
    versions
        Rows of the DiaObject table from this visit on, of objects that the visit has measured.
    sources
        All sources of these objects.
    visit_time
        Middle of the visit [MJD, TAI, d].
    days
        Length of the history [d].
    """
    return [
        version
        for version in versions
        if version["validityStartMjdTai"] > visit_time
        or len(_up_to(version, sources, days)) != version["nDiaSources"]
    ]


def recomputed(
    version: dict[str, Any], sources: pd.DataFrame, forced: pd.DataFrame, days: float
) -> dict[str, Any]:
    """Return a version of an object with the summary of the measurements up to it.

    Parameters
    ----------
    version
        Row of the DiaObject table.
    sources, forced
        Measurements of the object, and of others.
    days
        Length of the history [d].
    """
    of_version = _up_to(version, sources, days)
    if of_version.empty:
        return version
    summary = summarise(of_version, _up_to(version, forced, days))
    times = {name: version[name] for name in _KEPT}
    row = records(conform("DiaObject", summary.assign(validityStartMjdTai=times["validityStartMjdTai"])))[0]
    return version | row | times


def _up_to(version: dict[str, Any], measurements: pd.DataFrame, days: float) -> pd.DataFrame:
    """Return the measurements of a version's object that its history holds."""
    end, time = version["validityStartMjdTai"], measurements["midpointMjdTai"]
    own = measurements["diaObjectId"] == version["diaObjectId"]
    return measurements[own.fillna(value=False).astype(bool) & (time <= end) & (time >= end - days)]
