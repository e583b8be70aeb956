"""Whether the versions of objects in the APDB follow each other, and say what their sources say."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, Final

import pandas as pd

from prompt_processing.apdb.port import row_key
from prompt_processing.apdb.summaries import recomputed
from prompt_processing.apdb.tables import records
from prompt_processing.audit.evidence import Evidence
from prompt_processing.audit.findings import Finding, Kind, some

_Row = dict[str, Any]

_NOT_COMPARED: Final = ("validityStartMjdTai", "validityEndMjdTai", "fpFlux", "scienceFlux")
"""Parts of the names of columns that are no summary of the sources."""
_DOUBLE: Final = frozenset({"ra", "dec", "firstDiaSourceMjdTai", "lastDiaSourceMjdTai"})
"""Columns in double precision."""


def object_versions(evidence: Evidence) -> Iterator[Finding]:
    """Yield where versions of objects contradict each other, their sources or their decisions.

    A version says what was decided, or what all sources up to it say that have been stored since. Objects
    that were known before the night are not compared with their sources, which are not all at hand.

    Parameters
    ----------
    evidence
        The night.
    """
    versions: dict[int, list[_Row]] = defaultdict(list)
    for row in records(evidence.rows["DiaObject"].sort_values("validityStartMjdTai", kind="stable")):
        versions[row["diaObjectId"]].append(row)
    yield from _findings("their validity does not fit together", map(_broken_chain, versions.values()))
    yield from _last(evidence, versions)
    yield from _findings("they do not say what their sources say", _untrue(evidence, versions))


def _findings(what: str, problems: Any) -> Iterator[Finding]:
    found = [problem for problem in problems if problem]
    if found:
        yield Finding(Kind.MISMATCHING, "APDB DiaObject", f"{len(found)} objects: {what}: {some(found)}")


def _broken_chain(versions: list[_Row]) -> str:
    """Return where a version does not end when the next one starts."""
    for one, following in pairwise(versions):
        if one["validityEndMjdTai"] != following["validityStartMjdTai"]:
            return _version(one)
    return ""


def _last(evidence: Evidence, versions: Mapping[int, list[_Row]]) -> Iterator[Finding]:
    """Yield where the last-object table does not hold the newest version."""
    newest = {number: rows[-1] for number, rows in versions.items() if rows[-1]["validityEndMjdTai"] is None}
    last = {row["diaObjectId"]: row for row in records(evidence.rows["DiaObjectLast"])}
    wrong = [
        str(number)
        for number in sorted(newest.keys() | last.keys())
        if number not in newest
        or number not in last
        or any(value != newest[number][column] for column, value in last[number].items())
    ]
    if wrong:
        text = f"{len(wrong)} objects whose last version it is not: {some(wrong)}"
        yield Finding(Kind.MISMATCHING, "APDB DiaObjectLast", text)


def _untrue(evidence: Evidence, versions: Mapping[int, list[_Row]]) -> Iterator[str]:
    """Yield the versions whose summary is neither what was decided nor what the sources say."""
    decided = _decided(evidence)
    sources = _by_object(evidence.rows["DiaSource"])
    forced = _by_object(evidence.rows["DiaForcedSource"])
    for number, rows in versions.items():
        own = sources.get(number, evidence.rows["DiaSource"].iloc[:0])
        for row in rows:
            first = row["firstDiaSourceMjdTai"]
            if first is not None and first < evidence.begin:
                continue
            n_sources = int((own["midpointMjdTai"] <= row["validityStartMjdTai"]).sum())
            if n_sources != row["nDiaSources"]:
                yield f"{_version(row)} counts {row['nDiaSources']} sources of {n_sources}"
            elif not any(_same(row, other) for other in decided[row_key("DiaObject", row)]):
                of_object = forced.get(number, evidence.rows["DiaForcedSource"].iloc[:0])
                if not _same(row, recomputed(row, own, of_object, math.inf)):
                    yield _version(row)


def _decided(evidence: Evidence) -> dict[tuple[Any, ...], list[_Row]]:
    found: dict[tuple[Any, ...], list[_Row]] = defaultdict(list)
    tables = [decision.tables["DiaObject"] for decision in evidence.decisions.values()]
    for row in records(pd.concat(tables)) if tables else ():
        found[row_key("DiaObject", row)].append(row)
    return found


def _by_object(measurements: pd.DataFrame) -> dict[int, pd.DataFrame]:
    parts = measurements.groupby("diaObjectId")
    return {number: parts.get_group(number) for number in measurements["diaObjectId"].dropna().unique()}


def _same(one: _Row, other: _Row) -> bool:
    """Tell whether two versions have the same summary; the last digits may depend on the order of sums."""
    return all(
        _close(value, other[name], 1e-11 if name in _DOUBLE else 1e-5)
        for name, value in one.items()
        if not any(part in name for part in _NOT_COMPARED)
    )


def _close(one: Any, other: Any, tolerance: float) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=tolerance)
    return bool(one == other)


def _version(row: _Row) -> str:
    return f"{row['diaObjectId']} at MJD {row['validityStartMjdTai']:.6f}"
