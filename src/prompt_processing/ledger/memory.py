"""The ledger in memory, for tests and for trying things out."""

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from prompt_processing.domain.errors import StaleClaimError
from prompt_processing.domain.outcome import Delivery, Outcome, StageTimes
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


@dataclass(slots=True)
class _Entry:
    """The state of one detector-visit."""

    visit: DetectorVisit
    message_id: str
    claim: Claim | None = None
    lease_until: float = 0.0
    current: Outcome | None = None
    history: list[Outcome] = field(default_factory=list)
    attempts: list[AttemptRecord] = field(default_factory=list)


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
            entry.claim = Claim(visit.key, attempt, uuid.uuid4().hex, owner, delivery.message_id)
            entry.lease_until = now + lease
            entry.attempts.append(AttemptRecord(attempt, owner, now, None, None, StageTimes()))
            return entry.claim

    def check(self, claim: Claim) -> None:
        """Make sure that a claim still holds; see the port."""
        with self._lock:
            self._held(claim)

    def record_times(self, claim: Claim, times: StageTimes) -> None:
        """Store the stage times of an attempt; see the port."""
        with self._lock:
            attempts = self._held(claim).attempts
            attempts[-1] = replace(attempts[-1], times=StageTimes(dict(times.seconds), times.latency))

    def record_outcome(self, claim: Claim, outcome: Outcome) -> None:
        """Store the outcome and end the claim; see the port."""
        with self._lock:
            entry = self._entries.get(claim.visit)
            recorded = entry is not None and entry.claim is None and len(entry.attempts) == claim.attempt
            if recorded and entry is not None and entry.current == outcome:
                return
            entry = self._held(claim)
            entry.current = outcome
            entry.history.append(outcome)
            entry.attempts[-1] = replace(entry.attempts[-1], outcome=outcome, ended_at=self._now())
            entry.claim = None

    def release(self, claim: Claim) -> None:
        """Give a claim back; see the port."""
        with self._lock:
            try:
                entry = self._held(claim)
            except StaleClaimError:
                return
            entry.attempts[-1] = replace(entry.attempts[-1], ended_at=self._now())
            entry.claim = None

    def reopen(self, visit: DetectorVisitKey) -> bool:
        """Make the current outcome history; see the port."""
        with self._lock:
            entry = self._entries.get(visit)
            if entry is None or entry.current is None:
                return False
            entry.current = None
            return True

    def find(self, visit: DetectorVisitKey) -> DetectorVisitRecord | None:
        """Return what is known of one detector-visit; see the port."""
        with self._lock:
            entry = self._entries.get(visit)
            return None if entry is None else _record(entry)

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
                _record(entry)
                for key, entry in self._entries.items()
                if instrument in {None, key.instrument} and group in {None, key.group}
            ]

    def counts(self) -> dict[str, int]:
        """Return how many detector-visits have each current outcome; see the port."""
        with self._lock:
            labels = [_label(entry.current) for entry in self._entries.values()]
        return dict(sorted(Counter(labels).items()))

    def record_arrival(self, visit: DetectorVisitKey, pointer: ArrivalPointer) -> bool:
        """Note that a raw has been seen; see the port."""
        with self._lock:
            if pointer.key in self._arrivals:
                return False
            self._arrivals[pointer.key] = ArrivalRecord(visit, pointer)
            return True

    def arrivals(self, *, without_visit: bool = False) -> list[ArrivalRecord]:
        """Return the raws that were seen; see the port."""
        with self._lock:
            found = list(self._arrivals.values())
            return [record for record in found if not (without_visit and record.visit in self._entries)]

    def _held(self, claim: Claim) -> _Entry:
        entry = self._entries.get(claim.visit)
        if entry is None or entry.claim is None or entry.claim.token != claim.token:
            raise StaleClaimError(f"attempt {claim.attempt} of {claim.owner} no longer holds {claim.visit}")
        return entry


def _record(entry: _Entry) -> DetectorVisitRecord:
    return DetectorVisitRecord(entry.visit, entry.message_id, entry.current, tuple(entry.attempts))


def _label(outcome: Outcome | None) -> str:
    if outcome is None:
        return "queued"
    return str(outcome.status) if outcome.reason is None else f"{outcome.status}:{outcome.reason}"
