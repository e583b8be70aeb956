"""What is done with the pixels of a detector-visit: a port, and the real thing with Butler and pipeline."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final, Protocol, Self

from astropy.time import Time
from lsst.daf.butler import Butler, DatasetRef
from lsst.pipe.base.quantum_graph import PredictedQuantumGraph

from prompt_processing.config import WorkerSettings
from prompt_processing.delivery.metrics import VisitMetrics
from prompt_processing.domain import collections
from prompt_processing.domain.decision import Decision
from prompt_processing.domain.outcome import Stopwatch
from prompt_processing.domain.visit import DetectorVisit
from prompt_processing.execution.run import Outputs, build_graph, persist, run
from prompt_processing.instruments.info import info_from_observation
from prompt_processing.instruments.ingest import define_visit, ingest_raw
from prompt_processing.instruments.skymap import SKYMAP
from prompt_processing.preload.preloader import Preloaded, Preloader
from prompt_processing.worker.decide import decide
from prompt_processing.worker.metrics import visit_metrics
from prompt_processing.worker.plan import check_plan

INTERMEDIATE: Final = frozenset({"post_isr_image", "template_matched", "difference_image_predetection"})
"""Images that are only steps to others: they are not kept, unless the pipeline ends with them."""


class Prepared(AbstractContextManager["Prepared"], Protocol):
    """One detector-visit with all that is known before its image; what it holds is freed at its exit."""

    def process(self, keys: Sequence[str], watch: Stopwatch) -> None:
        """Ingest raws and run the pipeline.

        Parameters
        ----------
        keys
            Keys of the raws in the landing store, in order of the snaps.
        watch
            Takes the time of each stage.

        Raises
        ------
        PromptError
            If it cannot be done.
        """
        ...

    def decide(self, attempt: int, flags: tuple[str, ...], now: Time) -> Decision:
        """Return what this visit changes in the world; flags are added to those of the pipeline's choice."""
        ...

    def metrics(self, decision: Decision, watch: Stopwatch, now: Time) -> VisitMetrics:
        """Return the metrics."""
        ...

    def products(self, decision: Decision) -> tuple[Butler, list[DatasetRef]]:
        """Write the products that are to be kept, and return where and which they are.

        The tables of the APDB among them are those of the decision.
        """
        ...


class Pixels(Protocol):
    """Prepares detector-visits."""

    def prepare(self, visit: DetectorVisit) -> Prepared:
        """Fetch everything that needs no image.

        Raises
        ------
        PromptError
            If something is missing without which nothing can be done.
        """
        ...


class ButlerPixels:
    """`Pixels` with a local Butler for each visit and the pipeline that its inputs allow.

    Parameters
    ----------
    preloader
        Fills local Butlers.
    incoming
        Landing store.
    settings
        Limits for the comparison of event and raw.
    """

    def __init__(self, preloader: Preloader, incoming: Path, settings: WorkerSettings) -> None:
        self._preloader = preloader
        self._incoming = incoming
        self._settings = settings

    def prepare(self, visit: DetectorVisit) -> "ButlerVisit":
        """Fill a local Butler; see the port."""
        return ButlerVisit(visit, self._preloader.prepare(visit), self._incoming, self._settings)


class ButlerVisit(AbstractContextManager["ButlerVisit"]):
    """One detector-visit in its local Butler; see the port `Prepared`."""

    def __init__(
        self, visit: DetectorVisit, loaded: Preloaded, incoming: Path, settings: WorkerSettings
    ) -> None:
        self._visit = visit
        self._loaded = loaded
        self._incoming = incoming
        self._settings = settings
        self._keys: tuple[str, ...] = ()
        self._raws: list[DatasetRef] = []
        self._info: dict[str, Any] = {}
        self._graph: PredictedQuantumGraph
        self._outputs: Outputs

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._loaded.close()

    def process(self, keys: Sequence[str], watch: Stopwatch) -> None:
        """Ingest raws and run the pipeline on the first of them; see the port."""
        self._keys = tuple(keys)
        with watch.stage("ingest"):
            infos = [self._ingest(key) for key in keys]
        self._info = infos[0]
        with watch.stage("graph"):
            self._graph = build_graph(
                self._loaded.butler,
                self._loaded.pipeline,
                inputs=(self._loaded.run, *collections.inputs(self._info["instrument"])),
                output_run=self._loaded.run,
                where=data_query(self._info),
            )
        self._outputs = run(self._graph, self._loaded.butler, stage=watch.stage)

    def decide(self, attempt: int, flags: tuple[str, ...], now: Time) -> Decision:
        """Make the decision; see the port."""
        fallback = ("fallback",) if self._loaded.missing else ()
        return decide(
            self._visit,
            attempt=attempt,
            pipeline=self._loaded.pipeline.stem,
            flags=(*flags, *fallback),
            raws=self._keys,
            info=self._info,
            outputs=self._outputs,
            history=self._loaded.history,
            now=now,
        )

    def metrics(self, decision: Decision, watch: Stopwatch, now: Time) -> VisitMetrics:
        """Collect the metrics; see the port."""
        return visit_metrics(decision, self._loaded.run, self._info, self._outputs, watch, now)

    def products(self, decision: Decision) -> tuple[Butler, list[DatasetRef]]:
        """Write the products into the local Butler; see the port."""
        self._outputs.replace("dia_source_apdb", decision.dia_source)
        self._outputs.replace("dia_object_apdb", decision.dia_object)
        self._outputs.replace("dia_forced_source_apdb", decision.dia_forced_source)
        refs = persist(self._outputs, self._loaded.butler, _kept(self._graph))
        return self._loaded.butler, [*self._raws, *self._loaded.preloaded_refs, *refs]

    def _ingest(self, key: str) -> dict[str, Any]:
        """Ingest one raw, and return what its header tells."""
        butler = self._loaded.butler
        raw, observation = ingest_raw(
            butler,
            self._incoming / key,
            run=collections.raws(self._visit.instrument),
            transfer="direct",
        )
        info = info_from_observation(observation)
        check_plan(self._visit, info, self._settings)
        define_visit(butler, observation, self._loaded.shape)
        self._raws.append(raw)
        return info


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
