"""How the SQL ledger reads what is known of detector-visits, inside a transaction."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, RowMapping, Select, and_, exists, func, select, text

from prompt_processing.domain.outcome import Outcome, StageTimes
from prompt_processing.domain.raws import ArrivalPointer
from prompt_processing.domain.visit import DetectorVisit, DetectorVisitKey
from prompt_processing.ledger.claims import NOW, matches, read_outcome
from prompt_processing.ledger.port import ArrivalRecord, AttemptRecord, DecisionSummary, DetectorVisitRecord
from prompt_processing.ledger.tables import (
    ARRIVALS,
    ATTEMPTS,
    DETECTOR_VISITS,
    OUTCOMES,
    PENDING_EFFECTS,
    STAGE_TIMES,
    STEPS,
    VISITS,
)

_MAX_LISTED: Final = 1000
"""Most numbers that one query lists."""


def records(connection: Connection, condition: ColumnElement[bool]) -> list[DetectorVisitRecord]:
    """Return the detector-visits for which a condition on their table holds; see `numbered_records`."""
    return [record for _, record in numbered_records(connection, condition)]


def numbered_records(
    connection: Connection, condition: ColumnElement[bool], limit: int | None = None
) -> list[tuple[int, DetectorVisitRecord]]:
    """Return detector-visits with the numbers of their rows, in order of their first claim.

    It must be the first thing in its transaction: all its queries see the tables at one moment.

    Parameters
    ----------
    connection
        The transaction.
    condition
        Condition on their table.
    limit
        Return only the first ones.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
    same_visit = and_(
        VISITS.c.instrument == DETECTOR_VISITS.c.instrument, VISITS.c.group == DETECTOR_VISITS.c.group
    )
    query = (
        select(
            DETECTOR_VISITS,
            (DETECTOR_VISITS.c.lease_until > NOW).label("alive"),
            VISITS.c.cancelled_at.is_not(None).label("cancelled"),
        )
        .select_from(DETECTOR_VISITS.outerjoin(VISITS, same_visit))
        .where(condition)
        .order_by(DETECTOR_VISITS.c.id)
        .limit(limit)
    )
    rows = connection.execute(query).mappings().all()
    if not rows:
        return []
    if len(rows) <= _MAX_LISTED:
        # Numbers leave a planner no way but the indexes.
        parts = _Parts.read(connection, [row["id"] for row in rows])
    else:
        # Afterwards, because a condition on the time may hold for more rows by now, but not for fewer.
        chosen = and_(condition, DETECTOR_VISITS.c.id <= rows[-1]["id"])
        parts = _Parts.read(connection, select(DETECTOR_VISITS.c.id).where(chosen))
    return [(row["id"], parts.record(row)) for row in rows]


def is_stale(older_than: float) -> ColumnElement[bool]:
    """Return the condition that a detector-visit has no outcome and was free for a time [s]."""
    free_since = func.coalesce(DETECTOR_VISITS.c.lease_until, DETECTOR_VISITS.c.freed_at)
    return and_(DETECTOR_VISITS.c.status.is_(None), free_since <= NOW - older_than)


def history(connection: Connection, visit: DetectorVisitKey) -> list[Outcome]:
    """Return every outcome of a detector-visit, oldest first."""
    rows = connection.execute(
        select(OUTCOMES)
        .join(DETECTOR_VISITS, DETECTOR_VISITS.c.id == OUTCOMES.c.detector_visit_id)
        .where(matches(DETECTOR_VISITS.c, visit._asdict()))
        .order_by(OUTCOMES.c.id)
    )
    return [read_outcome(row) for row in rows.mappings()]


def counts(connection: Connection, day_obs: int | None) -> dict[str, int]:
    """Return how many detector-visits, of one night or of all, have each current outcome."""
    current = and_(OUTCOMES.c.detector_visit_id == DETECTOR_VISITS.c.id, OUTCOMES.c.current.is_(True))
    query = (
        select(OUTCOMES.c.status, OUTCOMES.c.reason, func.count())
        .select_from(DETECTOR_VISITS.outerjoin(OUTCOMES, current))
        .group_by(OUTCOMES.c.status, OUTCOMES.c.reason)
    )
    if day_obs is not None:
        query = query.where(DETECTOR_VISITS.c.day_obs == day_obs)
    found = {label(status, reason): count for status, reason, count in connection.execute(query)}
    return dict(sorted(found.items()))


def arrivals(
    connection: Connection, visit: DetectorVisitKey | None, *, without_visit: bool
) -> list[ArrivalRecord]:
    """Return the raws that were seen, in order; see the port."""
    query = select(ARRIVALS).order_by(ARRIVALS.c.id)
    if visit is not None:
        query = query.where(matches(ARRIVALS.c, visit._asdict()))
    if without_visit:
        announced = exists().where(
            *(DETECTOR_VISITS.c[name] == ARRIVALS.c[name] for name in DetectorVisitKey._fields)
        )
        query = query.where(~announced)
    return [
        ArrivalRecord(
            DetectorVisitKey(row["instrument"], row["group"], row["detector"]),
            ArrivalPointer.from_json(dict(row), row["key"]),
        )
        for row in connection.execute(query).mappings()
    ]


@dataclass(frozen=True, slots=True)
class _Parts:
    """The rows of other tables that belong to detector-visits, by the number of these."""

    attempts: dict[Any, list[RowMapping]]
    outcomes: dict[Any, list[RowMapping]]
    steps: dict[Any, list[RowMapping]]
    pending: dict[Any, list[RowMapping]]
    stages: dict[Any, list[RowMapping]]
    """By number and attempt."""

    @classmethod
    def read(cls, connection: Connection, chosen: list[int] | Select[tuple[int]]) -> "_Parts":
        """Read the rows of detector-visits, given by their numbers, with one query for each table."""

        def rows_of(table: Any, order: Any) -> Sequence[RowMapping]:
            query = select(table).where(table.c.detector_visit_id.in_(chosen)).order_by(order)
            return connection.execute(query).mappings().all()

        return cls(
            attempts=_by(rows_of(ATTEMPTS, ATTEMPTS.c.attempt), _visit_id),
            outcomes=_by(rows_of(OUTCOMES, OUTCOMES.c.id), _visit_id),
            steps=_by(rows_of(STEPS, STEPS.c.id), _visit_id),
            pending=_by(rows_of(PENDING_EFFECTS, PENDING_EFFECTS.c.id), _visit_id),
            stages=_by(rows_of(STAGE_TIMES, STAGE_TIMES.c.position), _attempt_id),
        )

    def record(self, row: RowMapping) -> DetectorVisitRecord:
        """Return all that is known of the detector-visit in a row."""
        outcomes = self.outcomes[row["id"]]
        recorded = {_attempt_id(outcome): read_outcome(outcome) for outcome in outcomes}
        return DetectorVisitRecord(
            visit=DetectorVisit.model_validate_json(row["body"]),
            message_id=row["message_id"],
            outcome=next((read_outcome(outcome) for outcome in outcomes if outcome["current"]), None),
            attempts=tuple(
                _attempt(attempt, recorded.get(_attempt_id(attempt)), self.stages[_attempt_id(attempt)])
                for attempt in self.attempts[row["id"]]
            ),
            steps=tuple(step["step"] for step in self.steps[row["id"]]),
            pending=tuple(left["effect"] for left in self.pending[row["id"]]),
            cancelled=bool(row["cancelled"]),
            working=row["owner"] if row["alive"] else None,
            decision=None if row["n_alerts"] is None else DecisionSummary(row["visit_id"], row["n_alerts"]),
        )


def _attempt(row: RowMapping, outcome: Outcome | None, stages: Iterable[RowMapping]) -> AttemptRecord:
    seconds = {stage["stage"]: stage["seconds"] for stage in stages}
    return AttemptRecord(
        attempt=row["attempt"],
        owner=row["owner"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        outcome=outcome,
        error=row["error"],
        times=StageTimes(seconds, row["latency"]),
    )


def label(status: str | None, reason: str | None) -> str:
    """Return how detector-visits of an outcome are counted.

    Parameters
    ----------
    status, reason
        Of the outcome; `None` without one.
    """
    if status is None:
        return "queued"
    return status if reason is None else f"{status}:{reason}"


def _visit_id(row: RowMapping) -> Any:
    return row["detector_visit_id"]


def _attempt_id(row: RowMapping) -> Any:
    return row["detector_visit_id"], row["attempt"]


def _by(rows: Iterable[RowMapping], key: Callable[[RowMapping], Any]) -> dict[Any, list[RowMapping]]:
    grouped: dict[Any, list[RowMapping]] = defaultdict(list)
    for row in rows:
        grouped[key(row)].append(row)
    return grouped
