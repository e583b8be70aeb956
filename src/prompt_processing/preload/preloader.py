"""Everything that a detector-visit needs before its image is there, in a local Butler of its own."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import astropy.units as u
from lsst.daf.butler import Butler, CollectionType, DatasetRef, Timespan
from lsst.pipe.base import Pipeline
from lsst.pipe.base.utils import RegionTimeInfo
from lsst.sphgeom import ConvexPolygon

from prompt_processing.apdb.port import Apdb, History
from prompt_processing.domain import collections
from prompt_processing.domain.clock import from_tai_seconds, mjd_tai
from prompt_processing.domain.errors import NoCalibError, NoRefcatError, NoTemplateError
from prompt_processing.domain.raws import visit_path
from prompt_processing.domain.visit import DetectorVisit
from prompt_processing.instruments.butler import make_butler
from prompt_processing.instruments.latiss import get_instrument
from prompt_processing.preload.field import CALIB_TYPES, Field, find_calibs, find_refcat, find_templates
from prompt_processing.preload.footprint import field_region

HISTORY_TYPES: Final = {
    "preloaded_dia_object": "objects",
    "preloaded_dia_source": "sources",
    "preloaded_dia_forced_source": "forced",
}
"""Dataset types of the APDB history, and which table of `History` they hold."""


@dataclass(slots=True)
class Preloaded:
    """A local Butler with all inputs but the raw, and the pipeline that they allow."""

    butler: Butler
    folder: Path
    """Where the local Butler is; to be removed when the visit is done with."""
    pipeline: Path
    run: str
    """RUN collection of the outputs."""
    shape: tuple[int, int]
    """Shape ``(ny, nx)`` of the detector."""
    history: History
    """What the APDB held of the field."""
    missing: tuple[str, ...]
    """Dataset types that better pipelines need and that are not there."""

    @property
    def preloaded_refs(self) -> list[DatasetRef]:
        """References of the history and of the field, which belong to the products."""
        names = [*HISTORY_TYPES, "regionTimeInfo"]
        found = [self.butler.query_datasets(name, collections=self.run) for name in names]
        return [ref for refs in found for ref in refs]

    def close(self) -> None:
        """Remove the local Butler."""
        self.butler.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class Preloader:
    """Fills local Butlers from the central one and from the APDB.

    Parameters
    ----------
    central
        The central Butler.
    apdb
        The APDB.
    work
        Folder for the local Butlers.
    pipelines
        Pipeline files in order of preference: the first whose inputs are all there is chosen.
    padding
        Margin of the field [arcsec].
    """

    def __init__(
        self, *, central: Butler, apdb: Apdb, work: Path, pipelines: Sequence[Path], padding: float
    ) -> None:
        self._central = central
        self._apdb = apdb
        self._work = work
        self._pipelines = pipelines
        self._padding = padding

    def prepare(self, visit: DetectorVisit) -> Preloaded:
        """Make the local Butler of a visit.

        Raises
        ------
        NoCalibError
            If there are no calibs, so that no pipeline can run at all.
        MissingInputError
            If something else that every pipeline needs is missing.
        ConfigError
            If the instrument is unknown.
        """
        instrument = get_instrument(visit.instrument)
        calibs = self._find_calibs(visit)
        shape = self._detector_shape(calibs)
        region = field_region(visit.ra, visit.dec, shape, instrument.pixel_scale, self._padding)
        found = Field(
            calibs,
            find_refcat(self._central, region),
            find_templates(self._central, visit.instrument, region, visit.physical_filter),
        )
        pipeline, missing = self._choose(visit, found)
        folder = self._work / visit_path(*visit.key)
        local = self._fill(folder, visit, found)
        run = collections.outputs(visit.instrument, _day_obs(visit), pipeline.stem)
        history = self._apdb.history(region, mjd_tai(visit.predicted_shutter_close))
        _put_history(local, visit, region, history, run)
        return Preloaded(local, folder, pipeline, run, shape, history, missing)

    def _find_calibs(self, visit: DetectorVisit) -> list[tuple[DatasetRef, Timespan]]:
        start = from_tai_seconds(visit.startTime)
        moment = Timespan(start, visit.predicted_shutter_close)
        calibs = find_calibs(self._central, visit.instrument, visit.detector, moment, visit.physical_filter)
        absent = sorted(set(CALIB_TYPES) - {ref.datasetType.name for ref, _ in calibs})
        if absent:
            raise NoCalibError(
                f"{visit.instrument} detector {visit.detector}: no {', '.join(absent)} valid at "
                f"{start.isot} TAI"
                + (f" for filter {visit.physical_filter}" if visit.physical_filter else "")
            )
        return calibs

    def _detector_shape(self, calibs: list[tuple[DatasetRef, Timespan]]) -> tuple[int, int]:
        """Return the detector's shape, which the calibs know before there is a raw."""
        ptc = next(ref for ref, _ in calibs if ref.datasetType.name == "ptc")
        ny, nx = self._central.get(ptc)["shape"]
        return ny, nx

    def _choose(self, visit: DetectorVisit, found: Field) -> tuple[Path, tuple[str, ...]]:
        """Return the first pipeline whose inputs are all there, and what the better ones miss."""
        missing: list[str] = []
        for pipeline in self._pipelines:
            absent = _preloaded_inputs(pipeline) - found.dataset_types
            if not absent:
                return pipeline, tuple(missing)
            missing += [name for name in sorted(absent) if name not in missing]
        where = f"at ra {visit.ra:.4f}, dec {visit.dec:.4f} deg"
        if "refcat" in missing:
            raise NoRefcatError(f"the reference catalogue has no sources {where}")
        raise NoTemplateError(f"there is no template {where} for filter {visit.filters or 'any'}")

    def _fill(self, folder: Path, visit: DetectorVisit, found: Field) -> Butler:
        """Make a local Butler with the datasets that were found."""
        shutil.rmtree(folder, ignore_errors=True)  # what an attempt that was killed has left
        make_butler(str(folder))
        local = Butler.from_config(folder, writeable=True)
        # Linked, not copied: the files are never changed, and the local Butler does not outlive the visit.
        local.transfer_from(self._central, found.refs, transfer="link", transfer_dimensions=True)
        for ref, validity in found.calibs:
            local.registry.certify(collections.calibs(visit.instrument), [ref], validity)
        _chain(local, collections.REFCATS, found.refcat)
        _chain(local, collections.templates(visit.instrument), found.templates)
        return local


def _chain(local: Butler, chain: str, refs: list[DatasetRef]) -> None:
    """Let a chain find exactly the given datasets."""
    local.collections.redefine_chain(chain, sorted({ref.run for ref in refs}))


@lru_cache
def _preloaded_inputs(pipeline: Path) -> frozenset[str]:
    """Return the dataset types that a pipeline needs from the central Butler."""
    graph = Pipeline.from_uri(str(pipeline)).to_graph()
    names = {name for name, _ in graph.iter_overall_inputs()}
    return frozenset(names - {"raw", *HISTORY_TYPES})


def _day_obs(visit: DetectorVisit) -> int:
    """Return the observing day of a visit as YYYYMMDD; a day ends at noon, TAI."""
    noon = from_tai_seconds(visit.startTime) - 12 * u.hour
    return int(noon.strftime("%Y%m%d"))


def _put_history(
    local: Butler, visit: DetectorVisit, region: ConvexPolygon, history: History, run: str
) -> None:
    """Put the APDB history of the field, and the field itself, into the local Butler."""
    local.registry.insertDimensionData(
        "group", {"instrument": visit.instrument, "name": visit.groupId}, skip_existing=True
    )
    local.collections.register(run, CollectionType.RUN)
    data_id = {"instrument": visit.instrument, "group": visit.groupId, "detector": visit.detector}
    for name, table in HISTORY_TYPES.items():
        local.put(getattr(history, table), name, data_id, run=run)
    timespan = Timespan(from_tai_seconds(visit.startTime), visit.predicted_shutter_close)
    local.put(RegionTimeInfo(region=region, timespan=timespan), "regionTimeInfo", data_id, run=run)
