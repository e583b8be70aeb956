"""The ledger: which visit on which detector is whose, how it ended, and what arrived.

A detector-visit is *queued* from its first claim until an outcome is recorded. It has at most one current
outcome; outcomes that were reopened are kept as history. Whoever claims a detector-visit gets a token; once
somebody else has claimed it, nothing more can be written with the old token.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from prompt_processing.domain.errors import PromptError
from prompt_processing.domain.outcome import Delivery, Outcome, StageTimes
from prompt_processing.domain.raws import ArrivalPointer
from prompt_processing.domain.visit import DetectorVisit, DetectorVisitKey

DEFAULT_LEASE: Final = 60.0
"""How long a claim is respected without a sign of life [s]."""

REPORT: Final = "report"
"""Pending effect that belongs to an outcome without a decision: its metrics. It is no step of the visit."""

REPORT_DELAY: Final = 60.0
"""Time that who records an outcome has to send its metrics, before a relay does [s]."""

REOPENED_BY_IMAGE: Final = frozenset({"no-image", "cancelled"})
"""Reasons of skipped visits that are taken up again when their image comes after all."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to work on a detector-visit and to record how it ends."""

    visit: DetectorVisitKey
    attempt: int
    """Number of this attempt, from 1."""
    token: str
    """Proof of the claim; it is worth nothing once somebody else has claimed the visit."""
    owner: str
    message_id: str
    steps: frozenset[str] = frozenset()
    """Steps that earlier attempts have completed."""
    pending: frozenset[str] = frozenset()
    """Effects that an earlier attempt left to the relay."""
    crashes: int = 0
    """How many earlier attempts ended without saying why, or with an `EngineLostError`."""


@dataclass(frozen=True, slots=True)
class Done:
    """The detector-visit has an outcome already."""

    outcome: Outcome
    attempt: int


@dataclass(frozen=True, slots=True)
class Busy:
    """Somebody else is working on the detector-visit."""

    owner: str
    message_id: str
    """Delivery that the other one works on: with the same identifier this is a redelivery, with another one
    a duplicate."""


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One attempt at a detector-visit."""

    attempt: int
    owner: str
    started_at: float
    """UNIX time [s]."""
    ended_at: float | None
    """UNIX time [s]; `None` while it runs, or if its worker died."""
    outcome: Outcome | None
    """What the attempt recorded; `None` if it ended without."""
    error: str | None
    """``code: message`` of the error with which it ended without an outcome."""
    times: StageTimes


@dataclass(frozen=True, slots=True)
class DecisionSummary:
    """What lists show of a decision."""

    visit_id: int
    """Number of the visit."""
    n_alerts: int
    """Alerts that were decided."""


@dataclass(frozen=True, slots=True)
class DetectorVisitRecord:
    """All that the ledger knows of a detector-visit."""

    visit: DetectorVisit
    message_id: str
    outcome: Outcome | None
    """The current outcome; `None` while it is queued or being worked on."""
    attempts: tuple[AttemptRecord, ...]
    """All attempts, oldest first."""
    steps: tuple[str, ...] = ()
    """Steps that are completed, in order."""
    pending: tuple[str, ...] = ()
    """Effects that are left to the relay and not done yet."""
    cancelled: bool = False
    """Whether the group was cancelled."""
    working: str | None = None
    """Owner of the claim that is respected now; `None` if there is none."""
    decision: DecisionSummary | None = None
    """`None` if nothing was decided, or before the ledger kept this."""

    @property
    def times(self) -> StageTimes:
        """Stage times of the last attempt."""
        return self.attempts[-1].times if self.attempts else StageTimes()


@dataclass(frozen=True, slots=True)
class Page:
    """Some detector-visits of a night."""

    records: tuple[DetectorVisitRecord, ...]
    """In order of their first claim."""
    next: int | None
    """Where the next page begins; `None` if there can be no more."""


@dataclass(frozen=True, slots=True)
class NightSummary:
    """What became of the detector-visits of a night."""

    counts: Mapping[str, int]
    """Detector-visits by current outcome (``status`` or ``status:reason``); ``queued`` without one."""
    n_alerts: int
    """Alerts that were decided, as far as known."""
    unknown: int
    """Processed detector-visits whose number of alerts the ledger does not know."""


@dataclass(frozen=True, slots=True)
class ArrivalRecord:
    """A raw that arrived."""

    visit: DetectorVisitKey
    pointer: ArrivalPointer


@dataclass(frozen=True, slots=True)
class PendingEffect:
    """An effect of a detector-visit that is still to be done, by a relay."""

    visit: DetectorVisitKey
    effect: str
    attempt: int
    """Attempt that left it."""
    payload: str
    """What is to be sent, if that is not in the decision."""
    error: str
    """Why it was not possible the last time."""
    since: float
    """When it became pending [UNIX s]."""
    tries: int
    """How often a relay has taken it."""
    due_in: float
    """Time until a relay takes it by itself [s]; not positive if it is due."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """How much is pending of one effect."""

    count: int
    oldest: float
    """Age of the oldest [s]."""


class Ledger(Protocol):
    """What every ledger can do. All methods raise `StoreError` if the database does not answer."""

    def claim(
        self, visit: DetectorVisit, delivery: Delivery, *, owner: str, lease: float = DEFAULT_LEASE
    ) -> Claim | Done | Busy:
        """Claim a detector-visit before any effect; its message is stored at the first claim.

        A claim without an outcome is respected until its lease ends, unless it is of the same owner: an owner
        does one thing at a time, so its older claim is of a life that has ended. Taking over starts a new
        attempt.

        Parameters
        ----------
        visit
            The unit of work.
        delivery
            The message as it was delivered.
        owner
            Name of the worker, unique among those that run now.
        lease
            How long the claim is respected [s].
        """
        ...

    def check(self, claim: Claim) -> None:
        """Make sure that a claim still holds; to be called right before each effect.

        Raises
        ------
        StaleClaimError
            If somebody else has claimed the visit, or it has an outcome.
        """
        ...

    def renew(self, claim: Claim, *, lease: float = DEFAULT_LEASE) -> None:
        """Give a sign of life: the claim is respected for another lease from now on.

        Raises
        ------
        StaleClaimError
            If somebody else has claimed the visit, or it has an outcome.
        """
        ...

    def record_step(self, claim: Claim, step: str, decision: DecisionSummary | None = None) -> None:
        """Note that a step is completed; noting it again changes nothing.

        Parameters
        ----------
        claim
            The claim.
        step
            Name of the step.
        decision
            With the step ``decision``: what lists show of it. It is stored in the same transaction.

        Raises
        ------
        StaleClaimError
            If the claim does not hold any more.
        """
        ...

    def record_pending(self, claim: Claim, effect: str, *, error: str, payload: str = "") -> None:
        """Leave an effect to the relay; it is due at once. Leaving it again changes nothing.

        Parameters
        ----------
        claim
            The claim.
        effect
            Name of the effect.
        error
            Why it was not possible.
        payload
            What is to be sent, if that is not in the decision.

        Raises
        ------
        StaleClaimError
            If the claim does not hold any more.
        """
        ...

    def record_times(self, claim: Claim, times: StageTimes) -> None:
        """Store the stage times of an attempt, in place of those stored before.

        A latency that a relay has stored is not replaced by none.

        Raises
        ------
        StaleClaimError
            If the claim does not hold any more.
        """
        ...

    def record_outcome(self, claim: Claim, outcome: Outcome, *, report: str = "") -> None:
        """Store the outcome and end the claim. Recording the same outcome again changes nothing.

        Parameters
        ----------
        claim
            The claim.
        outcome
            How it ended.
        report
            Metrics of the outcome, to be sent when it is stored: they become the pending effect `REPORT` in
            the same transaction, in place of an older one. The caller has `REPORT_DELAY` to send them itself.

        Raises
        ------
        StaleClaimError
            If the claim does not hold any more.
        ImageArrivedError
            If the visit is skipped for a reason of `REOPENED_BY_IMAGE` and an arrival is noted for it, in the
            same transaction: an image that comes at the last moment is seen either here or by whoever notes
            its arrival.
        """
        ...

    def pending(self, *, limit: int | None = None) -> list[PendingEffect]:
        """Return what is pending, the oldest first, whether it is due or not.

        Parameters
        ----------
        limit
            Most that are returned; all if `None`.
        """
        ...

    def backlog(self) -> Mapping[str, Backlog]:
        """Return how much is pending, by effect."""
        ...

    def take_pending(self, *, lease: float, only: PendingEffect | None = None) -> PendingEffect | None:
        """Take the oldest pending effect that is due, so that no other relay does for a time.

        Parameters
        ----------
        lease
            For how long nobody else gets it [s].
        only
            Take this one and no other, also before it is due.

        Returns
        -------
        pending
            `None` if there is none, or another relay has it.
        """
        ...

    def settle(self, effect: PendingEffect, *, latency: float | None = None) -> None:
        """Note that a pending effect is done; noting it again changes nothing.

        Parameters
        ----------
        effect
            The effect.
        latency
            From shutter close to the alerts being out [s]: stored with the attempt that left the effect and
            all later ones, as far as they have none.
        """
        ...

    def postpone(self, effect: PendingEffect, error: str, *, delay: float) -> None:
        """Give a pending effect back that was not possible; nothing happens if another relay has taken it.

        Parameters
        ----------
        effect
            The effect.
        error
            Why it was not possible.
        delay
            Time until it is due again [s].
        """
        ...

    def release(self, claim: Claim, error: PromptError, times: StageTimes) -> None:
        """Give a claim back without an outcome, so that the visit can be claimed at once.

        Parameters
        ----------
        claim
            The claim; nothing happens if it does not hold any more.
        error
            Why; kept with the attempt.
        times
            Stage times so far; kept with the attempt.
        """
        ...

    def reopen(self, visit: DetectorVisitKey) -> bool:
        """Make the current outcome history, so that the visit can be claimed again.

        Returns
        -------
        reopened
            `False` if there is no such visit, or it has no outcome.
        """
        ...

    def cancel(self, instrument: str, group: str) -> None:
        """Note that a group will not be observed; safe to repeat, and before its visit is known."""
        ...

    def is_cancelled(self, instrument: str, group: str) -> bool:
        """Tell whether a group was cancelled."""
        ...

    def stale(self, *, older_than: float = 0.0) -> list[DetectorVisitRecord]:
        """Return the detector-visits that have no outcome and that nobody works on.

        Parameters
        ----------
        older_than
            Only those whose last claim ended, or that were reopened, longer ago than this [s].
        """
        ...

    def find(self, visit: DetectorVisitKey) -> DetectorVisitRecord | None:
        """Return what is known of one detector-visit."""
        ...

    def history(self, visit: DetectorVisitKey) -> list[Outcome]:
        """Return every outcome that a detector-visit ever had, oldest first."""
        ...

    def detector_visits(
        self, *, instrument: str | None = None, group: str | None = None
    ) -> list[DetectorVisitRecord]:
        """Return all detector-visits, or those of an instrument or a group, in order of their first claim."""
        ...

    def newest_night(self) -> int | None:
        """Return the newest night of any detector-visit, YYYYMMDD; `None` if there is none."""
        ...

    def night(self, day_obs: int, *, after: int = 0, limit: int) -> Page:
        """Return a page of the detector-visits of a night.

        The cost depends on the length of the page only.

        Parameters
        ----------
        day_obs
            The night, YYYYMMDD.
        after
            ``next`` of the page before; 0 for the first page.
        limit
            Most detector-visits of the page.
        """
        ...

    def summary(self, day_obs: int) -> NightSummary:
        """Return what became of the detector-visits of a night, YYYYMMDD."""
        ...

    def counts(self, day_obs: int | None = None) -> Mapping[str, int]:
        """Return how many detector-visits have each current outcome (``status`` or ``status:reason``).

        Those without one are counted as ``queued``.

        Parameters
        ----------
        day_obs
            Only those of this night, YYYYMMDD.
        """
        ...

    def record_arrival(self, visit: DetectorVisitKey, pointer: ArrivalPointer) -> bool:
        """Note that a raw has been seen, and reopen its visit if that was given up for want of an image.

        Noting and reopening are one transaction. A visit is reopened by each raw at most once.

        Returns
        -------
        reopened
            Whether the visit was reopened now: its message is to be published again.
        """
        ...

    def arrivals(
        self, visit: DetectorVisitKey | None = None, *, without_visit: bool = False
    ) -> list[ArrivalRecord]:
        """Return the raws that were seen, in order.

        Parameters
        ----------
        visit
            Only those of this detector-visit.
        without_visit
            Only those whose visit nobody has announced.
        """
        ...
