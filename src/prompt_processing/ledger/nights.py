"""How the SQL ledger reads one night, inside a transaction."""

from collections.abc import Iterator
from typing import Final

from sqlalchemy import Connection, and_, func, select

from prompt_processing.domain.outcome import Status
from prompt_processing.ledger import reading
from prompt_processing.ledger.port import DetectorVisitRecord, Ledger, NightSummary, Page
from prompt_processing.ledger.tables import DETECTOR_VISITS

PAGE: Final = 1000
"""Detector-visits that are read at a time by `every`."""


def every(ledger: Ledger, day_obs: int) -> Iterator[DetectorVisitRecord]:
    """Yield all detector-visits of a night, in order of their first claim, read page by page.

    Parameters
    ----------
    ledger
        The ledger.
    day_obs
        The night, YYYYMMDD.

    Raises
    ------
    StoreError
        If the ledger does not answer.
    """
    after: int | None = 0
    while after is not None:
        page = ledger.night(day_obs, after=after, limit=PAGE)
        yield from page.records
        after = page.next


def newest(connection: Connection) -> int | None:
    """Return the newest night, `None` if there is none."""
    return connection.scalar(select(func.max(DETECTOR_VISITS.c.day_obs)))


def read_page(connection: Connection, day_obs: int, after: int, limit: int) -> Page:
    """Return a page of a night; see the port. It must be the first thing in its transaction."""
    condition = and_(DETECTOR_VISITS.c.day_obs == day_obs, DETECTOR_VISITS.c.id > after)
    numbered = reading.numbered_records(connection, condition, limit)
    last = numbered[-1][0] if len(numbered) == limit else None
    return Page(tuple(record for _, record in numbered), last)


def summary(connection: Connection, day_obs: int) -> NightSummary:
    """Return what became of the detector-visits of a night."""
    columns = DETECTOR_VISITS.c
    query = (
        select(
            columns.status,
            columns.reason,
            func.count(),
            func.coalesce(func.sum(columns.n_alerts), 0),
            func.count(columns.n_alerts),
        )
        .where(columns.day_obs == day_obs)
        .group_by(columns.status, columns.reason)
    )
    counts, n_alerts, unknown = {}, 0, 0
    for status, reason, count, alerts, known in connection.execute(query):
        counts[reading.label(status, reason)] = count
        n_alerts += alerts
        unknown += count - known if status == Status.PROCESSED else 0
    return NightSummary(dict(sorted(counts.items())), n_alerts, unknown)
