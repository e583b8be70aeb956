"""The worker: one message in, ACK or RETRY out."""

import logging
from collections.abc import Collection
from typing import Final, Protocol

import structlog

from prompt_processing.config import WorkerSettings
from prompt_processing.domain.errors import (
    DrainedError,
    EventError,
    GivenUpError,
    InternalError,
    MissingInputError,
    PermanentError,
    RetriableError,
)
from prompt_processing.domain.outcome import Delivery, Disposition, Outcome, Stopwatch
from prompt_processing.domain.visit import CancelVisit, DetectorVisit, WarmUp, parse_message
from prompt_processing.instruments.fan_out import check_camera
from prompt_processing.ledger.port import Busy, Claim, Done, Ledger
from prompt_processing.worker.report import Reporter

_LOG: Final = structlog.get_logger(__name__)


class Runner(Protocol):
    """Does the work on a detector-visit, in this process or in another one."""

    def run(self, visit: DetectorVisit, claim: Claim, watch: Stopwatch) -> Outcome:
        """Process a detector-visit; see `prompt_processing.worker.process.VisitProcessor.run`."""
        ...


class Worker:
    """Handles whatever brings a message: a queue, a push request, a test.

    Parameters
    ----------
    ledger
        Where detector-visits are claimed and outcomes recorded.
    runner
        What does the work.
    owner
        Name of this worker, unique among those that run now.
    settings
        Lease of a claim, and when a visit is given up.
    reporter
        Sends the metrics of what was skipped or has failed; without one there are none.
    instruments
        Whose messages are taken; those of every known instrument if there is none. A subscription has a
        filter for that, but not every queue does.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        runner: Runner,
        owner: str,
        settings: WorkerSettings,
        reporter: Reporter | None = None,
        instruments: Collection[str] = (),
    ) -> None:
        self._instruments = instruments
        self._reporter = reporter
        self._ledger = ledger
        self._runner = runner
        self._owner = owner
        self._settings = settings

    def handle(self, delivery: Delivery) -> Disposition:
        """Handle one delivery.

        Nothing is acknowledged before its outcome is stored, except a message that nobody could ever read.

        Parameters
        ----------
        delivery
            The message as it was delivered.

        Returns
        -------
        disposition
            ``ACK`` if the message is done with, ``RETRY`` if it is to be delivered again.
        """
        try:
            message = parse_message(delivery.body)
            check_camera(message)
        except EventError as error:
            _LOG.error("message cannot be read", message_id=delivery.message_id, error=str(error))
            return Disposition.ACK
        if self._instruments and message.instrument not in self._instruments:
            _LOG.warning("message of another instrument ignored", instrument=message.instrument)
            return Disposition.ACK
        try:
            match message:
                case WarmUp():
                    return Disposition.ACK
                case CancelVisit():
                    self._ledger.cancel(message.instrument, message.groupId)
                    _LOG.info("visit cancelled", instrument=message.instrument, group=message.groupId)
                    return Disposition.ACK
                case DetectorVisit():
                    return self._handle_visit(message, delivery)
        except RetriableError as error:
            _LOG.warning("message not handled, to be delivered again", error=str(error))
            return Disposition.RETRY

    def _handle_visit(self, visit: DetectorVisit, delivery: Delivery) -> Disposition:
        with structlog.contextvars.bound_contextvars(**visit.key._asdict()):
            claim = self._ledger.claim(visit, delivery, owner=self._owner, lease=self._settings.lease_s)
            match claim:
                case Done(outcome=outcome):
                    _LOG.info("visit is finished already", outcome=str(outcome))
                    return Disposition.ACK
                case Busy(owner=owner, message_id=message_id):
                    # Another message of the visit is a duplicate; this one again means that it was lost once.
                    _LOG.info("visit is being worked on", owner=owner)
                    again = message_id == delivery.message_id
                    return Disposition.RETRY if again else Disposition.ACK
                case Claim():
                    with structlog.contextvars.bound_contextvars(attempt=claim.attempt):
                        return self._attempt(visit, claim)

    def _attempt(self, visit: DetectorVisit, claim: Claim) -> Disposition:
        watch = Stopwatch()
        try:
            outcome = self._outcome(visit, claim, watch)
            self._ledger.record_times(claim, watch.times())
            report = self._reporter.make(visit, outcome, watch.times()) if self._reporter is not None else ""
            self._ledger.record_outcome(claim, outcome, report=report)
        except RetriableError as error:
            drained = isinstance(error, DrainedError)
            _LOG.log(
                logging.INFO if drained else logging.WARNING,
                "visit given back" if drained else "attempt failed, to be tried again",
                error=str(error),
            )
            self._ledger.release(claim, error, watch.times())
            return Disposition.RETRY
        _LOG.info("visit finished", outcome=str(outcome), detail=outcome.detail)
        if self._reporter is not None and report:
            self._reporter.send(claim, report)
        return Disposition.ACK

    def _outcome(self, visit: DetectorVisit, claim: Claim, watch: Stopwatch) -> Outcome:
        """Return how an attempt ends; an error that would only come again is an outcome."""
        if claim.crashes >= self._settings.max_crashes:
            text = f"{claim.crashes} attempts have ended with the loss of their engine"
            return Outcome.failed(GivenUpError(text))
        try:
            return self._runner.run(visit, claim, watch)
        except MissingInputError as error:
            return Outcome.skipped(error.code, str(error))
        except PermanentError as error:
            return Outcome.failed(error)
        except RetriableError:
            raise
        except Exception as error:  # noqa: BLE001 (nothing may stop the night)
            # A fault of ours: it is recorded and seen, and the next visit goes on.
            _LOG.exception("unexpected error")
            return Outcome.failed(InternalError(f"{type(error).__name__}: {error}"))
