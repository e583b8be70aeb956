"""Everything that a detector-visit needs before its image is there, in memory."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import structlog
from lsst.daf.butler import Butler, DatasetRef, DimensionRecord, Timespan
from lsst.daf.butler.registry import DataIdError
from lsst.pipe.base.utils import RegionTimeInfo
from sqlalchemy.exc import SQLAlchemyError

from prompt_processing.apdb.port import Apdb, History
from prompt_processing.domain import collections
from prompt_processing.domain.clock import from_tai_seconds, mjd_tai
from prompt_processing.domain.decision import DecisionInfo
from prompt_processing.domain.errors import (
    ConfigError,
    MissingInputError,
    NoCalibError,
    NoRefcatError,
    NoTemplateError,
    RepositoryError,
    StoreError,
)
from prompt_processing.domain.visit import DetectorVisit
from prompt_processing.execution.data_ids import DataIds
from prompt_processing.execution.graphs import VisitGraph, load_graph
from prompt_processing.execution.run import VisitRun
from prompt_processing.instruments.cameras import get_camera
from prompt_processing.instruments.skymap import SKYMAP
from prompt_processing.preload.cache import DatasetCache
from prompt_processing.preload.footprint import field_region
from prompt_processing.preload.inputs import Situation, find_inputs
from prompt_processing.selection.override import Overrides
from prompt_processing.selection.selection import Choice, Selection

_LOG: Final = structlog.get_logger(__name__)

HISTORY_TYPES: Final = {
    "preloaded_dia_object": "objects",
    "preloaded_dia_source": "sources",
    "preloaded_dia_forced_source": "forced",
}
"""Dataset types of the APDB history, and which table of `History` they hold."""
FIELD: Final = "regionTimeInfo"
"""Dataset type of the field itself."""
OWN: Final = frozenset({FIELD, *HISTORY_TYPES})
"""Dataset types that are made for each visit."""
CANARY: Final = "canary"
"""Flag of a visit that got the pipelines of a share of the visits."""
_LATER: Final = frozenset({"raw"})

type StageTimer = Callable[[str], AbstractContextManager[object]]


@dataclass(slots=True)
class Preloaded:
    """A pipeline with all its inputs but the raw, and with all done that needs no raw."""

    run: VisitRun
    shape: tuple[int, int]
    """Shape ``(ny, nx)`` of the detector."""
    history: History
    """What the APDB held of the field."""
    own: list[DatasetRef]
    """References of the history and of the field, which belong to the products."""
    missing: tuple[str, ...]
    """What better pipelines need and is not there."""
    canary: bool
    """Whether the pipeline is one that a share of the visits gets."""


class Preloader:
    """Finds the pipeline and the inputs of a visit in the central Butler and in the APDB.

    Parameters
    ----------
    central
        The central Butler.
    apdb
        The APDB.
    selection
        Says which pipelines a visit may get; the first whose inputs are all there is run.
    overrides
        What operators say; asked for every visit.
    padding
        Margin of the field [arcsec].
    cache_bytes
        Memory for datasets that several visits need.
    """

    def __init__(
        self,
        *,
        central: Butler,
        apdb: Apdb,
        selection: Selection,
        overrides: Overrides,
        padding: float,
        cache_bytes: int,
    ) -> None:
        self._central = central
        self._apdb = apdb
        self._selection = selection
        self._overrides = overrides
        self._padding = padding
        self._cache = DatasetCache(central, cache_bytes)

    def prepare(
        self, visit: DetectorVisit, *, decided: DecisionInfo | None = None, stage: StageTimer = nullcontext
    ) -> Preloaded | Choice:
        """Fetch what a visit needs, and do what can be done without its image.

        Parameters
        ----------
        visit
            The unit of work.
        decided
            A decision that stands: its pipeline is taken, whatever the rules say by now.
        stage
            Each stage runs inside the context that this makes of its name: ``find``, ``load``, ``history``,
            and the labels of the tasks that need no raw.

        Returns
        -------
        loaded
            The choice, if it is that nothing is to be run.

        Raises
        ------
        MissingInputError
            If no pipeline can run; the message names what the last one lacks.
        ConfigError
            If a pipeline cannot be read, or the instrument is unknown.
        RepositoryError
            If the repository has another skymap than this program.
        StoreError
            If the central Butler or the APDB does not answer.
        """
        with stage("find"):
            choice = self.choose(visit) if decided is None else self._chosen(decided)
            if not choice.pipelines:
                return choice
            records = self._records(visit)
        material = _Material(visit, self._central, self._apdb, self._cache, self._padding)
        missing: list[str] = []
        for path in choice.pipelines:
            with stage("find"):
                graph = load_graph(path, self._central)
                absent = sorted(graph.required - _LATER - material.available(graph))
            if not absent:
                try:
                    run, own = self._start(graph, choice, visit, records, material, stage)
                    return Preloaded(
                        run, material.shape, material.history, own, tuple(missing), choice.canary
                    )
                except MissingInputError as error:
                    absent = [error.code.removeprefix("no-")]
            _LOG.warning("pipeline cannot run", pipeline=graph.name, missing=absent)
            missing += [name for name in absent if name not in missing]
        raise _nothing_to_run(visit, graph, absent)

    def choose(self, visit: DetectorVisit) -> Choice:
        """Choose the pipelines of a visit.

        Raises
        ------
        ConfigError
            If what an operator has said cannot be understood.
        StoreError
            If it cannot be read.
        """
        camera = get_camera(visit.instrument)
        centre = camera.centre(visit.detector, visit.ra, visit.dec, visit.rotation)
        return self._selection.choose(visit, centre, self._overrides.current())

    def _chosen(self, decided: DecisionInfo) -> Choice:
        """Return the choice that a decision was made with."""
        said = self._selection.files(self._overrides.pipelines())
        path = self._selection.named(decided.instrument, decided.pipeline, said)
        if path is None:
            raise ConfigError(
                f"pipeline {decided.pipeline}, with which group {decided.group} was decided, is gone"
            )
        return Choice("decision", (path,), CANARY in decided.flags, ())

    def _start(
        self,
        graph: VisitGraph,
        choice: Choice,
        visit: DetectorVisit,
        records: list[DimensionRecord],
        material: "_Material",
        stage: StageTimer,
    ) -> tuple[VisitRun, list[DatasetRef]]:
        """Give a pipeline its inputs, and run the tasks that need no raw."""
        day = visit.day_obs
        kind = "canary" if choice.canary else "output"
        name = collections.outputs(visit.instrument, day, graph.name, graph.version, kind=kind)
        run = VisitRun(graph, name, DataIds(self._central.dimensions, records))
        with stage("load"):
            for dataset_type in sorted(graph.inputs.keys() - _LATER - OWN):
                for ref in material.find(graph, dataset_type):
                    run.give(ref, self._cache.get(ref))
        with stage("history"):
            own = [run.give_own(name, material.own(name)) for name in sorted(graph.inputs.keys() & OWN)]
        if visit.physical_filter is not None:
            run.execute(graph.early, stage=stage)
        return run, own

    def _records(self, visit: DetectorVisit) -> list[DimensionRecord]:
        """Return the records of instrument, detector, skymap and group.

        The skymap is compared each time: templates on another one must not be taken for ours.
        """
        try:
            # Others certify calibs and build templates; this Butler would not look at its collections again.
            self._central.registry.refresh()
            data_id = self._central.registry.expandDataId(
                instrument=visit.instrument, detector=visit.detector, skymap=SKYMAP.name
            )
        except DataIdError as error:
            raise RepositoryError(f"central Butler: {error}") from error
        except (OSError, SQLAlchemyError) as error:
            raise StoreError(f"central Butler: {error}") from error
        found = [data_id.records[element] for element in ("instrument", "detector", "skymap")]
        if data_id.records["skymap"].hash != SKYMAP.sha1:
            self._cache.clear()
            raise RepositoryError(
                f"the central Butler's skymap {SKYMAP.name} has another geometry than this program's: build "
                "the templates again, in a new repository (prompt night prepare)"
            )
        group = self._central.dimensions["group"].RecordClass(instrument=visit.instrument, name=visit.groupId)
        return [*found, group]


class _Material:
    """What there is for one visit; each question is asked once, however many pipelines ask it."""

    def __init__(
        self, visit: DetectorVisit, central: Butler, apdb: Apdb, cache: DatasetCache, padding: float
    ) -> None:
        self._visit = visit
        self._central = central
        self._apdb = apdb
        self._cache = cache
        self._padding = padding
        self._found: dict[str, list[DatasetRef]] = {}

    def available(self, graph: VisitGraph) -> set[str]:
        """Return the input dataset types of a pipeline that have at least one dataset for this visit."""
        names = graph.inputs.keys() - _LATER - OWN
        return {name for name in names if self.find(graph, name)} | OWN

    def find(self, graph: VisitGraph, name: str) -> list[DatasetRef]:
        """Return the datasets of a type."""
        if name not in self._found:
            self._found[name] = find_inputs(self._central, graph.inputs[name], self._situation)
        return self._found[name]

    def own(self, name: str) -> Any:
        """Return what is made for the visit itself."""
        if name == FIELD:
            return RegionTimeInfo(region=self._situation.region, timespan=self._moment)
        return getattr(self.history, HISTORY_TYPES[name])

    @cached_property
    def history(self) -> History:
        """What the APDB holds of the field."""
        visit = self._visit
        return self._apdb.history(self._situation.region, mjd_tai(visit.predicted_shutter_close))

    @cached_property
    def shape(self) -> tuple[int, int]:
        """Shape of the detector, which the calibs know before there is a raw."""
        ref = self._central.find_dataset(
            "ptc",
            instrument=self._visit.instrument,
            detector=self._visit.detector,
            timespan=self._moment,
            collections=collections.calibs(self._visit.instrument),
        )
        if ref is None:
            return get_camera(self._visit.instrument).detector_shape(self._visit.detector)
        ny, nx = self._cache.get(ref)["shape"]
        return ny, nx

    @cached_property
    def _moment(self) -> Timespan:
        return Timespan(from_tai_seconds(self._visit.startTime), self._visit.predicted_shutter_close)

    @cached_property
    def _situation(self) -> Situation:
        visit = self._visit
        camera = get_camera(visit.instrument)
        ra, dec = camera.centre(visit.detector, visit.ra, visit.dec, visit.rotation)
        return Situation(
            instrument=visit.instrument,
            detector=visit.detector,
            physical_filter=visit.physical_filter,
            moment=self._moment,
            region=field_region(ra, dec, self.shape, camera.pixel_scale, self._padding),
        )


def _nothing_to_run(visit: DetectorVisit, graph: VisitGraph, absent: list[str]) -> MissingInputError:
    """Return the error for what the last pipeline, which needs least, lacks."""
    where = f"at ra {visit.ra:.4f}, dec {visit.dec:.4f} deg"
    if "refcat" in absent:
        return NoRefcatError(f"the reference catalogue has no sources {where}")
    if "template" in absent or "template_coadd" in absent:
        return NoTemplateError(f"there is no template {where} for filter {visit.filters or 'any'}")
    what = f"{visit.instrument} detector {visit.detector}: no {', '.join(absent)}"
    if not all(name in graph.inputs and graph.inputs[name].isCalibration() for name in absent):
        return MissingInputError(f"{what} for pipeline {graph.name}")
    start = from_tai_seconds(visit.startTime).isot
    suffix = f" for filter {visit.physical_filter}" if visit.physical_filter else ""
    return NoCalibError(f"{what} valid at {start} TAI{suffix}")
