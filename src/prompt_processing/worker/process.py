"""What happens to one detector-visit, in order: from the message to the outcome.

preload -> wait for the images -> run the pipeline -> decide -> APDB -> alerts -> metrics -> products.

Everything before the decision changes nothing in the world; everything after it repeats what was decided.
Each effect is safe to repeat, is done only while the claim holds, and is noted in the ledger when it is
complete: an attempt that ends anywhere, also between an effect and its note, is taken up by the next one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import structlog

from prompt_processing.apdb.port import Apdb
from prompt_processing.config import WorkerSettings
from prompt_processing.delivery.decision import Decision
from prompt_processing.delivery.port import AlertSink, Decisions, MetricsSink, ProductSink
from prompt_processing.domain.clock import Clock, from_mjd_tai, seconds_between
from prompt_processing.domain.errors import ConflictError, EventError, PermanentError, StoreError
from prompt_processing.domain.outcome import Outcome, Stopwatch
from prompt_processing.domain.visit import DetectorVisit
from prompt_processing.ledger.port import Claim, DecisionSummary, Ledger
from prompt_processing.worker.pixels import Pixels, Prepared
from prompt_processing.worker.wait import Images, ImageWaiter

_LOG: Final = structlog.get_logger(__name__)

STEPS: Final = ("decision", "apdb", "alerts", "metrics", "products")
"""Effects of a detector-visit, in their order, under the names by which the ledger notes them."""
PATIENCE: Final = 2.0
"""Time between two attempts to preload while a store does not answer [s]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """Everything that a detector-visit changes in the world, in the order in which it does."""

    ledger: Ledger
    decisions: Decisions
    apdb: Apdb
    alerts: AlertSink
    metrics: MetricsSink
    products: ProductSink


class VisitProcessor:
    """Takes one detector-visit through all its steps.

    Parameters
    ----------
    pixels
        Preloads and processes.
    waiter
        Waits for images.
    stores
        What is changed.
    clock
        Clock of the night.
    settings
        When a visit is too old.
    """

    def __init__(
        self, *, pixels: Pixels, waiter: ImageWaiter, stores: Stores, clock: Clock, settings: WorkerSettings
    ) -> None:
        self._pixels = pixels
        self._waiter = waiter
        self._stores = stores
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
        try:
            return self._run(visit, claim, watch)
        finally:
            if watch.latency is None:
                watch.latency = seconds_between(visit.predicted_shutter_close, self._clock.now())

    def _run(self, visit: DetectorVisit, claim: Claim, watch: Stopwatch) -> Outcome:
        decision = self._stores.decisions.find(visit)
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
                self._publish(decision, claim, watch)
                self._finish(prepared, decision, claim, watch)
        return Outcome.processed(*decision.info.flags)

    def _resume(self, visit: DetectorVisit, decision: Decision, claim: Claim, watch: Stopwatch) -> Outcome:
        """Do what is left to do of a decision; pixels are computed again only if products are missing."""
        if "decision" not in claim.steps:
            self._note(decision, claim)
        self._publish(decision, claim, watch)
        if "products" not in claim.steps:
            prepared = self._prepare(visit, watch, decision)
            if isinstance(prepared, Outcome):
                raise ConflictError(f"there is a decision on group {visit.groupId}, but now it is {prepared}")
            with prepared, _naming(decision.info.raws):
                prepared.process(decision.info.raws, watch)
                self._finish(prepared, decision, claim, watch)
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
            self._stores.ledger.check(claim)
            # A visit's rows are never there before its decision: these are of something else.
            if self._stores.apdb.contains(made.info.visit, made.info.detector):
                raise ConflictError(
                    f"the APDB has rows of visit {made.info.visit}, detector {made.info.detector}, that no "
                    f"decision on group {made.info.group} has made"
                )
            decision = self._stores.decisions.store(made)
            self._note(decision, claim)
        return decision

    def _note(self, decision: Decision, claim: Claim) -> None:
        """Note in the ledger that there is a decision, with what lists show of it."""
        made = DecisionSummary(decision.info.visit, len(decision.packets))
        self._stores.ledger.record_step(claim, "decision", made)

    def _publish(self, decision: Decision, claim: Claim, watch: Stopwatch) -> None:
        """Store the rows and send the alerts of a decision, and note the latency since the shutter closed."""
        if "apdb" not in claim.steps:
            with self._effect("apdb", claim, watch):
                self._stores.apdb.store(
                    decision.info.midpoint_mjd_tai,
                    decision.dia_object,
                    decision.dia_source,
                    decision.dia_forced_source,
                )
        if "alerts" not in claim.steps:
            with self._effect("alerts", claim, watch):
                self._stores.alerts.send(decision.packets)
            close = from_mjd_tai(decision.info.shutter_close_mjd_tai)
            watch.latency = seconds_between(close, self._clock.now())

    def _finish(self, prepared: Prepared, decision: Decision, claim: Claim, watch: Stopwatch) -> None:
        """Send the metrics and store the products."""
        if "metrics" not in claim.steps:
            with self._effect("metrics", claim, watch):
                self._send_metrics(prepared, decision, watch)
        with self._effect("products", claim, watch):
            self._stores.products.store(prepared.products(decision))

    def _send_metrics(self, prepared: Prepared, decision: Decision, watch: Stopwatch) -> None:
        """Send metrics; whatever goes wrong is logged and harms nothing else."""
        try:
            self._stores.metrics.send(prepared.metrics(decision, watch, self._clock.now()))
        except Exception:  # noqa: BLE001 (metrics never hurt processing)
            _LOG.exception("metrics not sent", visit=decision.info.visit)

    @contextmanager
    def _effect(self, step: str, claim: Claim, watch: Stopwatch) -> Iterator[None]:
        """Do one effect: with a claim that holds, and noted when it is complete."""
        with watch.stage(step):
            self._stores.ledger.check(claim)
            yield
            self._stores.ledger.record_step(claim, step)


@contextmanager
def _naming(keys: tuple[str, ...]) -> Iterator[None]:
    """Let every error that will not go away name the raw that it is about."""
    try:
        yield
    except PermanentError as error:
        if any(key.rpartition("/")[2] in str(error) for key in keys):
            raise
        raise type(error)(f"{keys[0]}: {error}") from error
