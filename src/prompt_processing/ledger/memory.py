"""The ledger in memory, for tests and for trying things out."""

import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from prompt_processing.domain.errors import EngineLostError, ImageArrivedError, PromptError, StaleClaimError
from prompt_processing.domain.outcome import Delivery, Outcome, StageTimes, Status
from prompt_processing.domain.raws import ArrivalPointer
from prompt_processing.domain.visit import DetectorVisit, DetectorVisitKey
from prompt_processing.ledger.port import (
    DEFAULT_LEASE,
    REOPENED_BY_IMAGE,
    REPORT,
    REPORT_DELAY,
    ArrivalRecord,
    AttemptRecord,
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


@dataclass(slots=True)
class _Entry:
    """The state of one detector-visit."""

    visit: DetectorVisit
    message_id: str
    claim: Claim | None = None
    lease_until: float = 0.0
    freed_at: float = 0.0
    """When the last claim ended, or the outcome was made history."""
    steps: dict[str, None] = field(default_factory=dict)
    """Completed steps, in order."""
    decision: DecisionSummary | None = None
    pending: "dict[str, _Pending]" = field(default_factory=dict)
    """What is left to the relay, by effect."""
    current: Outcome | None = None
    history: list[Outcome] = field(default_factory=list)
    attempts: list[AttemptRecord] = field(default_factory=list)


@dataclass(slots=True)
class _Pending:
    """An effect that is left to the relay."""

    effect: PendingEffect
    due_at: float
    lease_until: float = 0.0

    def seen(self, now: float) -> PendingEffect:
        """Return it as it is now."""
        return replace(self.effect, due_in=self.due_at - now)


class MemoryLedger:
    """A `~prompt_processing.ledger.port.Ledger` that forgets everything when the process ends.

    Parameters
    ----------
    now
        The clock of the leases: UNIX time [s].
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._lock = threading.RLock()
        self._entries: dict[DetectorVisitKey, _Entry] = {}
        self._arrivals: dict[str, ArrivalRecord] = {}
        self._cancelled: set[tuple[str, str]] = set()

    def claim(
        self, visit: DetectorVisit, delivery: Delivery, *, owner: str, lease: float = DEFAULT_LEASE
    ) -> Claim | Done | Busy:
        """Claim a detector-visit; see the port."""
        with self._lock:
            now = self._now()
            entry = self._entries.setdefault(visit.key, _Entry(visit, delivery.message_id))
            if entry.current is not None:
                return Done(entry.current, len(entry.attempts))
            standing = entry.claim
            if standing is not None and standing.owner != owner and entry.lease_until > now:
                return Busy(standing.owner, standing.message_id)
            attempt = len(entry.attempts) + 1
            entry.claim = Claim(
                visit=visit.key,
                attempt=attempt,
                token=uuid.uuid4().hex,
                owner=owner,
                message_id=delivery.message_id,
                steps=frozenset(entry.steps),
                pending=frozenset(entry.pending),
                crashes=_count_crashes(entry),
            )
            entry.lease_until = now + lease
            entry.attempts.append(AttemptRecord(attempt, owner, now, None, None, None, StageTimes()))
            return entry.claim

    def check(self, claim: Claim) -> None:
        """Make sure that a claim still holds; see the port."""
        with self._lock:
            self._held(claim)

    def renew(self, claim: Claim, *, lease: float = DEFAULT_LEASE) -> None:
        """Give a sign of life; see the port."""
        with self._lock:
            self._held(claim).lease_until = self._now() + lease

    def record_step(self, claim: Claim, step: str, decision: DecisionSummary | None = None) -> None:
        """Note that a step is completed; see the port."""
        with self._lock:
            entry = self._held(claim)
            entry.steps.setdefault(step)
            entry.decision = decision or entry.decision

    def record_pending(self, claim: Claim, effect: str, *, error: str, payload: str = "") -> None:
        """Leave an effect to the relay; see the port."""
        with self._lock:
            entry = self._held(claim)
            entry.pending.setdefault(effect, self._left(claim, effect, error, payload))

    def record_times(self, claim: Claim, times: StageTimes) -> None:
        """Store the stage times of an attempt; see the port."""
        with self._lock:
            _store_times(self._held(claim), times)

    def record_outcome(self, claim: Claim, outcome: Outcome, *, report: str = "") -> None:
        """Store the outcome and end the claim; see the port."""
        with self._lock:
            entry = self._entries.get(claim.visit)
            recorded = entry is not None and entry.claim is None and len(entry.attempts) == claim.attempt
            if recorded and entry is not None and entry.current == outcome:
                return
            entry = self._held(claim)
            if _waits_for_image(outcome) and any(
                arrival.visit == claim.visit for arrival in self._arrivals.values()
            ):
                raise ImageArrivedError(f"an image of {claim.visit} came while it was given up: {outcome}")
            entry.current = outcome
            entry.history.append(outcome)
            entry.attempts[-1] = replace(entry.attempts[-1], outcome=outcome)
            if report:
                entry.pending[REPORT] = self._left(claim, REPORT, "", report, REPORT_DELAY)
            self._close(entry)

    def pending(self, *, limit: int | None = None) -> list[PendingEffect]:
        """Return what is pending; see the port."""
        with self._lock:
            return [left.seen(self._now()) for left in self._all_pending()[:limit]]

    def backlog(self) -> dict[str, Backlog]:
        """Return how much is pending; see the port."""
        with self._lock:
            ages = defaultdict(list)
            for left in self._all_pending():
                ages[left.effect.effect].append(self._now() - left.effect.since)
            return {effect: Backlog(len(found), max(found)) for effect, found in sorted(ages.items())}

    def take_pending(self, *, lease: float, only: PendingEffect | None = None) -> PendingEffect | None:
        """Take a pending effect; see the port."""
        with self._lock:
            now = self._now()
            for left in self._all_pending():
                wanted = left.due_at <= now if only is None else _is_same(left.effect, only)
                if wanted and left.lease_until <= now:
                    left.effect = replace(left.effect, tries=left.effect.tries + 1)
                    left.lease_until = now + lease
                    return left.seen(now)
            return None

    def settle(self, effect: PendingEffect, *, latency: float | None = None) -> None:
        """Note that a pending effect is done; see the port."""
        with self._lock:
            entry = self._entries[effect.visit]
            if effect.effect != REPORT:
                entry.steps.setdefault(effect.effect)
            for index, attempt in enumerate(entry.attempts):
                if attempt.attempt >= effect.attempt and attempt.times.latency is None:
                    entry.attempts[index] = replace(attempt, times=replace(attempt.times, latency=latency))
            standing = entry.pending.get(effect.effect)
            # A report of a later outcome may stand here by now.
            if standing is not None and _is_same(standing.effect, effect):
                del entry.pending[effect.effect]

    def postpone(self, effect: PendingEffect, error: str, *, delay: float) -> None:
        """Give a pending effect back; see the port."""
        with self._lock:
            left = self._entries[effect.visit].pending.get(effect.effect)
            if left is None or not _is_same(left.effect, effect) or left.effect.tries != effect.tries:
                return
            left.effect = replace(left.effect, error=error)
            left.due_at, left.lease_until = self._now() + delay, 0.0

    def release(self, claim: Claim, error: PromptError, times: StageTimes) -> None:
        """Give a claim back; see the port."""
        with self._lock:
            try:
                entry = self._held(claim)
            except StaleClaimError:
                return
            _store_times(entry, times)
            entry.attempts[-1] = replace(entry.attempts[-1], error=f"{error.code}: {error}")
            self._close(entry)

    def reopen(self, visit: DetectorVisitKey) -> bool:
        """Make the current outcome history; see the port."""
        with self._lock:
            entry = self._entries.get(visit)
            if entry is None or entry.current is None:
                return False
            entry.current = None
            entry.freed_at = self._now()
            return True

    def cancel(self, instrument: str, group: str) -> None:
        """Note that a group will not be observed; see the port."""
        with self._lock:
            self._cancelled.add((instrument, group))

    def is_cancelled(self, instrument: str, group: str) -> bool:
        """Tell whether a group was cancelled; see the port."""
        with self._lock:
            return (instrument, group) in self._cancelled

    def stale(self, *, older_than: float = 0.0) -> list[DetectorVisitRecord]:
        """Return the detector-visits that nobody works on; see the port."""
        with self._lock:
            limit = self._now() - older_than
            return [
                self._record(entry)
                for entry in self._entries.values()
                if entry.current is None
                and (entry.freed_at if entry.claim is None else entry.lease_until) <= limit
            ]

    def find(self, visit: DetectorVisitKey) -> DetectorVisitRecord | None:
        """Return what is known of one detector-visit; see the port."""
        with self._lock:
            entry = self._entries.get(visit)
            return None if entry is None else self._record(entry)

    def history(self, visit: DetectorVisitKey) -> list[Outcome]:
        """Return every outcome of a detector-visit; see the port."""
        with self._lock:
            entry = self._entries.get(visit)
            return [] if entry is None else list(entry.history)

    def detector_visits(
        self, *, instrument: str | None = None, group: str | None = None
    ) -> list[DetectorVisitRecord]:
        """Return detector-visits; see the port."""
        with self._lock:
            return [
                self._record(entry)
                for key, entry in self._entries.items()
                if instrument in {None, key.instrument} and group in {None, key.group}
            ]

    def newest_night(self) -> int | None:
        """Return the newest night; see the port."""
        with self._lock:
            return max((entry.visit.day_obs for entry in self._entries.values()), default=None)

    def night(self, day_obs: int, *, after: int = 0, limit: int) -> Page:
        """Return a page of a night; see the port."""
        with self._lock:
            numbered = [
                (number, self._record(entry))
                for number, entry in enumerate(self._entries.values(), start=1)
                if number > after and entry.visit.day_obs == day_obs
            ][:limit]
        last = numbered[-1][0] if len(numbered) == limit else None
        return Page(tuple(record for _, record in numbered), last)

    def summary(self, day_obs: int) -> NightSummary:
        """Return what became of a night; see the port."""
        with self._lock:
            night = [entry for entry in self._entries.values() if entry.visit.day_obs == day_obs]
            decisions = [entry.decision for entry in night if entry.decision is not None]
            processed = [entry for entry in night if _label(entry.current) == Status.PROCESSED]
            return NightSummary(
                counts=_count(night),
                n_alerts=sum(decision.n_alerts for decision in decisions),
                unknown=sum(entry.decision is None for entry in processed),
            )

    def counts(self, day_obs: int | None = None) -> dict[str, int]:
        """Return how many detector-visits have each current outcome; see the port."""
        with self._lock:
            return _count(entry for entry in self._entries.values() if day_obs in {None, entry.visit.day_obs})

    def record_arrival(self, visit: DetectorVisitKey, pointer: ArrivalPointer) -> bool:
        """Note that a raw has been seen; see the port."""
        with self._lock:
            if pointer.key in self._arrivals:
                return False
            self._arrivals[pointer.key] = ArrivalRecord(visit, pointer)
            entry = self._entries.get(visit)
            return entry is not None and _waits_for_image(entry.current) and self.reopen(visit)

    def arrivals(
        self, visit: DetectorVisitKey | None = None, *, without_visit: bool = False
    ) -> list[ArrivalRecord]:
        """Return the raws that were seen; see the port."""
        with self._lock:
            found = [record for record in self._arrivals.values() if visit in {None, record.visit}]
            return [record for record in found if not (without_visit and record.visit in self._entries)]

    def _left(self, claim: Claim, effect: str, error: str, payload: str, delay: float = 0.0) -> _Pending:
        now = self._now()
        left = PendingEffect(claim.visit, effect, claim.attempt, payload, error, now, tries=0, due_in=delay)
        return _Pending(left, now + delay)

    def _all_pending(self) -> list[_Pending]:
        """Return what is left to the relay, the oldest first."""
        found = [left for entry in self._entries.values() for left in entry.pending.values()]
        return sorted(found, key=lambda left: left.effect.since)

    def _held(self, claim: Claim) -> _Entry:
        entry = self._entries.get(claim.visit)
        if entry is None or entry.claim is None or entry.claim.token != claim.token:
            raise StaleClaimError(f"attempt {claim.attempt} of {claim.owner} no longer holds {claim.visit}")
        return entry

    def _close(self, entry: _Entry) -> None:
        """End the claim and its attempt."""
        entry.claim = None
        entry.freed_at = self._now()
        entry.attempts[-1] = replace(entry.attempts[-1], ended_at=entry.freed_at)

    def _record(self, entry: _Entry) -> DetectorVisitRecord:
        alive = entry.claim is not None and entry.lease_until > self._now()
        return DetectorVisitRecord(
            visit=entry.visit,
            message_id=entry.message_id,
            outcome=entry.current,
            attempts=tuple(entry.attempts),
            steps=tuple(entry.steps),
            pending=tuple(entry.pending),
            cancelled=(entry.visit.instrument, entry.visit.groupId) in self._cancelled,
            working=entry.claim.owner if entry.claim is not None and alive else None,
            decision=entry.decision,
        )


def _is_same(one: PendingEffect, other: PendingEffect) -> bool:
    return (one.visit, one.effect, one.attempt) == (other.visit, other.effect, other.attempt)


def _store_times(entry: _Entry, times: StageTimes) -> None:
    # A relay may have sent the alerts meanwhile, and knows the latency.
    latency = entry.attempts[-1].times.latency if times.latency is None else times.latency
    kept = StageTimes(dict(times.seconds), latency)
    entry.attempts[-1] = replace(entry.attempts[-1], times=kept)


def _count_crashes(entry: _Entry) -> int:
    """Return how many attempts since the last outcome were lost: one that was reopened begins anew."""
    crashes = 0
    for attempt in entry.attempts:
        if attempt.outcome is not None:
            crashes = 0
        elif attempt.ended_at is None or (attempt.error or "").startswith(f"{EngineLostError.code}:"):
            crashes += 1
    return crashes


def _waits_for_image(outcome: Outcome | None) -> bool:
    return outcome is not None and outcome.status is Status.SKIPPED and outcome.reason in REOPENED_BY_IMAGE


def _count(entries: Iterable[_Entry]) -> dict[str, int]:
    return dict(sorted(Counter(_label(entry.current) for entry in entries).items()))


def _label(outcome: Outcome | None) -> str:
    if outcome is None:
        return "queued"
    return str(outcome.status) if outcome.reason is None else f"{outcome.status}:{outcome.reason}"
