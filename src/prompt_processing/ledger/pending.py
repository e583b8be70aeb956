"""What the SQL ledger does with effects that are left to a relay, inside a transaction."""

from typing import Any, Final

from sqlalchemy import Connection, RowMapping, Select, and_, func, literal, select

from prompt_processing.domain.visit import DetectorVisitKey
from prompt_processing.ledger.claims import NOW, matches
from prompt_processing.ledger.port import REPORT, Backlog, PendingEffect
from prompt_processing.ledger.tables import ATTEMPTS, DETECTOR_VISITS, PENDING_EFFECTS, STEPS
from prompt_processing.storage import database

_C: Final = PENDING_EFFECTS.c
_OLDEST_FIRST: Final = (_C.since, _C.id)


def add(connection: Connection, row: RowMapping, effect: str, error: str, payload: str) -> None:
    """Leave an effect of a locked row to the relay, unless it is already."""
    connection.execute(
        database.insert_new(connection, PENDING_EFFECTS).values(
            detector_visit_id=row["id"],
            effect=effect,
            attempt=row["attempt"],
            payload=payload,
            error=error,
            since=NOW,
            tries=0,
            due_at=NOW,
            lease_until=0.0,
        )
    )


def put_report(connection: Connection, row: RowMapping, payload: str, delay: float) -> None:
    """Make the metrics of an outcome pending, in place of those of an earlier outcome."""
    connection.execute(PENDING_EFFECTS.delete().where(_C.detector_visit_id == row["id"], _C.effect == REPORT))
    add(connection, row, REPORT, "", payload)
    of_this = and_(_C.detector_visit_id == row["id"], _C.effect == REPORT)
    connection.execute(PENDING_EFFECTS.update().where(of_this).values(due_at=NOW + delay))


def listing(connection: Connection, limit: int | None) -> list[PendingEffect]:
    """Return what is pending, the oldest first."""
    query = _pending().order_by(*_OLDEST_FIRST).limit(limit)
    return [_read(row) for row in connection.execute(query).mappings()]


def backlog(connection: Connection) -> dict[str, Backlog]:
    """Return how much is pending, by effect."""
    query = select(_C.effect, func.count(), NOW - func.min(_C.since)).group_by(_C.effect).order_by(_C.effect)
    return {effect: Backlog(count, max(age, 0.0)) for effect, count, age in connection.execute(query)}


def take(connection: Connection, lease: float, only: PendingEffect | None) -> PendingEffect | None:
    """Take one that is due, or one certain one, if no other relay has it."""
    query = _pending().where(_C.lease_until <= NOW)
    if only is None:
        query = query.where(_C.due_at <= NOW).order_by(*_OLDEST_FIRST).limit(1)
    else:
        query = query.where(_is(only))
    # Another relay does not wait for this one, it takes the next.
    query = query.with_for_update(skip_locked=True, of=PENDING_EFFECTS)
    row = connection.execute(query).mappings().first()
    if row is None:
        return None
    connection.execute(
        PENDING_EFFECTS.update().where(_C.id == row["id"]).values(tries=_C.tries + 1, lease_until=NOW + lease)
    )
    return _read({**row, "tries": row["tries"] + 1})


def settle(connection: Connection, pending: PendingEffect, latency: float | None) -> None:
    """Remove a pending effect; that of a decision is a step from now on."""
    key = _visit_id(pending).scalar_subquery()
    if pending.effect != REPORT:
        values = select(DETECTOR_VISITS.c.id, literal(pending.effect), literal(pending.attempt), NOW).where(
            matches(DETECTOR_VISITS.c, pending.visit._asdict())
        )
        names = ["detector_visit_id", "step", "attempt", "completed_at"]
        connection.execute(database.insert_new(connection, STEPS).from_select(names, values))
    if latency is not None:
        connection.execute(
            ATTEMPTS.update()
            .where(
                ATTEMPTS.c.detector_visit_id == key,
                ATTEMPTS.c.attempt >= pending.attempt,
                ATTEMPTS.c.latency.is_(None),
            )
            .values(latency=latency)
        )
    # A report of a later outcome may stand here by now.
    connection.execute(PENDING_EFFECTS.delete().where(_is(pending)))


def postpone(connection: Connection, pending: PendingEffect, error: str, delay: float) -> None:
    """Give an effect back, unless another relay has it."""
    connection.execute(
        PENDING_EFFECTS.update()
        .where(_is(pending), _C.tries == pending.tries)
        .values(error=error, due_at=NOW + delay, lease_until=0.0)
    )


def _pending() -> Select[Any]:
    visit = DETECTOR_VISITS.c
    return select(
        PENDING_EFFECTS, (_C.due_at - NOW).label("due_in"), visit.instrument, visit.group, visit.detector
    ).join(DETECTOR_VISITS, visit.id == _C.detector_visit_id)


def _visit_id(pending: PendingEffect) -> Select[Any]:
    return select(DETECTOR_VISITS.c.id).where(matches(DETECTOR_VISITS.c, pending.visit._asdict()))


def _is(pending: PendingEffect) -> Any:
    return and_(
        _C.detector_visit_id == _visit_id(pending).scalar_subquery(),
        _C.effect == pending.effect,
        _C.attempt == pending.attempt,
    )


def _read(row: Any) -> PendingEffect:
    return PendingEffect(
        visit=DetectorVisitKey(row["instrument"], row["group"], row["detector"]),
        effect=row["effect"],
        attempt=row["attempt"],
        payload=row["payload"],
        error=row["error"],
        since=row["since"],
        tries=row["tries"],
        due_in=row["due_in"],
    )
