"""Metrics of detector-visits that end without a decision: skipped, cancelled or failed."""

from typing import Final

import structlog

from prompt_processing.delivery.metrics import VisitMetrics
from prompt_processing.delivery.port import MetricsSink
from prompt_processing.domain.clock import Clock
from prompt_processing.domain.outcome import Outcome, StageTimes, Status
from prompt_processing.domain.visit import DetectorVisit
from prompt_processing.ledger.port import REPORT, Claim, Ledger, PendingEffect
from prompt_processing.worker.metrics import outcome_metrics

_LOG: Final = structlog.get_logger(__name__)


class Reporter:
    """Makes and sends these metrics; whatever goes wrong is logged, and the relay makes up for it.

    Parameters
    ----------
    sink
        Takes the metrics.
    ledger
        Keeps them with the outcome until they are sent.
    clock
        Clock of the night.
    """

    def __init__(self, sink: MetricsSink, ledger: Ledger, clock: Clock) -> None:
        self._sink = sink
        self._ledger = ledger
        self._clock = clock

    def make(self, visit: DetectorVisit, outcome: Outcome, times: StageTimes) -> str:
        """Return the metrics of an outcome, to be stored with it.

        Parameters
        ----------
        visit
            The unit of work.
        outcome
            How it ended.
        times
            Of the attempt.

        Returns
        -------
        report
            Empty if the visit was processed, for then its decision brings its metrics about.
        """
        if outcome.status is Status.PROCESSED:
            return ""
        try:
            return outcome_metrics(visit, outcome, times, self._clock.now()).to_json()
        except Exception:  # noqa: BLE001 (metrics never hurt processing)
            _LOG.exception("metrics not made")
            return ""

    def send(self, claim: Claim, report: str) -> None:
        """Send the metrics of an outcome that is stored.

        Parameters
        ----------
        claim
            With which the outcome was stored.
        report
            From `make`.
        """
        left = PendingEffect(claim.visit, REPORT, claim.attempt, report, "", since=0.0, tries=0, due_in=0.0)
        try:
            self._sink.send(VisitMetrics.from_json(report))
            self._ledger.settle(left)
        except Exception:  # noqa: BLE001 (metrics never hurt processing; the ledger has them)
            _LOG.warning("metrics left to the relay", exc_info=True)
