"""What a decision brings about: an ordered list of effects, each of them required or not.

A required effect holds the outcome until it is done. One that is not required, and not possible, is left to
the relay (`prompt_processing.delivery.relay`), and the visit ends without it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import structlog

from prompt_processing.apdb.port import Apdb
from prompt_processing.delivery.decision import Decision
from prompt_processing.delivery.metrics import VisitMetrics
from prompt_processing.delivery.port import AlertSink, MetricsSink, ProductSink
from prompt_processing.domain.clock import Clock, from_mjd_tai, seconds_between
from prompt_processing.domain.errors import PermanentError, PromptError
from prompt_processing.domain.outcome import Stopwatch
from prompt_processing.worker.pixels import Prepared

_LOG: Final = structlog.get_logger(__name__)

STEPS: Final = ("decision", "apdb", "alerts", "metrics", "products")
"""Steps of a detector-visit, in their order, under the names by which the ledger notes them."""
ALERTS: Final = "alerts"


class Work:
    """A decision that is to be carried out, and the pixels that belong to it.

    Parameters
    ----------
    decision
        The decision.
    pixels
        Returns the visit, processed. A resumed attempt computes it now, so it is asked only if it is needed.
    watch
        Stage times so far; takes the latency.
    clock
        Clock of the night.
    """

    def __init__(
        self, decision: Decision, pixels: Callable[[], Prepared], watch: Stopwatch, clock: Clock
    ) -> None:
        self.decision = decision
        self._pixels = pixels
        self._watch = watch
        self._clock = clock

    @cached_property
    def visit(self) -> Prepared:
        """The visit, processed."""
        return self._pixels()

    @cached_property
    def metrics(self) -> VisitMetrics | None:
        """Metrics as they are when they are first asked for; `None` if they cannot be made."""
        visit = self.visit
        try:
            return visit.metrics(self.decision, self._watch, self._clock.now())
        except Exception:  # noqa: BLE001 (metrics never hurt processing)
            _LOG.exception("metrics not made", visit=self.decision.info.visit)
            return None

    def note_latency(self) -> None:
        """Note that the alerts are out."""
        close = from_mjd_tai(self.decision.info.shutter_close_mjd_tai)
        self._watch.latency = seconds_between(close, self._clock.now())


@dataclass(frozen=True, slots=True)
class Effect:
    """One thing that a decision brings about; it is safe to repeat."""

    name: str
    """Name by which the ledger notes it, one of `STEPS`."""
    run: Callable[[Work], None]
    """Does it."""
    required: bool
    """Whether there is no outcome without it."""
    payload: Callable[[Work], str] = lambda _: ""
    """Returns what the relay has to send and cannot find in the decision."""


def list_effects(
    *, apdb: Apdb, alerts: AlertSink, metrics: MetricsSink, products: ProductSink
) -> tuple[Effect, ...]:
    """Return the effects of a decision, in their order.

    Parameters
    ----------
    apdb
        Takes the rows.
    alerts
        Takes the packets.
    metrics
        Takes the metrics.
    products
        Takes images, tables and raws.
    """

    def store_rows(work: Work) -> None:
        made = work.decision
        apdb.store(made.info.midpoint_mjd_tai, made.dia_object, made.dia_source, made.dia_forced_source)

    def send_alerts(work: Work) -> None:
        alerts.send(work.decision.packets)
        work.note_latency()

    def send_metrics(work: Work) -> None:
        if work.metrics is None:
            return
        try:
            metrics.send(work.metrics)
        except PermanentError:
            # Sending them again would not help, and metrics never hurt processing.
            _LOG.exception("metrics refused", visit=work.decision.info.visit)

    def metrics_payload(work: Work) -> str:
        return "" if work.metrics is None else work.metrics.to_json()

    def store_products(work: Work) -> None:
        products.store(work.visit.products(work.decision))

    return (
        Effect("apdb", store_rows, required=True),
        Effect(ALERTS, send_alerts, required=False),
        Effect("metrics", send_metrics, required=False, payload=metrics_payload),
        Effect("products", store_products, required=True),
    )


def carry_out(effect: Effect, work: Work) -> str | None:
    """Do an effect; one that is not required may fail.

    Parameters
    ----------
    effect
        The effect.
    work
        Of which decision.

    Returns
    -------
    error
        Why it was not possible, so that the relay has to make up for it; `None` if it is done.

    Raises
    ------
    PermanentError
        If the effect will never be possible.
    PromptError
        If it is required and was not possible.
    """
    try:
        effect.run(work)
    except PermanentError:
        raise
    except Exception as error:
        if effect.required:
            raise
        text = _describe(error)
        _LOG.warning(
            "effect left to the relay",
            effect=effect.name,
            error=text,
            exc_info=not isinstance(error, PromptError),
        )
        return text
    return None


def _describe(error: Exception) -> str:
    return f"{error.code if isinstance(error, PromptError) else type(error).__name__}: {error}"
