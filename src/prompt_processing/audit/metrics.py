"""What the files of metrics say."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final

from prompt_processing.audit.evidence import MetricsRecord
from prompt_processing.config import RepositorySettings
from prompt_processing.domain.visit import DetectorVisitKey
from prompt_processing.storage import object_store

N_ALERTS: Final = "alerts.n_alerts"
"""Metric that tells the number of alerts."""


def metrics(
    places: RepositorySettings, instruments: Iterable[str], days: Sequence[int]
) -> tuple[dict[DetectorVisitKey, tuple[MetricsRecord, ...]], tuple[str, ...]]:
    """Return the metrics of some observing days.

    Parameters
    ----------
    places
        Where the stores are.
    instruments, days
        Whose metrics.

    Returns
    -------
    records
        What each file says, by the detector-visit that it is about.
    damaged
        What is wrong with files that cannot be read.
    """
    records: dict[DetectorVisitKey, list[MetricsRecord]] = defaultdict(list)
    damaged = []
    for key in (f"verify/{instrument}/{day}" for instrument in instruments for day in days):
        folder = object_store.root(object_store.child(object_store.root(places.metrics), key))
        for name in object_store.list_after(folder):
            try:
                visit, record = _read(object_store.read(object_store.child(folder, name)) or b"")
            except (ValueError, KeyError, TypeError) as error:
                damaged.append(f"{key}/{name}: cannot be read: {type(error).__name__}: {error}")
            else:
                if record is not None:
                    records[visit].append(record)
    return {visit: tuple(found) for visit, found in records.items()}, tuple(damaged)


def _read(data: bytes) -> tuple[DetectorVisitKey, MetricsRecord | None]:
    """Return what a file says, `None` if it is of an outcome without a decision."""
    job: dict[str, Any] = json.loads(data)
    meta = job["meta"]
    values = {item["metric"]: item["value"] for item in job["measurements"]}
    key = DetectorVisitKey(meta["instrument"], meta["group"], int(meta["detector"]))
    if meta.get("status", "processed") != "processed":
        return key, None
    return key, MetricsRecord(int(meta["visit"]), values.get(N_ALERTS))
