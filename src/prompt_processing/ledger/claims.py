"""What the SQL ledger does with a claim, inside a transaction.

Whoever changes something about a detector-visit locks its row first. So an image that is noted while its
visit is being given up is seen by exactly one of the two, and nothing is written with a claim that was taken
over.
"""

import json
import uuid
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, RowMapping, and_, func, or_, select

from prompt_processing.domain.errors import EngineLostError, StaleClaimError
from prompt_processing.domain.outcome import Delivery, Outcome, StageTimes, Status
from prompt_processing.domain.visit import DetectorVisit, DetectorVisitKey
from prompt_processing.ledger.port import REOPENED_BY_IMAGE, Busy, Claim, DecisionSummary, Done
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
from prompt_processing.storage import database

NOW: Final = database.DatabaseTime()


def lock(connection: Connection, visit: DetectorVisitKey) -> RowMapping | None:
    """Return the row of a detector-visit, locked until the transaction ends (on SQLite the whole file is).

    Its column ``alive`` tells whether the claim is respected now.
    """
    alive = (DETECTOR_VISITS.c.lease_until > NOW).label("alive")
    query = select(DETECTOR_VISITS, alive).where(matches(DETECTOR_VISITS.c, visit._asdict()))
    return connection.execute(query.with_for_update()).mappings().first()


def lock_or_add(connection: Connection, visit: DetectorVisit, delivery: Delivery) -> RowMapping:
    """Return the row of a detector-visit like `lock`; it is made if needed."""
    row = lock(connection, visit.key)
    if row is not None:
        return row
    lock_absent(connection, visit.key)
    connection.execute(
        database.insert_new(connection, DETECTOR_VISITS).values(
            **visit.key._asdict(),
            message_id=delivery.message_id,
            body=visit.model_dump_json(),
            first_claimed_at=NOW,
            attempt=0,
            day_obs=visit.day_obs,
        )
    )
    add_visit(connection, visit.instrument, visit.groupId)
    row = lock(connection, visit.key)
    if row is None:
        raise RuntimeError(f"the database lost the new detector-visit {visit.key}")
    return row


def lock_absent(connection: Connection, visit: DetectorVisitKey) -> None:
    """Make the first claim of a detector-visit and the noting of its image wait for each other.

    Neither has a row to lock. On SQLite they wait for each other anyway.
    """
    if connection.dialect.name == "postgresql":
        number = func.hashtextextended(json.dumps(visit), 0)
        connection.execute(select(func.pg_advisory_xact_lock(number)))


def add_visit(connection: Connection, instrument: str, group: str) -> None:
    """Make sure that there is a row of the visit as a whole."""
    values = {"instrument": instrument, "group": group, "heard_of_at": NOW}
    connection.execute(database.insert_new(connection, VISITS).values(**values))


def obstacle(connection: Connection, row: RowMapping, owner: str) -> Done | Busy | None:
    """Return what stands in the way of a claim on a locked row."""
    if not row["attempt"]:
        return None
    outcome = current_outcome(connection, row["id"])
    if outcome is not None:
        return Done(outcome, row["attempt"])
    if row["token"] is not None and row["owner"] != owner and row["alive"]:
        return Busy(row["owner"], row["claim_message_id"])
    return None


def open_claim(connection: Connection, row: RowMapping, claim: Claim, lease: float) -> None:
    """Write a claim into a locked row, in place of any older one, and begin its attempt."""
    connection.execute(
        DETECTOR_VISITS.update()
        .where(DETECTOR_VISITS.c.id == row["id"])
        .values(
            attempt=claim.attempt,
            token=claim.token,
            owner=claim.owner,
            claim_message_id=claim.message_id,
            lease_until=NOW + lease,
        )
    )
    connection.execute(
        ATTEMPTS.insert().values(
            detector_visit_id=row["id"],
            attempt=claim.attempt,
            owner=claim.owner,
            token=claim.token,
            message_id=claim.message_id,
            started_at=NOW,
        )
    )


def new_claim(connection: Connection, row: RowMapping, owner: str, message_id: str) -> Claim:
    """Return the next claim on a locked row, with what earlier attempts have left."""
    visit = DetectorVisitKey(row["instrument"], row["group"], row["detector"])
    attempt, token = row["attempt"] + 1, uuid.uuid4().hex
    if attempt == 1:
        return Claim(visit, attempt, token, owner, message_id)
    steps = connection.scalars(select(STEPS.c.step).where(STEPS.c.detector_visit_id == row["id"]))
    left = select(PENDING_EFFECTS.c.effect).where(PENDING_EFFECTS.c.detector_visit_id == row["id"])
    return Claim(
        visit=visit,
        attempt=attempt,
        token=token,
        owner=owner,
        message_id=message_id,
        steps=frozenset(steps),
        pending=frozenset(connection.scalars(left)),
        crashes=_count_crashes(connection, row["id"]),
    )


def close_claim(connection: Connection, row: RowMapping, error: str | None = None) -> None:
    """End the claim on a locked row, and its attempt."""
    connection.execute(
        DETECTOR_VISITS.update()
        .where(DETECTOR_VISITS.c.id == row["id"])
        .values(token=None, owner=None, claim_message_id=None, lease_until=None, freed_at=NOW)
    )
    connection.execute(
        ATTEMPTS.update().where(matches(ATTEMPTS.c, _attempt_key(row))).values(ended_at=NOW, error=error)
    )


def held(connection: Connection, claim: Claim) -> RowMapping:
    """Return the row of a claim that holds, locked until the transaction ends."""
    row = lock(connection, claim.visit)
    if row is None or row["token"] != claim.token:
        raise stale(claim)
    return row


def stale(claim: Claim) -> StaleClaimError:
    """Return the error of a claim that does not hold any more."""
    return StaleClaimError(f"attempt {claim.attempt} of {claim.owner} no longer holds {claim.visit}")


def matches_claim(claim: Claim) -> ColumnElement[bool]:
    """Return the condition under which a claim holds."""
    return matches(DETECTOR_VISITS.c, {**claim.visit._asdict(), "token": claim.token})


def store_times(connection: Connection, row: RowMapping, times: StageTimes) -> None:
    """Store the stage times of the attempt that a locked row is at, in place of those stored before."""
    key = _attempt_key(row)
    # A relay may have sent the alerts meanwhile, and knows the latency.
    latency = func.coalesce(times.latency, ATTEMPTS.c.latency)
    connection.execute(ATTEMPTS.update().where(matches(ATTEMPTS.c, key)).values(latency=latency))
    connection.execute(STAGE_TIMES.delete().where(matches(STAGE_TIMES.c, key)))
    rows = [
        {**key, "position": position, "stage": stage, "seconds": seconds}
        for position, (stage, seconds) in enumerate(times.seconds.items())
    ]
    if rows:
        connection.execute(STAGE_TIMES.insert(), rows)


def store_outcome(connection: Connection, row: RowMapping, outcome: Outcome) -> None:
    """Make an outcome the current one of a locked row."""
    connection.execute(
        OUTCOMES.insert().values(
            **_attempt_key(row),
            status=str(outcome.status),
            reason=outcome.reason,
            detail=outcome.detail,
            flags=json.dumps(outcome.flags),
            recorded_at=NOW,
            current=True,
        )
    )
    _set(connection, row, status=str(outcome.status), reason=outcome.reason)


def store_decision(connection: Connection, claim: Claim, decision: DecisionSummary) -> None:
    """Store what lists show of a decision, if the claim holds."""
    values = {"visit_id": decision.visit_id, "n_alerts": decision.n_alerts}
    connection.execute(DETECTOR_VISITS.update().where(matches_claim(claim)).values(**values))


def current_outcome(connection: Connection, row_id: int) -> Outcome | None:
    """Return the current outcome of a row, `None` if it has none."""
    query = select(OUTCOMES).where(OUTCOMES.c.detector_visit_id == row_id, OUTCOMES.c.current.is_(True))
    row = connection.execute(query).mappings().first()
    return None if row is None else read_outcome(row)


def reopen(connection: Connection, row: RowMapping) -> bool:
    """Make the current outcome of a locked row history; tell whether there was one."""
    current = and_(OUTCOMES.c.detector_visit_id == row["id"], OUTCOMES.c.current.is_(True))
    if not connection.execute(OUTCOMES.update().where(current).values(current=False)).rowcount:
        return False
    _set(connection, row, freed_at=NOW, status=None, reason=None)
    return True


def has_arrival(connection: Connection, visit: DetectorVisitKey) -> bool:
    """Tell whether an image was noted for a detector-visit."""
    query = select(ARRIVALS.c.id).where(matches(ARRIVALS.c, visit._asdict())).limit(1)
    return connection.execute(query).first() is not None


def waits_for_image(outcome: Outcome | None) -> bool:
    """Tell whether an image makes an outcome history."""
    return outcome is not None and outcome.status is Status.SKIPPED and outcome.reason in REOPENED_BY_IMAGE


def read_outcome(row: RowMapping) -> Outcome:
    """Return the outcome that a row of its table holds."""
    return Outcome(Status(row["status"]), row["reason"], row["detail"], tuple(json.loads(row["flags"])))


def matches(columns: Any, values: Mapping[str, Any]) -> ColumnElement[bool]:
    """Return the condition that columns have certain values."""
    return and_(True, *(columns[name] == value for name, value in values.items()))


def _set(connection: Connection, row: RowMapping, **values: Any) -> None:
    """Change columns of a locked row."""
    connection.execute(DETECTOR_VISITS.update().where(DETECTOR_VISITS.c.id == row["id"]).values(**values))


def _attempt_key(row: RowMapping) -> dict[str, Any]:
    return {"detector_visit_id": row["id"], "attempt": row["attempt"]}


def _count_crashes(connection: Connection, row_id: int) -> int:
    """Return how many attempts since the last outcome were lost: one that was reopened begins anew."""
    last = select(func.coalesce(func.max(OUTCOMES.c.attempt), 0)).where(
        OUTCOMES.c.detector_visit_id == row_id
    )
    lost = or_(ATTEMPTS.c.ended_at.is_(None), ATTEMPTS.c.error.startswith(f"{EngineLostError.code}:"))
    query = select(func.count()).where(
        ATTEMPTS.c.detector_visit_id == row_id, ATTEMPTS.c.attempt > last.scalar_subquery(), lost
    )
    return connection.execute(query).scalar_one()
