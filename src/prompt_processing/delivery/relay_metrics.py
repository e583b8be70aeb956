"""What is measured of a relay, for Prometheus."""

from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from prompt_processing.domain.errors import StoreError
from prompt_processing.ledger.port import Ledger, PendingEffect

_LOG: Final = structlog.get_logger(__name__)


class RelayMetrics:
    """Counts of one relay, and what is pending in its ledger.

    Parameters
    ----------
    ledger
        What is pending; asked each time that the metrics are.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._registry = registry = CollectorRegistry()
        self._tries = Counter(
            "relay_tries",
            "Effects that were tried, by effect and result",
            ["effect", "result"],
            registry=registry,
        )
        self._pending = Gauge(
            "relay_pending_effects", "Effects that are pending", ["effect"], registry=registry
        )
        self._oldest = Gauge(
            "relay_oldest_pending_seconds", "Age of the oldest pending effect", ["effect"], registry=registry
        )
        self._answers = Gauge("relay_ledger_answers", "Whether the ledger answers", registry=registry)

    def on_try(self, pending: PendingEffect, done: bool) -> None:
        """Count an effect that was tried."""
        self._tries.labels(pending.effect, "done" if done else "failed").inc()

    def is_ready(self) -> bool:
        """Tell whether the ledger answers."""
        return self._look()

    def page(self) -> bytes:
        """Return all of it in the text form of Prometheus."""
        self._look()
        return generate_latest(self._registry)

    def _look(self) -> bool:
        try:
            backlog = self._ledger.backlog()
        except StoreError as error:
            _LOG.warning("ledger does not answer", error=str(error))
            self._answers.set(0)
            return False
        # An effect of which nothing is left has no line any more.
        self._pending.clear()
        self._oldest.clear()
        for effect, found in backlog.items():
            self._pending.labels(effect).set(found.count)
            self._oldest.labels(effect).set(found.oldest)
        self._answers.set(1)
        return True
