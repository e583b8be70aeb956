"""The ledger in an SQL database."""

from sqlalchemy import ColumnElement, Engine, and_, literal, select

from prompt_processing.domain.errors import ImageArrivedError, PromptError, StaleClaimError
from prompt_processing.domain.outcome import Delivery, Outcome, StageTimes
from prompt_processing.domain.raws import ArrivalPointer
from prompt_processing.domain.visit import DetectorVisit, DetectorVisitKey
from prompt_processing.ledger import claims, nights, pending, reading, schema
from prompt_processing.ledger.port import (
    DEFAULT_LEASE,
    REPORT_DELAY,
    ArrivalRecord,
    Backlog,
    Busy,
    Claim,
    DecisionSummary,
    DetectorVisitRecord,
    Done,
    NightSummary,
    Page,
    PendingEffect,
)
from prompt_processing.ledger.tables import ARRIVALS, DETECTOR_VISITS, STEPS, VISITS
from prompt_processing.storage import database


class SqlLedger:
    """A `~prompt_processing.ledger.port.Ledger` in SQLite or PostgreSQL; tables are made at first use.

    Times are those of the database, so workers with wrong clocks agree on leases.

    Parameters
    ----------
    engine
        The database, from `prompt_processing.storage.database.engine`.

    Raises
    ------
    RepositoryError
        If the tables are older or newer than this program.
    StoreError
        If the database does not answer.
    """

    def __init__(self, engine: Engine) -> None:
        schema.prepare(engine)
        self._engine = engine

    def claim(
        self, visit: DetectorVisit, delivery: Delivery, *, owner: str, lease: float = DEFAULT_LEASE
    ) -> Claim | Done | Busy:
        """Claim a detector-visit; see the port."""
        with database.writing(self._engine, "ledger: claim") as connection:
            row = claims.lock_or_add(connection, visit, delivery)
            found = claims.obstacle(connection, row, owner)
            if found is not None:
                return found
            claim = claims.new_claim(connection, row, owner, delivery.message_id)
            claims.open_claim(connection, row, claim, lease)
            return claim

    def check(self, claim: Claim) -> None:
        """Make sure that a claim still holds; see the port."""
        query = select(DETECTOR_VISITS.c.id).where(claims.matches_claim(claim))
        with database.reading(self._engine, "ledger: check") as connection:
            if connection.execute(query).first() is None:
                raise claims.stale(claim)

    def renew(self, claim: Claim, *, lease: float = DEFAULT_LEASE) -> None:
        """Give a sign of life; see the port."""
        update = DETECTOR_VISITS.update().where(claims.matches_claim(claim))
        with database.writing(self._engine, "ledger: lease") as connection:
            if not connection.execute(update.values(lease_until=claims.NOW + lease)).rowcount:
                raise claims.stale(claim)

    def record_step(self, claim: Claim, step: str, decision: DecisionSummary | None = None) -> None:
        """Note that a step is completed; see the port."""
        row = select(DETECTOR_VISITS.c.id, literal(step), literal(claim.attempt), claims.NOW)
        row = row.where(claims.matches_claim(claim)).with_for_update()
        names = ["detector_visit_id", "step", "attempt", "completed_at"]
        with database.writing(self._engine, "ledger: step") as connection:
            # One statement in place of two, because each costs a trip to the database.
            if not connection.execute(
                database.insert_new(connection, STEPS).from_select(names, row)
            ).rowcount:
                claims.held(connection, claim)
            if decision is not None:
                claims.store_decision(connection, claim, decision)

    def record_pending(self, claim: Claim, effect: str, *, error: str, payload: str = "") -> None:
        """Leave an effect to the relay; see the port."""
        with database.writing(self._engine, "ledger: pending effect") as connection:
            pending.add(connection, claims.held(connection, claim), effect, error, payload)

    def record_times(self, claim: Claim, times: StageTimes) -> None:
        """Store the stage times of an attempt; see the port."""
        with database.writing(self._engine, "ledger: stage times") as connection:
            claims.store_times(connection, claims.held(connection, claim), times)

    def record_outcome(self, claim: Claim, outcome: Outcome, *, report: str = "") -> None:
        """Store the outcome and end the claim; see the port."""
        with database.writing(self._engine, "ledger: outcome") as connection:
            row = claims.lock(connection, claim.visit)
            ended = row is not None and row["token"] is None and row["attempt"] == claim.attempt
            if row is not None and ended and claims.current_outcome(connection, row["id"]) == outcome:
                return
            if row is None or row["token"] != claim.token:
                raise claims.stale(claim)
            if claims.waits_for_image(outcome) and claims.has_arrival(connection, claim.visit):
                raise ImageArrivedError(f"an image of {claim.visit} came while it was given up: {outcome}")
            claims.store_outcome(connection, row, outcome)
            if report:
                pending.put_report(connection, row, report, REPORT_DELAY)
            claims.close_claim(connection, row)

    def pending(self, *, limit: int | None = None) -> list[PendingEffect]:
        """Return what is pending; see the port."""
        with database.reading(self._engine, "ledger: pending effects") as connection:
            return pending.listing(connection, limit)

    def backlog(self) -> dict[str, Backlog]:
        """Return how much is pending; see the port."""
        with database.reading(self._engine, "ledger: pending effects") as connection:
            return pending.backlog(connection)

    def take_pending(self, *, lease: float, only: PendingEffect | None = None) -> PendingEffect | None:
        """Take a pending effect; see the port."""
        with database.writing(self._engine, "ledger: take a pending effect") as connection:
            return pending.take(connection, lease, only)

    def settle(self, effect: PendingEffect, *, latency: float | None = None) -> None:
        """Note that a pending effect is done; see the port."""
        with database.writing(self._engine, "ledger: settle") as connection:
            pending.settle(connection, effect, latency)

    def postpone(self, effect: PendingEffect, error: str, *, delay: float) -> None:
        """Give a pending effect back; see the port."""
        with database.writing(self._engine, "ledger: postpone") as connection:
            pending.postpone(connection, effect, error, delay)

    def release(self, claim: Claim, error: PromptError, times: StageTimes) -> None:
        """Give a claim back; see the port."""
        with database.writing(self._engine, "ledger: release") as connection:
            try:
                row = claims.held(connection, claim)
            except StaleClaimError:
                return
            claims.store_times(connection, row, times)
            claims.close_claim(connection, row, f"{error.code}: {error}")

    def reopen(self, visit: DetectorVisitKey) -> bool:
        """Make the current outcome history; see the port."""
        with database.writing(self._engine, "ledger: reopen") as connection:
            row = claims.lock(connection, visit)
            return row is not None and claims.reopen(connection, row)

    def cancel(self, instrument: str, group: str) -> None:
        """Note that a group will not be observed; see the port."""
        with database.writing(self._engine, "ledger: cancel") as connection:
            claims.add_visit(connection, instrument, group)
            connection.execute(
                VISITS.update()
                .where(_is_visit(instrument, group), VISITS.c.cancelled_at.is_(None))
                .values(cancelled_at=claims.NOW)
            )

    def is_cancelled(self, instrument: str, group: str) -> bool:
        """Tell whether a group was cancelled; see the port."""
        query = select(VISITS.c.cancelled_at).where(_is_visit(instrument, group))
        with database.reading(self._engine, "ledger: cancelled") as connection:
            return connection.execute(query).scalar() is not None

    def stale(self, *, older_than: float = 0.0) -> list[DetectorVisitRecord]:
        """Return the detector-visits that nobody works on; see the port."""
        return self._records(reading.is_stale(older_than))

    def find(self, visit: DetectorVisitKey) -> DetectorVisitRecord | None:
        """Return what is known of one detector-visit; see the port."""
        found = self._records(claims.matches(DETECTOR_VISITS.c, visit._asdict()))
        return found[0] if found else None

    def history(self, visit: DetectorVisitKey) -> list[Outcome]:
        """Return every outcome of a detector-visit; see the port."""
        with database.reading(self._engine, "ledger: history") as connection:
            return reading.history(connection, visit)

    def detector_visits(
        self, *, instrument: str | None = None, group: str | None = None
    ) -> list[DetectorVisitRecord]:
        """Return detector-visits; see the port."""
        wanted = {"instrument": instrument, "group": group}
        given = {name: value for name, value in wanted.items() if value is not None}
        return self._records(claims.matches(DETECTOR_VISITS.c, given))

    def newest_night(self) -> int | None:
        """Return the newest night; see the port."""
        with database.reading(self._engine, "ledger: nights") as connection:
            return nights.newest(connection)

    def night(self, day_obs: int, *, after: int = 0, limit: int) -> Page:
        """Return a page of a night; see the port."""
        with database.reading(self._engine, "ledger: night") as connection:
            return nights.read_page(connection, day_obs, after, limit)

    def summary(self, day_obs: int) -> NightSummary:
        """Return what became of a night; see the port."""
        with database.reading(self._engine, "ledger: summary") as connection:
            return nights.summary(connection, day_obs)

    def counts(self, day_obs: int | None = None) -> dict[str, int]:
        """Return how many detector-visits have each current outcome; see the port."""
        with database.reading(self._engine, "ledger: counts") as connection:
            return reading.counts(connection, day_obs)

    def record_arrival(self, visit: DetectorVisitKey, pointer: ArrivalPointer) -> bool:
        """Note that a raw has been seen, and reopen its visit; see the port."""
        with database.writing(self._engine, "ledger: arrival") as connection:
            row = claims.lock(connection, visit)
            if row is None:
                claims.lock_absent(connection, visit)
                row = claims.lock(connection, visit)
            values = {**pointer.model_dump(), **visit._asdict()}
            insert = database.insert_new(connection, ARRIVALS).values(**values)
            if not connection.execute(insert).rowcount or row is None:
                return False
            outcome = claims.current_outcome(connection, row["id"])
            return claims.waits_for_image(outcome) and claims.reopen(connection, row)

    def arrivals(
        self, visit: DetectorVisitKey | None = None, *, without_visit: bool = False
    ) -> list[ArrivalRecord]:
        """Return the raws that were seen; see the port."""
        with database.reading(self._engine, "ledger: arrivals") as connection:
            return reading.arrivals(connection, visit, without_visit=without_visit)

    def _records(self, condition: ColumnElement[bool]) -> list[DetectorVisitRecord]:
        with database.reading(self._engine, "ledger: detector-visits") as connection:
            return reading.records(connection, condition)


def _is_visit(instrument: str, group: str) -> ColumnElement[bool]:
    return and_(VISITS.c.instrument == instrument, VISITS.c.group == group)
