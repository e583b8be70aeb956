"""What happens to one detector-visit, in order: from the message to the outcome.

preload -> wait for the images -> run the pipeline -> decide -> APDB -> alerts -> metrics -> products.
(The effects behind the decision are listed in `prompt_processing.worker.effects`.)

Everything before the decision changes nothing in the world; everything after it repeats what was decided.
Each effect is safe to repeat, is done only while the claim holds, and is noted in the ledger when it is
complete: an attempt that ends anywhere, also between an effect and its note, is taken up by the next one.
An effect that is not required and fails is noted as pending: the relay makes up for it, and the visit ends.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final

import structlog

from prompt_processing.apdb.port import Apdb
from prompt_processing.config import WorkerSettings
from prompt_processing.delivery.decision import Decision
from prompt_processing.delivery.port import Decisions
from prompt_processing.domain.clock import Clock, seconds_between
from prompt_processing.domain.errors import ConflictError, EventError, PermanentError, StoreError
from prompt_processing.domain.outcome import Outcome, Status, Stopwatch
from prompt_processing.domain.visit import DetectorVisit
from prompt_processing.ledger.port import Claim, DecisionSummary, Ledger
from prompt_processing.worker.effects import ALERTS, Effect, Work, carry_out
from prompt_processing.worker.pixels import Pixels, Prepared
from prompt_processing.worker.wait import Images, ImageWaiter

_LOG: Final = structlog.get_logger(__name__)

PATIENCE: Final = 2.0
"""Time between two attempts to preload while a store does not answer [s]."""


class VisitProcessor:
    """Takes one detector-visit through all its steps.

    Parameters
    ----------
    pixels
        Preloads and processes.
    waiter
        Waits for images.
    ledger
        Where claims are checked, and completed steps noted.
    decisions
        Where decisions are stored.
    apdb
        Tells whether a visit has rows already.
    effects
        What a decision brings about, in this order.
    clock
        Clock of the night.
    settings
        When a visit is too old.
    """

    def __init__(
        self,
        *,
        pixels: Pixels,
        waiter: ImageWaiter,
        ledger: Ledger,
        decisions: Decisions,
        apdb: Apdb,
        effects: Sequence[Effect],
        clock: Clock,
        settings: WorkerSettings,
    ) -> None:
        self._pixels = pixels
        self._waiter = waiter
        self._ledger = ledger
        self._decisions = decisions
        self._apdb = apdb
        self._effects = effects
        self._clock = clock
        self._settings = settings

    def run(self, visit: DetectorVisit, claim: Claim, watch: Stopwatch) -> Outcome:
        """Process a detector-visit, or finish what an earlier attempt has decided.

        Parameters
        ----------
        visit
            The unit of work.
        claim
            The right to do it; checked right before each effect.
        watch
            Takes the stage times and the latency, also of an attempt that fails.

        Returns
        -------
        outcome
            ``processed``, or ``skipped`` with the reason.

        Raises
        ------
        PromptError
            If it cannot be processed: now (a `RetriableError`) or ever (a `PermanentError`).
        """
        alerts_pending = False
        try:
            outcome = self._run(visit, claim, watch)
            # Alerts that are still to be sent have no latency yet: the relay will know it.
            alerts_pending = outcome.status is Status.PROCESSED and ALERTS not in claim.steps
            return outcome
        finally:
            if watch.latency is None and not alerts_pending:
                watch.latency = seconds_between(visit.predicted_shutter_close, self._clock.now())

    def _run(self, visit: DetectorVisit, claim: Claim, watch: Stopwatch) -> Outcome:
        decision = self._decisions.find(visit)
        if decision is not None:
            return self._resume(visit, decision, claim, watch)
        self._check_start(visit)
        if self._is_expired(visit):
            age = seconds_between(visit.published, self._clock.now())
            return Outcome.skipped("expired", f"announced {age:.0f} s ago")
        prepared = self._prepare(visit, watch)
        if isinstance(prepared, Outcome):
            return prepared
        with prepared:
            with watch.stage("wait"):
                images = self._waiter.wait(visit)
            if isinstance(images, Outcome):
                return images
            keys = tuple(pointer.key for pointer in images.pointers)
            with _naming(keys):
                prepared.process(keys, watch)
                decision = self._decide(prepared, images, claim, watch)
                self._carry_out(Work(decision, lambda: prepared, watch, self._clock), claim, watch)
        return Outcome.processed(*decision.info.flags)

    def _resume(self, visit: DetectorVisit, decision: Decision, claim: Claim, watch: Stopwatch) -> Outcome:
        """Do what is left to do of a decision; pixels are computed again only if an effect asks for them."""
        if "decision" not in claim.steps:
            self._note(decision, claim)
        with ExitStack() as stack, _naming(decision.info.raws):

            def pixels() -> Prepared:
                prepared = self._prepare(visit, watch, decision)
                if isinstance(prepared, Outcome):
                    raise ConflictError(
                        f"there is a decision on group {visit.groupId}, but now it is {prepared}"
                    )
                stack.enter_context(prepared)
                prepared.process(decision.info.raws, watch)
                return prepared

            self._carry_out(Work(decision, pixels, watch, self._clock), claim, watch)
        return Outcome.processed(*decision.info.flags)

    def _check_start(self, visit: DetectorVisit) -> None:
        """Refuse a visit that is so far ahead that waiting for it would hold a worker for nothing."""
        ahead = seconds_between(self._clock.now(), visit.predicted_shutter_close)
        if ahead > self._settings.expiry_s:
            limit = self._settings.expiry_s
            raise EventError(f"startTime: the shutter is to close in {ahead:.0f} s (limit {limit:.0f} s)")

    def _is_expired(self, visit: DetectorVisit) -> bool:
        """Tell whether a visit is too old; it never is when its image is there, however late it came."""
        age = seconds_between(visit.published, self._clock.now())
        return age > self._settings.expiry_s and self._waiter.find(visit) is None

    def _prepare(
        self, visit: DetectorVisit, watch: Stopwatch, decision: Decision | None = None
    ) -> Prepared | Outcome:
        """Prepare a visit; a store that does not answer is asked again until the shutter closes."""
        while True:
            try:
                return self._pixels.prepare(visit, watch, decision)
            except StoreError as error:
                left = seconds_between(self._clock.now(), visit.predicted_shutter_close)
                if left < PATIENCE:
                    raise
                _LOG.warning("preload not possible, trying again", seconds_left=left, error=str(error))
                self._waiter.pause(PATIENCE)

    def _decide(self, prepared: Prepared, images: Images, claim: Claim, watch: Stopwatch) -> Decision:
        """Make the decision, and return the one that stands: this one, or one that came before."""
        with watch.stage("decide"):
            made = prepared.decide(claim.attempt, images.flags, self._clock.now())
            self._ledger.check(claim)
            # A visit's rows are never there before its decision: these are of something else.
            if self._apdb.contains(made.info.visit, made.info.detector):
                raise ConflictError(
                    f"the APDB has rows of visit {made.info.visit}, detector {made.info.detector}, that no "
                    f"decision on group {made.info.group} has made"
                )
            decision = self._decisions.store(made)
            self._note(decision, claim)
        return decision

    def _note(self, decision: Decision, claim: Claim) -> None:
        """Note in the ledger that there is a decision, with what lists show of it."""
        made = DecisionSummary(decision.info.visit, len(decision.packets))
        self._ledger.record_step(claim, "decision", made)

    def _carry_out(self, work: Work, claim: Claim, watch: Stopwatch) -> None:
        """Do the effects of a decision, in their order, as far as earlier attempts have not done them."""
        for effect in self._effects:
            if effect.name in claim.steps | claim.pending:
                continue
            with watch.stage(effect.name):
                self._ledger.check(claim)
                error = carry_out(effect, work)
                if error is None:
                    self._ledger.record_step(claim, effect.name)
                else:
                    self._ledger.record_pending(claim, effect.name, error=error, payload=effect.payload(work))


@contextmanager
def _naming(keys: tuple[str, ...]) -> Iterator[None]:
    """Let every error that will not go away name the raw that it is about."""
    try:
        yield
    except PermanentError as error:
        if any(key.rpartition("/")[2] in str(error) for key in keys):
            raise
        raise type(error)(f"{keys[0]}: {error}") from error
