"""The APDB in memory, for tests and for trying things out."""

import threading
from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd
from lsst.sphgeom import Region

from prompt_processing.apdb.port import (
    DAYS_PER_MONTH,
    HISTORY_MONTHS,
    History,
    LightCurve,
    inside,
    new_rows,
    row_key,
    time_column,
)
from prompt_processing.apdb.summaries import outdated, recomputed
from prompt_processing.apdb.tables import TableName, columns, conform, empty, records

_Rows = dict[tuple[Any, ...], dict[str, Any]]


class MemoryApdb:
    """An `~prompt_processing.apdb.port.Apdb` that forgets everything when the process ends.

    Parameters
    ----------
    months
        Length of the history [months of 30 days].
    """

    def __init__(self, *, months: int = HISTORY_MONTHS) -> None:
        self._days = months * DAYS_PER_MONTH
        self._lock = threading.Lock()
        self._rows: dict[TableName, _Rows] = {"DiaObject": {}, "DiaSource": {}, "DiaForcedSource": {}}

    def history(self, region: Region, before: float) -> History:
        """Return what was known of a field before a visit; see the port."""
        with self._lock:
            objects = inside(self._objects_at(before), region)
            known = set(objects["diaObjectId"])

            def wanted(row: dict[str, Any]) -> bool:
                return row["diaObjectId"] in known and before - self._days <= row["midpointMjdTai"] < before

            return History(
                objects, self._select("DiaSource", wanted), self._select("DiaForcedSource", wanted)
            )

    def store(
        self, visit_time: float, objects: pd.DataFrame, sources: pd.DataFrame, forced: pd.DataFrame
    ) -> None:
        """Store the rows of one visit on one detector; see the port."""
        versions = objects.assign(validityStartMjdTai=visit_time, validityEndMjdTai=float("nan"))
        tables: dict[TableName, pd.DataFrame] = {
            "DiaObject": versions,
            "DiaSource": sources,
            "DiaForcedSource": forced,
        }
        with self._lock:
            all_rows = {name: records(conform(name, frame)) for name, frame in tables.items()}
            new = {name: new_rows(name, rows, self._rows[name]) for name, rows in all_rows.items()}
            for name, rows in new.items():
                self._rows[name] |= {row_key(name, row): row for row in rows}
            if new["DiaSource"] or new["DiaForcedSource"]:
                rows = [*all_rows["DiaObject"], *all_rows["DiaForcedSource"]]
                self._renew_summaries({row["diaObjectId"] for row in rows}, visit_time)

    def contains(self, visit: int, detector: int) -> bool:
        """Tell whether there is any row of a visit on a detector; see the port."""
        names: tuple[TableName, ...] = ("DiaSource", "DiaForcedSource")
        with self._lock:
            return any(
                (row["visit"], row["detector"]) == (visit, detector)
                for name in names
                for row in self._rows[name].values()
            )

    def visit_sources(self, visit: int, detector: int) -> pd.DataFrame:
        """Return the sources of a visit on a detector; see the port."""
        with self._lock:
            return self._select("DiaSource", lambda row: (row["visit"], row["detector"]) == (visit, detector))

    def rows(self, table: TableName, begin: float, end: float) -> pd.DataFrame:
        """Return all rows of a span of time; see the port."""
        time = time_column(table)
        with self._lock:
            if table in {"DiaObject", "DiaObjectLast"}:
                versions = [row | {"validityEndMjdTai": self._next_start(row)} for row in self._versions()]
                found = versions if table == "DiaObject" else _newest(versions)
            else:
                found = [row for _, row in sorted(self._rows[table].items())]
            return _table(table, (row for row in found if begin <= row[time] < end))

    def light_curve(self, dia_object_id: int) -> LightCurve:
        """Return all measurements of an object; see the port."""
        with self._lock:

            def of(name: TableName) -> pd.DataFrame:
                found = self._select(name, lambda row: row["diaObjectId"] == dia_object_id)
                return found.sort_values("midpointMjdTai", kind="stable", ignore_index=True)

            return LightCurve(sources=of("DiaSource"), forced=of("DiaForcedSource"))

    def _renew_summaries(self, measured: set[int], visit_time: float) -> None:
        """Recompute the summaries that this visit has outdated, from this visit's versions on."""
        sources, forced = (
            self._select(name, lambda row: row["diaObjectId"] in measured)
            for name in ("DiaSource", "DiaForcedSource")
        )
        versions = [
            row
            for (object_id, start), row in self._rows["DiaObject"].items()
            if object_id in measured and start >= visit_time
        ]
        for old in outdated(versions, sources, visit_time, self._days):
            self._rows["DiaObject"][row_key("DiaObject", old)] = recomputed(old, sources, forced, self._days)

    def _objects_at(self, before: float) -> pd.DataFrame:
        """Return each object as it stood before a moment, with the end of that version."""
        versions: dict[int, dict[str, Any]] = {}
        for (object_id, start), row in sorted(self._rows["DiaObject"].items()):
            if start < before:
                versions[object_id] = row
        found = [{**row, "validityEndMjdTai": self._next_start(row)} for row in versions.values()]
        return _table("DiaObject", found)

    def _versions(self) -> list[dict[str, Any]]:
        return [row for _, row in sorted(self._rows["DiaObject"].items())]

    def _next_start(self, version: dict[str, Any]) -> float | None:
        starts = [
            start
            for object_id, start in self._rows["DiaObject"]
            if object_id == version["diaObjectId"] and start > version["validityStartMjdTai"]
        ]
        return min(starts, default=None)

    def _select(self, name: TableName, wanted: Callable[[dict[str, Any]], bool]) -> pd.DataFrame:
        return _table(name, (row for _, row in sorted(self._rows[name].items()) if wanted(row)))


def _newest(versions: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the versions that nothing follows, with the columns of the last-object table."""
    names = [column.name for column in columns("DiaObjectLast")]
    return [{name: row[name] for name in names} for row in versions if row["validityEndMjdTai"] is None]


def _table(name: TableName, rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    found = list(rows)
    return conform(name, pd.DataFrame(found, dtype=object)) if found else empty(name)
