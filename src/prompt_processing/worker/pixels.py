"""What is done with the pixels of a detector-visit: a port, and the real thing with Butler and pipeline."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final, Protocol, Self

from astro_metadata_translator import ObservationInfo
from astropy.time import Time
from lsst.daf.butler import DimensionRecord
from lsst.resources import ResourcePath

from prompt_processing.config import WorkerSettings
from prompt_processing.delivery.decision import Decision
from prompt_processing.delivery.metrics import VisitMetrics
from prompt_processing.delivery.port import Products, RawFile
from prompt_processing.domain import collections
from prompt_processing.domain.outcome import Outcome, Stopwatch
from prompt_processing.domain.raws import parse_raw_key
from prompt_processing.domain.visit import DetectorVisit
from prompt_processing.execution.data_ids import DataIds
from prompt_processing.execution.graphs import VisitGraph
from prompt_processing.execution.run import Outputs
from prompt_processing.instruments.dataset_types import make_dataset_type
from prompt_processing.instruments.info import info_from_observation
from prompt_processing.instruments.ingest import exposure_records, read_observation, visit_records
from prompt_processing.instruments.raw import read_raw
from prompt_processing.preload.preloader import CANARY, Preloaded, Preloader
from prompt_processing.selection.selection import Choice
from prompt_processing.storage import object_store
from prompt_processing.worker.decide import decide
from prompt_processing.worker.metrics import visit_metrics
from prompt_processing.worker.plan import check_plan
from prompt_processing.worker.provenance import PROVENANCE, provenance

FALLBACK: Final = "fallback"
"""Flag of a visit that a better pipeline could not process, because something was missing."""
INTERMEDIATE: Final = frozenset(
    {"post_isr_image", "template_joined", "template_matched", "difference_image_predetection"}
)
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

    def products(self, decision: Decision) -> Products:
        """Return the products that are to be kept.

        The tables of the APDB among them are those of the decision.
        """
        ...


class Pixels(Protocol):
    """Prepares detector-visits."""

    def prepare(
        self, visit: DetectorVisit, watch: Stopwatch, decision: Decision | None = None
    ) -> Prepared | Outcome:
        """Fetch everything that needs no image, and do all that can be done without it.

        Parameters
        ----------
        visit
            The unit of work.
        watch
            Takes the time of each stage.
        decision
            One that stands, which is to be finished.

        Returns
        -------
        prepared
            The outcome, if there is nothing to be run.

        Raises
        ------
        PromptError
            If something is missing without which nothing can be done, or a store does not answer.
        """
        ...


class ButlerPixels:
    """`Pixels` in memory, with the pipeline that the inputs of a visit allow.

    Parameters
    ----------
    preloader
        Finds pipeline and inputs.
    incoming
        Landing store.
    work
        Folder for copies of raws, if the landing store is no folder.
    settings
        Limits for the comparison of event and raw.
    """

    def __init__(
        self, preloader: Preloader, incoming: ResourcePath, work: Path, settings: WorkerSettings
    ) -> None:
        self._preloader = preloader
        self._incoming = incoming
        self._work = work
        self._settings = settings

    def prepare(
        self, visit: DetectorVisit, watch: Stopwatch, decision: Decision | None = None
    ) -> "ButlerVisit | Outcome":
        """Preload; see the port."""
        decided = None if decision is None else decision.info
        loaded = self._preloader.prepare(visit, decided=decided, stage=watch.stage)
        if isinstance(loaded, Choice):
            return Outcome.skipped("no-pipeline", loaded.rule or "; ".join(loaded.reasons))
        return ButlerVisit(visit, loaded, self._incoming, self._work, self._settings)


class ButlerVisit(AbstractContextManager["ButlerVisit"]):
    """One detector-visit; see the port `Prepared`."""

    def __init__(
        self,
        visit: DetectorVisit,
        loaded: Preloaded,
        incoming: ResourcePath,
        work: Path,
        settings: WorkerSettings,
    ) -> None:
        self._visit = visit
        self._loaded = loaded
        self._run = loaded.run
        self._incoming = incoming
        self._work = work
        self._settings = settings
        self._keys: tuple[str, ...] = ()
        self._raws: list[RawFile] = []
        self._records: list[DimensionRecord] = []
        self._info: dict[str, Any] = {}
        self._outputs: Outputs

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing to do: memory is freed with the object."""

    def process(self, keys: Sequence[str], watch: Stopwatch) -> None:
        """Ingest raws and run the pipeline on the first of them; see the port."""
        self._keys = tuple(keys)
        with watch.stage("ingest"):
            self._ingest()
        graph = self._run.graph
        self._run.execute((*graph.early, *graph.late), stage=watch.stage)
        self._outputs = self._run.outputs()

    def decide(self, attempt: int, flags: tuple[str, ...], now: Time) -> Decision:
        """Make the decision; see the port."""
        own = [FALLBACK] * bool(self._loaded.missing) + [CANARY] * self._loaded.canary
        return decide(
            self._visit,
            attempt=attempt,
            pipeline=self._run.graph.name,
            flags=(*flags, *own),
            raws=self._keys,
            info=self._info,
            outputs=self._outputs,
            history=self._loaded.history,
            now=now,
        )

    def metrics(self, decision: Decision, watch: Stopwatch, now: Time) -> VisitMetrics:
        """Collect the metrics; see the port."""
        return visit_metrics(decision, self._run.run, self._info, self._outputs, watch, now)

    def products(self, decision: Decision) -> Products:
        """Return the products; see the port."""
        self._outputs.replace("dia_source_apdb", decision.dia_source)
        self._outputs.replace("dia_object_apdb", decision.dia_object)
        self._outputs.replace("dia_forced_source_apdb", decision.dia_forced_source)
        run, names = self._run, kept(self._run.graph)
        datasets = {ref: run.memory.get(ref) for ref in self._loaded.own}
        datasets |= {ref: obj for ref, obj in self._outputs.datasets.items() if ref.datasetType.name in names}
        origin = run.data_ids.ref(make_dataset_type(run.memory.dimensions, PROVENANCE), run.run)
        datasets[origin] = provenance(run, decision, self._loaded.missing)
        return Products(datasets, self._run.init_outputs(), self._raws, self._records)

    def _ingest(self) -> None:
        """Read the raws, and define exposures and visits."""
        keys = [found for key in self._keys if (found := parse_raw_key(key)) is not None]
        wanted = [*self._keys, *(key.sidecar for key in keys)]
        with object_store.local_copies(self._incoming, wanted, self._work) as folder:
            observations = [read_observation(folder / key) for key in self._keys]
            self._define(observations)
            raw = read_raw(folder / self._keys[0])
        # The sidecar may be the only one that knows the group.
        raw.header["GROUPID"] = self._info["group"]
        self._run.give(self._raws[0].ref, raw)

    def _define(self, observations: Sequence[ObservationInfo]) -> None:
        """Compare the observations with the event, and define exposures and visits."""
        universe = self._run.memory.dimensions
        infos = [info_from_observation(observation) for observation in observations]
        for info in infos:
            check_plan(self._visit, info, self._settings)
        self._info = infos[0]
        visits = visit_records(universe, observations, self._loaded.shape)
        group = list(self._run.data_ids.records)
        for key, observation in zip(self._keys, observations, strict=True):
            exposure = exposure_records(universe, observation)
            self._records += exposure
            ids = DataIds(universe, [*group, *exposure])
            ref = ids.ref(self._run.graph.dataset_type("raw"), collections.raws(self._visit.instrument))
            self._raws.append(RawFile(object_store.child(self._incoming, key), ref))
        self._run.add_records([*self._records, *visits])
        self._records += visits


def kept(graph: VisitGraph) -> frozenset[str]:
    """Return the dataset types among the outputs of a pipeline that are products."""
    pipeline = graph.graph
    made = {name for name in pipeline.dataset_types if pipeline.producer_of(name) is not None}
    return frozenset(name for name in made if not (name in INTERMEDIATE and pipeline.consumers_of(name)))
