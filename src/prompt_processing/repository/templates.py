"""Templates from earlier epochs: the same single-frame tasks as for a visit, then coadds on the skymap."""

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Final, NamedTuple

import structlog
from lsst.daf.butler import Butler, CollectionType, DatasetRef

from prompt_processing.config import shipped_pipelines
from prompt_processing.domain import collections
from prompt_processing.domain.errors import PromptError, RepositoryError
from prompt_processing.execution.data_ids import DataIds
from prompt_processing.execution.graphs import VisitGraph, load_graph
from prompt_processing.execution.run import VisitRun
from prompt_processing.images.coadd import coadd
from prompt_processing.images.exposure import Exposure
from prompt_processing.images.masks import MaskPlane
from prompt_processing.images.warp import warp
from prompt_processing.instruments.ingest import define_visit, ingest_raw
from prompt_processing.instruments.raw import RawExposure, read_raw
from prompt_processing.instruments.regions import detector_region
from prompt_processing.instruments.skymap import SKYMAP, Patch, register_patches
from prompt_processing.preload.inputs import Situation, find_inputs
from prompt_processing.repository.central import open_central
from prompt_processing.repository.raws import DescribedRaw, describe_raws

Progress = Callable[[str, int, int], None]

_LOG: Final = structlog.get_logger(__name__)
_EPOCHS_IN_MEMORY: Final = 8


class Epoch(NamedTuple):
    """One exposure that a template is made of."""

    instrument: str
    band: str
    visit: int
    detector: int


def build_templates(repo: Path, night: Path, *, progress: Progress) -> int:
    """Build templates from ``NIGHT/template``; what is there already is not made again.

    Parameters
    ----------
    repo
        Folder of the repository, with calibs and a reference catalogue.
    night
        Folder of the night.
    progress
        Called with the stage, the steps that are done and their number.

    Returns
    -------
    number
        Number of patches that the templates consist of.

    Raises
    ------
    RepositoryError
        If there are no raws, or not one of them could be processed; the message says why.
    """
    frames = [
        frame for frame in describe_raws(night / "template") if frame.info["observation_type"] == "science"
    ]
    if not frames:
        raise RepositoryError(f"{night / 'template'}: there is no science exposure to build templates from")
    epochs = _process_epochs(repo, frames, progress)
    with open_central(repo) as butler:
        return sum(
            _coadd_band(butler, instrument, band, members, progress)
            for (instrument, band), members in _by_band(epochs).items()
        )


def _by_band(epochs: list[Epoch]) -> dict[tuple[str, str], list[Epoch]]:
    bands: dict[tuple[str, str], list[Epoch]] = {}
    for epoch in sorted(epochs):
        bands.setdefault((epoch.instrument, epoch.band), []).append(epoch)
    return bands


def _process_epochs(repo: Path, frames: list[DescribedRaw], progress: Progress) -> list[Epoch]:
    """Process every epoch that is not there yet, several at a time; return those that are usable."""
    done, problems = [], []
    progress("template epochs", 0, len(frames))
    # Spawned, not forked: numerical libraries and database connections do not survive a fork.
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        jobs = {pool.submit(_process_epoch, repo, frame): frame for frame in frames}
        for number, job in enumerate(as_completed(jobs), start=1):
            try:
                done.append(job.result())
            except PromptError as error:
                problems.append(str(error))
                _LOG.warning("template epoch left out", file=str(jobs[job].path), error=str(error))
            progress("template epochs", number, len(frames))
    if not done:
        raise RepositoryError(f"no template epoch could be processed: {'; '.join(problems)}")
    return done


def _process_epoch(repo: Path, frame: DescribedRaw) -> Epoch:
    """Take one raw through single-frame processing, into the central Butler."""
    info = frame.info
    epoch = Epoch(info["instrument"], info["band"], info["visit"], info["detector"])
    with open_central(repo) as butler:
        raw, observation = ingest_raw(butler, frame.path, run=collections.raws(epoch.instrument))
        define_visit(butler, observation, read_raw(frame.path).shape)
        if _find_image(butler, epoch) is None:
            graph = load_graph(shipped_pipelines() / epoch.instrument / "SingleFrame.yaml", butler)
            _make_image(butler, graph, epoch, raw, butler.get(raw))
    return epoch


def _make_image(
    butler: Butler, graph: VisitGraph, epoch: Epoch, raw: DatasetRef, pixels: RawExposure
) -> None:
    """Run the pipeline on one raw, and store what it makes but the steps to it."""
    data_id = butler.registry.expandDataId(raw.dataId, visit=epoch.visit, skymap=SKYMAP.name)
    records = [data_id.records[element] for element in data_id.dimensions.elements]
    ids = DataIds(butler.dimensions, [record for record in records if record is not None])
    run = VisitRun(graph, collections.template_epochs(epoch.instrument), ids)
    situation = Situation(
        instrument=epoch.instrument,
        detector=epoch.detector,
        physical_filter=str(data_id["physical_filter"]),
        moment=data_id.timespan,
        region=data_id.region,
    )
    run.give(raw, pixels)
    for name in graph.inputs.keys() - {"raw"}:
        for ref in find_inputs(butler, graph.inputs[name], situation):
            run.give(ref, butler.get(ref))
    run.execute(graph.late)
    graph.graph.register_dataset_types(butler)
    butler.collections.register(run.run, CollectionType.RUN)
    with butler.transaction():
        for ref, obj in run.outputs().datasets.items():
            if ref.datasetType.name != "post_isr_image":
                butler.put(obj, ref)


def _find_image(butler: Butler, epoch: Epoch) -> DatasetRef | None:
    return butler.find_dataset(
        "preliminary_visit_image",
        instrument=epoch.instrument,
        visit=epoch.visit,
        detector=epoch.detector,
        collections=collections.template_epochs(epoch.instrument),
    )


def _coadd_band(butler: Butler, instrument: str, band: str, epochs: list[Epoch], progress: Progress) -> int:
    """Coadd the epochs of one band, patch by patch; return the number of patches with data."""

    @lru_cache(_EPOCHS_IN_MEMORY)
    def load(epoch: Epoch) -> Exposure:
        exposure: Exposure = butler.get(_find_image(butler, epoch))
        return exposure

    chain = collections.templates(instrument)
    run_name = collections.version_run(chain, f"{band}-{collections.fingerprint(*map(str, epochs))}")
    butler.collections.register(run_name, CollectionType.RUN)
    contributors = _contributors(butler, epochs)
    register_patches(butler, list(contributors))
    number = 0
    for done, (patch, members) in enumerate(sorted(contributors.items())):
        progress(f"template coadds, band {band}", done, len(contributors))
        data_id = {"skymap": SKYMAP.name, "tract": patch.tract, "patch": patch.patch, "band": band}
        if butler.find_dataset("template_coadd", data_id, collections=run_name) is None:
            made = _coadd_patch(patch, band, [load(epoch) for epoch in members])
            if made is None:
                continue
            butler.put(made, "template_coadd", data_id, run=run_name)
        number += 1
    progress(f"template coadds, band {band}", len(contributors), len(contributors))
    butler.collections.prepend_chain(chain, run_name)
    return number


def _contributors(butler: Butler, epochs: list[Epoch]) -> dict[Patch, list[Epoch]]:
    """Return the epochs that reach into each patch, by their fitted WCS."""
    found: dict[Patch, list[Epoch]] = {}
    for epoch in epochs:
        ref = _find_image(butler, epoch)
        if ref is None:
            raise RepositoryError(f"visit {epoch.visit}: its image has vanished from the repository")
        wcs, shape = (butler.get(ref.makeComponentRef(name)) for name in ("wcs", "shape"))
        for patch in SKYMAP.patches_overlapping(detector_region(wcs, shape, padding=0.0)):
            found.setdefault(patch, []).append(epoch)
    return found


def _coadd_patch(patch: Patch, band: str, epochs: list[Exposure]) -> Exposure | None:
    """Return the coadd of one patch [nJy], or `None` if no epoch has data there."""
    wcs, shape = SKYMAP.patch_wcs(patch), SKYMAP.patch_shape
    warps = [warp(epoch.masked_image, epoch.wcs, wcs, shape) for epoch in epochs]
    warps = [warped for warped in warps if not (warped.mask & MaskPlane.NO_DATA != 0).all()]
    if not warps:
        return None
    return Exposure(coadd(warps), unit="nJy", wcs=wcs, info={"band": band, "epochs": len(warps)})
