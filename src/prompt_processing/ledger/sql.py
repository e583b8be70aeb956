"""The ledger in an SQL database."""

import json
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, RowMapping, and_, exists, func, select

from prompt_processing import database
from prompt_processing.domain.clock import SECONDS_PER_DAY
from prompt_processing.domain.errors import StaleClaimError
from prompt_processing.domain.outcome import Delivery, Outcome, StageTimes, Status
from prompt_processing.domain.raws import ArrivalPointer
from prompt_processing.domain.visit import DetectorVisit, DetectorVisitKey
from prompt_processing.ledger.port import (
    DEFAULT_LEASE,
    ArrivalRecord,
    AttemptRecord,
    Busy,
    Claim,
    DetectorVisitRecord,
    Done,
)
from prompt_processing.ledger.tables import (
    ARRIVALS,
    ATTEMPTS,
    DETECTOR_VISITS,
    METADATA,
    OUTCOMES,
    STAGE_TIMES,
)


class SqlLedger:
    """A `~prompt_processing.ledger.port.Ledger` in SQLite or PostgreSQL; tables are made at first use.

    Times are those of the database, so workers with wrong clocks agree on leases.

    Parameters
    ----------
    engine
        The database, from `prompt_processing.database.engine`.

    Raises
    ------
    StoreError
        If the database does not answer.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        with database.writing(engine, "ledger") as connection:
            METADATA.create_all(connection)

    def claim(
        self, visit: DetectorVisit, delivery: Delivery, *, owner: str, lease: float = DEFAULT_LEASE
    ) -> Claim | Done | Busy:
        """Claim a detector-visit; see the port."""
        with database.writing(self._engine, "ledger: claim") as connection:
            now = _now(connection)
            row = _find_row(connection, visit.key, lock=True)
            if row is None:
                row_id, attempt = _insert_visit(connection, visit, delivery, now), 1
            else:
                found = _standing(connection, row, owner, now)
                if found is not None:
                    return found
                row_id, attempt = row["id"], row["attempt"] + 1
            claim = Claim(visit.key, attempt, uuid.uuid4().hex, owner, delivery.message_id)
            _open_claim(connection, row_id, claim, now, lease)
            return claim

    def check(self, claim: Claim) -> None:
        """Make sure that a claim still holds; see the port."""
        with database.reading(self._engine, "ledger: check") as connection:
            _held_row(connection, claim)

    def record_times(self, claim: Claim, times: StageTimes) -> None:
        """Store the stage times of an attempt; see the port."""
        with database.writing(self._engine, "ledger: stage times") as connection:
            key = {"detector_visit_id": _held_row(connection, claim)["id"], "attempt": claim.attempt}
            connection.execute(
                ATTEMPTS.update().where(_matches(ATTEMPTS.c, key)).values(latency=times.latency)
            )
            connection.execute(STAGE_TIMES.delete().where(_matches(STAGE_TIMES.c, key)))
            rows = [
                {**key, "position": position, "stage": stage, "seconds": seconds}
                for position, (stage, seconds) in enumerate(times.seconds.items())
            ]
            if rows:
                connection.execute(STAGE_TIMES.insert(), rows)

    def record_outcome(self, claim: Claim, outcome: Outcome) -> None:
        """Store the outcome and end the claim; see the port."""
        with database.writing(self._engine, "ledger: outcome") as connection:
            row = _find_row(connection, claim.visit, lock=True)
            if row is not None and row["token"] is None and row["attempt"] == claim.attempt:
                standing = _current_outcome(connection, row["id"])
                if standing == outcome:
                    return
            row = _held_row(connection, claim)
            now = _now(connection)
            connection.execute(
                OUTCOMES.insert().values(
                    detector_visit_id=row["id"],
                    attempt=claim.attempt,
                    status=str(outcome.status),
                    reason=outcome.reason,
                    detail=outcome.detail,
                    flags=json.dumps(outcome.flags),
                    recorded_at=now,
                    current=True,
                )
            )
            _close_claim(connection, row["id"], claim.attempt, now)

    def release(self, claim: Claim) -> None:
        """Give a claim back; see the port."""
        with database.writing(self._engine, "ledger: release") as connection:
            try:
                row = _held_row(connection, claim)
            except StaleClaimError:
                return
            _close_claim(connection, row["id"], claim.attempt, _now(connection))

    def reopen(self, visit: DetectorVisitKey) -> bool:
        """Make the current outcome history; see the port."""
        with database.writing(self._engine, "ledger: reopen") as connection:
            row = _find_row(connection, visit, lock=True)
            if row is None:
                return False
            current = and_(OUTCOMES.c.detector_visit_id == row["id"], OUTCOMES.c.current.is_(True))
            return bool(connection.execute(OUTCOMES.update().where(current).values(current=False)).rowcount)

    def find(self, visit: DetectorVisitKey) -> DetectorVisitRecord | None:
        """Return what is known of one detector-visit; see the port."""
        found = self._records(_matches(DETECTOR_VISITS.c, visit._asdict()))
        return found[0] if found else None

    def history(self, visit: DetectorVisitKey) -> list[Outcome]:
        """Return every outcome of a detector-visit; see the port."""
        with database.reading(self._engine, "ledger: history") as connection:
            rows = connection.execute(
                select(OUTCOMES)
                .join(DETECTOR_VISITS, DETECTOR_VISITS.c.id == OUTCOMES.c.detector_visit_id)
                .where(_matches(DETECTOR_VISITS.c, visit._asdict()))
                .order_by(OUTCOMES.c.id)
            )
            return [_outcome(row) for row in rows.mappings()]

    def detector_visits(
        self, *, instrument: str | None = None, group: str | None = None
    ) -> list[DetectorVisitRecord]:
        """Return detector-visits; see the port."""
        wanted = {"instrument": instrument, "group": group}
        return self._records(_matches(DETECTOR_VISITS.c, {k: v for k, v in wanted.items() if v is not None}))

    def counts(self) -> dict[str, int]:
        """Return how many detector-visits have each current outcome; see the port."""
        query = (
            select(OUTCOMES.c.status, OUTCOMES.c.reason, func.count())
            .select_from(
                DETECTOR_VISITS.outerjoin(
                    OUTCOMES,
                    and_(OUTCOMES.c.detector_visit_id == DETECTOR_VISITS.c.id, OUTCOMES.c.current.is_(True)),
                )
            )
            .group_by(OUTCOMES.c.status, OUTCOMES.c.reason)
        )
        with database.reading(self._engine, "ledger: counts") as connection:
            found = {_label(status, reason): count for status, reason, count in connection.execute(query)}
        return dict(sorted(found.items()))

    def record_arrival(self, visit: DetectorVisitKey, pointer: ArrivalPointer) -> bool:
        """Note that a raw has been seen; see the port."""
        with database.writing(self._engine, "ledger: arrival") as connection:
            if connection.execute(select(ARRIVALS.c.id).where(ARRIVALS.c.key == pointer.key)).first():
                return False
            values = {**pointer.model_dump(), **visit._asdict()}
            connection.execute(ARRIVALS.insert().values(**values))
            return True

    def arrivals(self, *, without_visit: bool = False) -> list[ArrivalRecord]:
        """Return the raws that were seen; see the port."""
        query = select(ARRIVALS).order_by(ARRIVALS.c.id)
        if without_visit:
            announced = exists().where(
                *(DETECTOR_VISITS.c[name] == ARRIVALS.c[name] for name in DetectorVisitKey._fields)
            )
            query = query.where(~announced)
        with database.reading(self._engine, "ledger: arrivals") as connection:
            rows = connection.execute(query).mappings().all()
        return [
            ArrivalRecord(
                DetectorVisitKey(row["instrument"], row["group"], row["detector"]),
                ArrivalPointer.from_json(dict(row), row["key"]),
            )
            for row in rows
        ]

    def _records(self, condition: ColumnElement[bool]) -> list[DetectorVisitRecord]:
        """Return the detector-visits for which a condition on their table holds, with four queries in all."""
        chosen = select(DETECTOR_VISITS.c.id).where(condition)
        with database.reading(self._engine, "ledger: detector-visits") as connection:

            def rows_of(table: Any, *order: Any) -> list[RowMapping]:
                query = select(table).where(table.c.detector_visit_id.in_(chosen)).order_by(*order)
                return list(connection.execute(query).mappings())

            visits = (
                connection.execute(select(DETECTOR_VISITS).where(condition).order_by(DETECTOR_VISITS.c.id))
                .mappings()
                .all()
            )
            attempts = _by(rows_of(ATTEMPTS, ATTEMPTS.c.attempt), _visit_id)
            outcomes = rows_of(OUTCOMES, OUTCOMES.c.id)
            stages = _by(rows_of(STAGE_TIMES, STAGE_TIMES.c.position), _attempt_id)
        recorded = {_attempt_id(row): _outcome(row) for row in outcomes}
        current = {row["detector_visit_id"]: _outcome(row) for row in outcomes if row["current"]}
        return [
            DetectorVisitRecord(
                visit=DetectorVisit.model_validate_json(row["body"]),
                message_id=row["message_id"],
                outcome=current.get(row["id"]),
                attempts=tuple(
                    _attempt(attempt, recorded.get(_attempt_id(attempt)), stages[_attempt_id(attempt)])
                    for attempt in attempts[row["id"]]
                ),
            )
            for row in visits
        ]


def _standing(connection: Connection, row: RowMapping, owner: str, now: float) -> Done | Busy | None:
    """Return what stands in the way of a claim."""
    outcome = _current_outcome(connection, row["id"])
    if outcome is not None:
        return Done(outcome, row["attempt"])
    if row["token"] is not None and row["owner"] != owner and row["lease_until"] > now:
        return Busy(row["owner"], row["claim_message_id"])
    return None


def _insert_visit(connection: Connection, visit: DetectorVisit, delivery: Delivery, now: float) -> int:
    values = {
        **visit.key._asdict(),
        "message_id": delivery.message_id,
        "body": visit.model_dump_json(),
        "first_claimed_at": now,
        "attempt": 0,
    }
    inserted = connection.execute(DETECTOR_VISITS.insert().values(**values)).inserted_primary_key
    if inserted is None:
        raise RuntimeError("the database gave no number to a new detector-visit")
    return int(inserted[0])


def _open_claim(connection: Connection, row_id: int, claim: Claim, now: float, lease: float) -> None:
    connection.execute(
        DETECTOR_VISITS.update()
        .where(DETECTOR_VISITS.c.id == row_id)
        .values(
            attempt=claim.attempt,
            token=claim.token,
            owner=claim.owner,
            claim_message_id=claim.message_id,
            lease_until=now + lease,
        )
    )
    connection.execute(
        ATTEMPTS.insert().values(
            detector_visit_id=row_id,
            attempt=claim.attempt,
            owner=claim.owner,
            token=claim.token,
            message_id=claim.message_id,
            started_at=now,
        )
    )


def _close_claim(connection: Connection, row_id: int, attempt: int, now: float) -> None:
    connection.execute(
        DETECTOR_VISITS.update()
        .where(DETECTOR_VISITS.c.id == row_id)
        .values(token=None, owner=None, claim_message_id=None, lease_until=None)
    )
    key = {"detector_visit_id": row_id, "attempt": attempt}
    connection.execute(ATTEMPTS.update().where(_matches(ATTEMPTS.c, key)).values(ended_at=now))


def _held_row(connection: Connection, claim: Claim) -> RowMapping:
    """Return the row of a claim that holds, locked until the transaction ends."""
    row = _find_row(connection, claim.visit, lock=True)
    if row is None or row["token"] != claim.token:
        raise StaleClaimError(f"attempt {claim.attempt} of {claim.owner} no longer holds {claim.visit}")
    return row


def _find_row(connection: Connection, visit: DetectorVisitKey, *, lock: bool) -> RowMapping | None:
    query = select(DETECTOR_VISITS).where(_matches(DETECTOR_VISITS.c, visit._asdict()))
    return connection.execute(query.with_for_update() if lock else query).mappings().first()


def _current_outcome(connection: Connection, row_id: int) -> Outcome | None:
    query = select(OUTCOMES).where(OUTCOMES.c.detector_visit_id == row_id, OUTCOMES.c.current.is_(True))
    row = connection.execute(query).mappings().first()
    return None if row is None else _outcome(row)


def _now(connection: Connection) -> float:
    """Return the database's time (UNIX seconds)."""
    if connection.dialect.name == "sqlite":
        days = connection.exec_driver_sql("SELECT julianday('now') - 2440587.5").scalar_one()
        return float(days) * SECONDS_PER_DAY
    return float(connection.exec_driver_sql("SELECT extract(epoch FROM clock_timestamp())").scalar_one())


def _matches(columns: Any, values: dict[str, Any]) -> ColumnElement[bool]:
    return and_(True, *(columns[name] == value for name, value in values.items()))


def _label(status: str | None, reason: str | None) -> str:
    if status is None:
        return "queued"
    return status if reason is None else f"{status}:{reason}"


def _outcome(row: RowMapping) -> Outcome:
    return Outcome(Status(row["status"]), row["reason"], row["detail"], tuple(json.loads(row["flags"])))


def _attempt(row: RowMapping, outcome: Outcome | None, stages: Iterable[RowMapping]) -> AttemptRecord:
    seconds = {stage["stage"]: stage["seconds"] for stage in stages}
    return AttemptRecord(
        attempt=row["attempt"],
        owner=row["owner"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        outcome=outcome,
        times=StageTimes(seconds, row["latency"]),
    )


def _visit_id(row: RowMapping) -> Any:
    return row["detector_visit_id"]


def _attempt_id(row: RowMapping) -> Any:
    return row["detector_visit_id"], row["attempt"]


def _by(rows: Iterable[RowMapping], key: Callable[[RowMapping], Any]) -> dict[Any, list[RowMapping]]:
    grouped: dict[Any, list[RowMapping]] = defaultdict(list)
    for row in rows:
        grouped[key(row)].append(row)
    return grouped
