"""What happens to one detector-visit, in order: from the message to the outcome.

preload -> wait for the image -> ingest -> run the pipeline -> decide -> APDB -> alerts -> metrics ->
products.

Everything before the decision changes nothing in the world; everything after it repeats what was decided, so
a retry is harmless wherever the attempt before it ended.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog
from astropy.time import Time
from lsst.pipe.base.quantum_graph import PredictedQuantumGraph

from prompt_processing.apdb.port import Apdb
from prompt_processing.arrivals.pointers import Arrivals
from prompt_processing.config import WorkerSettings
from prompt_processing.delivery.decisions import DecisionStore
from prompt_processing.delivery.port import AlertSink, MetricsSink, ProductSink
from prompt_processing.domain import collections
from prompt_processing.domain.clock import Clock, from_mjd_tai, seconds_between
from prompt_processing.domain.decision import Decision
from prompt_processing.domain.errors import PermanentError, PromptError
from prompt_processing.domain.outcome import Outcome, Stopwatch
from prompt_processing.domain.raws import ArrivalPointer
from prompt_processing.domain.visit import DetectorVisit
from prompt_processing.execution.run import Outputs, build_graph, persist, run
from prompt_processing.instruments.info import info_from_observation
from prompt_processing.instruments.ingest import define_visit, ingest_raw
from prompt_processing.instruments.skymap import SKYMAP
from prompt_processing.ledger.port import Claim, Ledger
from prompt_processing.preload.preloader import Preloaded, Preloader
from prompt_processing.worker.arrival import note_arrival
from prompt_processing.worker.decide import decide
from prompt_processing.worker.metrics import visit_metrics

_LOG: Final = structlog.get_logger(__name__)

INTERMEDIATE: Final = frozenset({"post_isr_image", "template_matched", "difference_image_predetection"})
"""Images that are only steps to others: they are not kept, unless the pipeline ends with them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """Everything that a detector-visit changes in the world, in the order in which it does."""

    ledger: Ledger
    decisions: DecisionStore
    apdb: Apdb
    alerts: AlertSink
    metrics: MetricsSink
    products: ProductSink


class Process:
    """Takes one detector-visit through all its steps.

    Parameters
    ----------
    preloader
        Prepares local Butlers.
    arrivals
        Tells which raw arrived.
    incoming
        Landing store.
    stores
        What is changed.
    clock
        Clock of the night.
    settings
        How long to wait, and how often to look.
    """

    def __init__(
        self,
        *,
        preloader: Preloader,
        arrivals: Arrivals,
        incoming: Path,
        stores: Stores,
        clock: Clock,
        settings: WorkerSettings,
    ) -> None:
        self._preloader = preloader
        self._arrivals = arrivals
        self._incoming = incoming
        self._stores = stores
        self._clock = clock
        self._settings = settings
        self._hint = threading.Event()

    def hint(self) -> None:
        """Say that an image may have arrived: whoever waits looks at once."""
        self._hint.set()

    def run(self, visit: DetectorVisit, claim: Claim, watch: Stopwatch) -> Outcome:
        """Process a detector-visit.

        Parameters
        ----------
        visit
            The unit of work.
        claim
            The right to do it; checked right before each effect.
        watch
            Takes the stage times, also of an attempt that fails.

        Returns
        -------
        outcome
            ``processed``, or ``skipped`` with the reason.

        Raises
        ------
        PromptError
            If it cannot be processed: now (a `RetriableError`) or ever (a `PermanentError`).
        """
        age = seconds_between(visit.published, self._clock.now())
        if age > self._settings.expiry_s:
            return Outcome.skipped("expired", f"announced {age:.0f} s ago")
        with watch.stage("preload"):
            loaded = self._preloader.prepare(visit)
        try:
            with watch.stage("wait"):
                pointer = self._wait(visit)
            if pointer is None:
                limit = self._settings.image_timeout_s
                return Outcome.skipped(
                    "no-image", f"none within {limit:.0f} s of the predicted shutter close"
                )
            with _naming(pointer.key):
                return self._process(visit, claim, watch, loaded, pointer)
        finally:
            loaded.close()

    def _wait(self, visit: DetectorVisit) -> ArrivalPointer | None:
        """Return the pointer of the first snap, or `None` if the image has not come by the deadline.

        The pointer is looked at first and after each hint or tick. As a net for notifications that are lost,
        new raws are listed from time to time.
        """
        left = seconds_between(self._clock.now(), visit.predicted_shutter_close)
        deadline = time.monotonic() + left + self._settings.image_timeout_s
        next_listing = time.monotonic()
        while True:
            self._hint.clear()
            pointer = self._arrivals.find(visit.key, snap=0)
            now = time.monotonic()
            if pointer is not None or now >= deadline:
                return pointer
            if now >= next_listing:
                self._record_new(visit.instrument)
                next_listing = now + self._settings.listing_interval_s
                continue
            self._hint.wait(min(self._settings.poll_interval_s, deadline - now))

    def _record_new(self, instrument: str) -> None:
        """Record raws in the landing store that nobody has recorded."""
        for key in self._arrivals.list_new(instrument):
            try:
                note_arrival(key, self._arrivals, self._stores.ledger)
            except PromptError as error:
                # Not this visit's image, or it cannot be told whose it is.
                _LOG.warning("raw not recorded", key=key, error=str(error))

    def _process(
        self, visit: DetectorVisit, claim: Claim, watch: Stopwatch, loaded: Preloaded, pointer: ArrivalPointer
    ) -> Outcome:
        flags = ("fallback",) if loaded.missing else ()
        with watch.stage("ingest"):
            raw, observation = ingest_raw(
                loaded.butler,
                self._incoming / pointer.key,
                run=collections.raws(visit.instrument),
                transfer="direct",
            )
            define_visit(loaded.butler, observation, loaded.shape)
            info = info_from_observation(observation)
        graph, outputs = self._execute(loaded, info, watch)
        with watch.stage("decide"):
            made = decide(
                visit,
                attempt=claim.attempt,
                pipeline=loaded.pipeline.stem,
                flags=flags,
                info=info,
                outputs=outputs,
                history=loaded.history,
                now=self._clock.now(),
            )
            self._stores.ledger.check(claim)
            decision = self._stores.decisions.store(made)
        self._publish(decision, claim, watch, close=from_mjd_tai(info["mjd_end_tai"]))
        self._send_metrics(decision, loaded.run, info, outputs, watch)
        with watch.stage("products"):
            refs = persist(outputs, loaded.butler, _kept(graph))
            self._stores.ledger.check(claim)
            self._stores.products.transfer(loaded.butler, [raw, *loaded.preloaded_refs, *refs])
        return Outcome.processed(*decision.info.flags)

    def _execute(
        self, loaded: Preloaded, info: dict[str, Any], watch: Stopwatch
    ) -> tuple[PredictedQuantumGraph, Outputs]:
        """Run the pipeline in memory."""
        with watch.stage("graph"):
            graph = build_graph(
                loaded.butler,
                loaded.pipeline,
                inputs=(loaded.run, *collections.inputs(info["instrument"])),
                output_run=loaded.run,
                where=data_query(info),
            )
        return graph, run(graph, loaded.butler, stage=watch.stage)

    def _publish(self, decision: Decision, claim: Claim, watch: Stopwatch, *, close: Time) -> None:
        """Store the rows and send the alerts of a decision, and note the latency since the shutter closed."""
        with watch.stage("apdb"):
            self._stores.ledger.check(claim)
            self._stores.apdb.store(
                decision.info.midpoint_mjd_tai,
                decision.dia_object,
                decision.dia_source,
                decision.dia_forced_source,
            )
        with watch.stage("alerts"):
            self._stores.ledger.check(claim)
            self._stores.alerts.send(decision.packets)
        watch.latency = seconds_between(close, self._clock.now())

    def _send_metrics(
        self, decision: Decision, run: str, info: dict[str, Any], outputs: Outputs, watch: Stopwatch
    ) -> None:
        """Send metrics; whatever goes wrong is logged and harms nothing else."""
        with watch.stage("metrics"):
            try:
                self._stores.metrics.send(
                    visit_metrics(decision, run, info, outputs, watch, self._clock.now())
                )
            except Exception:  # noqa: BLE001 (metrics never hurt processing)
                _LOG.exception("metrics not sent", visit=decision.info.visit)


@contextmanager
def _naming(key: str) -> Iterator[None]:
    """Let every error that will not go away name the raw that it is about."""
    try:
        yield
    except PermanentError as error:
        if key.rpartition("/")[2] in str(error):
            raise
        raise type(error)(f"{key}: {error}") from error


def data_query(info: dict[str, Any]) -> str:
    """Return the data query of one raw, for a quantum graph."""
    return (
        f"instrument='{info['instrument']}' AND exposure={info['exposure']} "
        f"AND detector={info['detector']} AND skymap='{SKYMAP.name}'"
    )


def _kept(graph: PredictedQuantumGraph) -> set[str]:
    """Return the dataset types of a run that are products."""
    pipeline = graph.pipeline_graph
    steps = {name for name in INTERMEDIATE & set(pipeline.dataset_types) if pipeline.consumers_of(name)}
    return set(pipeline.dataset_types) - steps
