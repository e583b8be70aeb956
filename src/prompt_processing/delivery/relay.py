"""The relay: does the effects that were not possible when their visit was processed.

The alerts are in the decision, metrics stand in the ledger beside the pending effect. A relay takes one
effect at a time for a lease. It may die at any moment, and several may run: an effect that is done twice
changes nothing, because what is sent is the same each time.
"""

import threading
import time
from collections.abc import Callable
from typing import Final

import structlog

from prompt_processing.delivery.metrics import VisitMetrics
from prompt_processing.delivery.port import AlertSink, Decisions, MetricsSink
from prompt_processing.domain.clock import Clock, from_mjd_tai, seconds_between
from prompt_processing.domain.errors import PromptError, RepositoryError, StoreError
from prompt_processing.domain.visit import DetectorVisitKey
from prompt_processing.ledger.port import Ledger, PendingEffect

_LOG: Final = structlog.get_logger(__name__)

LEASE: Final = 300.0
"""How long an effect belongs to the relay that took it [s]."""
FIRST_DELAY: Final = 5.0
"""Time to the second try of an effect [s]; it doubles with each ..."""
LONGEST_DELAY: Final = 60.0
"""... up to this [s]."""
INTERVAL: Final = 2.0
"""Time between two looks for what is due [s]."""
STUCK: Final = 2 * LEASE
"""A relay that has not gone round for this time is to be started anew [s]."""


class Relay:
    """Does pending effects, the oldest first.

    Parameters
    ----------
    ledger
        What is pending.
    decisions
        Where the alerts stand.
    alerts
        Takes alerts.
    metrics
        Takes metrics.
    clock
        Clock of the night, for the latency of alerts.
    on_try
        Called with each effect that was tried, and whether it is done.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        decisions: Decisions,
        alerts: AlertSink,
        metrics: MetricsSink,
        clock: Clock,
        on_try: Callable[[PendingEffect, bool], None] = lambda *_: None,
    ) -> None:
        self._ledger = ledger
        self._decisions = decisions
        self._alerts = alerts
        self._metrics = metrics
        self._clock = clock
        self._on_try = on_try
        self._went_round = time.monotonic()

    def run(self, stop: threading.Event) -> None:
        """Do what is due, and wait for more, until told to stop.

        Parameters
        ----------
        stop
            Ends the work when it is set; an effect that has begun is finished.
        """
        failures = 0
        while not stop.is_set():
            self._went_round = time.monotonic()
            try:
                done = self.relay_next()
            except StoreError as error:
                _LOG.warning("ledger does not answer", error=str(error))
                done = False
            failures = failures + 1 if done is False else 0
            # Where one effect fails the next one probably does too: a store that is away is left in peace.
            if done is not True:
                stop.wait(INTERVAL if done is None else _delay(failures))

    def relay_next(self) -> bool | None:
        """Try the oldest effect that is due.

        Returns
        -------
        done
            Whether it is done; `None` if nothing is due.

        Raises
        ------
        StoreError
            If the ledger does not answer.
        """
        taken = self._ledger.take_pending(lease=LEASE)
        return None if taken is None else self._try(taken)

    def relay_all(self, limit: int | None = None) -> tuple[int, int]:
        """Try everything that is pending once, also what is not due yet.

        Parameters
        ----------
        limit
            Most that are tried.

        Returns
        -------
        done, failed
            How many are done, and how many not; those that another relay has are not counted.

        Raises
        ------
        StoreError
            If the ledger does not answer.
        """
        counts = {True: 0, False: 0}
        for pending in self._ledger.pending(limit=limit):
            taken = self._ledger.take_pending(lease=LEASE, only=pending)
            if taken is not None:
                counts[self._try(taken)] += 1
        return counts[True], counts[False]

    def is_alive(self) -> bool:
        """Tell whether `run` goes round."""
        return time.monotonic() - self._went_round < STUCK

    def _try(self, pending: PendingEffect) -> bool:
        with structlog.contextvars.bound_contextvars(**pending.visit._asdict(), effect=pending.effect):
            try:
                latency = self._do(pending)
            except Exception as error:  # noqa: BLE001 (one effect never stops the next one)
                known = isinstance(error, PromptError)
                text = f"{error.code if isinstance(error, PromptError) else type(error).__name__}: {error}"
                _LOG.warning("effect still not possible", error=text, tries=pending.tries, exc_info=not known)
                self._ledger.postpone(pending, text, delay=_delay(pending.tries))
                done = False
            else:
                self._ledger.settle(pending, latency=latency)
                _LOG.info("effect done", tries=pending.tries)
                done = True
        self._on_try(pending, done)
        return done

    def _do(self, pending: PendingEffect) -> float | None:
        """Do an effect; return the latency if it was the alerts [s]."""
        match pending.effect:
            case "alerts":
                return self._send_alerts(pending.visit)
            case "metrics" | "report" if pending.payload:
                self._metrics.send(VisitMetrics.from_json(pending.payload))
                return None
        raise RepositoryError(f"effect {pending.effect}: a newer program left it, or it has lost its payload")

    def _send_alerts(self, visit: DetectorVisitKey) -> float:
        record = self._ledger.find(visit)
        decision = None if record is None else self._decisions.find(record.visit)
        if decision is None:
            raise RepositoryError("the decision is gone, and with it the alerts")
        self._alerts.send(decision.packets)
        return seconds_between(from_mjd_tai(decision.info.shutter_close_mjd_tai), self._clock.now())


def _delay(tries: int) -> float:
    """Return the time to the next try after some that failed [s]."""
    # No larger power is needed, and a float has only so many.
    return min(FIRST_DELAY * 2.0 ** min(tries - 1, 10), LONGEST_DELAY)
