"""The worker: one message in, ACK or RETRY out."""

from typing import Final

import structlog

from prompt_processing.domain.errors import (
    EventError,
    InternalError,
    MissingInputError,
    PermanentError,
    RetriableError,
)
from prompt_processing.domain.outcome import Delivery, Disposition, Outcome, Stopwatch
from prompt_processing.domain.visit import DetectorVisit, parse_message
from prompt_processing.ledger.port import Busy, Claim, Done, Ledger
from prompt_processing.worker.process import Process

_LOG: Final = structlog.get_logger(__name__)


class Worker:
    """Handles whatever brings a message: a queue, a push request, the night player, a test.

    Parameters
    ----------
    ledger
        Where detector-visits are claimed and outcomes recorded.
    process
        What is done with one.
    owner
        Name of this worker, unique among those that run now.
    """

    def __init__(self, *, ledger: Ledger, process: Process, owner: str) -> None:
        self._ledger = ledger
        self._process = process
        self._owner = owner

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
        except EventError as error:
            _LOG.error("message cannot be read", message_id=delivery.message_id, error=str(error))
            return Disposition.ACK
        if not isinstance(message, DetectorVisit):
            _LOG.info("message ignored", message_id=delivery.message_id, kind=message.kind)
            return Disposition.ACK
        with structlog.contextvars.bound_contextvars(
            instrument=message.instrument, group=message.groupId, detector=message.detector
        ):
            return self._handle_visit(message, delivery)

    def _handle_visit(self, visit: DetectorVisit, delivery: Delivery) -> Disposition:
        try:
            claim = self._ledger.claim(visit, delivery, owner=self._owner)
        except RetriableError as error:
            _LOG.warning("visit not claimed", error=str(error))
            return Disposition.RETRY
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
            self._ledger.record_outcome(claim, outcome)
        except RetriableError as error:
            _LOG.warning("attempt failed, to be tried again", error=str(error))
            self._ledger.release(claim)
            return Disposition.RETRY
        _LOG.info("visit finished", outcome=str(outcome), detail=outcome.detail)
        return Disposition.ACK

    def _outcome(self, visit: DetectorVisit, claim: Claim, watch: Stopwatch) -> Outcome:
        """Return how an attempt ends; an error that would only come again is an outcome."""
        try:
            return self._process.run(visit, claim, watch)
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
