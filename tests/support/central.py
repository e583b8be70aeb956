"""A small central Butler for trivial pipelines: calibs, four patches and the records of many visits."""

from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from astropy.time import Time
from lsst.daf.butler import Butler, CollectionType, Timespan

from local_cloud.cloud import Cloud
from local_cloud.visits import detector_visit
from prompt_processing.domain import collections
from prompt_processing.domain.visit import DetectorVisit
from prompt_processing.images.exposure import Exposure, MaskedImage
from prompt_processing.instruments.butler import prepare_butler
from prompt_processing.instruments.dataset_types import butler_config
from prompt_processing.instruments.ingest import (
    exposure_records,
    insert_records,
    read_observation,
    visit_records,
)
from prompt_processing.instruments.skymap import SKYMAP, Patch, register_patches
from support import latiss_files

SHAPE = (2 * latiss_files.NY, 8 * latiss_files.NX)
BEGIN = 60486.06105509261
"""When the exposures begin [MJD, TAI]."""
VISITS_IN_REPOSITORY = 10_000

PIPELINE = """
description: Three tasks that do next to nothing.
instrument: prompt_processing.instruments.latiss.Latiss
tasks:
  isr: support.trivial.IsrTask
  calibrate: support.trivial.CalibrateTask
  subtract: support.trivial.SubtractTask
"""
SELECTION = "rules: [{name: all, when: {}, pipelines: [Trivial.yaml]}]"


def corner() -> tuple[float, float]:
    """Return a position at which four patches meet [deg]."""
    wcs = SKYMAP.patch_wcs(Patch(SKYMAP.tract_at(223.75, -20.0), 13 * SKYMAP.patches + 13))
    edge = SKYMAP.patch_border
    ra, dec = wcs.wcs_pix2world([[edge, edge]], 0)[0]
    return float(ra), float(dec)


def write_raws(incoming: Path, number: int) -> list[str]:
    """Write raws of one field, and return their keys."""
    ra, dec = corner()
    keys = []
    for index in range(number):
        obs_id = f"AT_O_20240624_{index + 200:06d}"
        key = f"LATISS/20240624/{obs_id}/{obs_id}_R00_S00.fits"
        header = latiss_files.primary_header(
            OBSID=obs_id, SEQNUM=index + 200, GROUPID=f"group-{index}", RA=ra, DEC=dec
        )
        latiss_files.write(incoming / key, header)
        keys.append(key)
    return keys


def message(index: int, **changes: Any) -> DetectorVisit:
    """Return the message that announced a raw."""
    event = {
        "groupId": f"group-{index}",
        "position": list(corner()),
        "cameraAngle": 98.5,
        "startTime": float(Time(BEGIN, format="mjd", scale="tai").unix_tai) - 1.0,
        "duration": 33.0,
    }
    return detector_visit(**{**event, **changes})


def make_central(root: Path, raw: Path, visits: int = 10, registry: str | None = None) -> Butler:
    """Make a central Butler with calibs, four template patches and the records of many visits."""
    config = butler_config()
    if registry is not None:
        with sa.create_engine(registry).begin() as connection:
            connection.execute(sa.text("CREATE EXTENSION IF NOT EXISTS btree_gist"))
        config["registry", "db"] = registry
    Butler.makeRepo(str(root), config=config, forceConfigRoot=registry is None)
    butler = Butler.from_config(str(root), writeable=True)
    prepare_butler(butler)
    run, calibs, templates = "calibs", collections.calibs("LATISS"), "LATISS/templates/r"
    for name in (run, templates):
        butler.collections.register(name, CollectionType.RUN)
    frame = np.ones(SHAPE, np.float32)
    refs = [butler.put(frame, name, instrument="LATISS", detector=0, run=run) for name in ("bias", "dark")]
    refs.append(
        butler.put(
            frame, "flat", instrument="LATISS", detector=0, physical_filter="SDSSr_65mm~empty", run=run
        )
    )
    refs.append(butler.put({"shape": list(SHAPE)}, "ptc", instrument="LATISS", detector=0, run=run))
    butler.registry.certify(calibs, refs, Timespan(None, None))
    tract = SKYMAP.tract_at(*corner())
    patches = [Patch(tract, (13 + y) * SKYMAP.patches + 13 + x) for y in (-1, 0) for x in (-1, 0)]
    register_patches(butler, patches)
    for patch in patches:
        pixels = np.zeros((256, 256), np.float32)
        planes = MaskedImage(pixels, pixels, pixels.astype(np.uint16))
        butler.put(
            Exposure(planes, unit="nJy", wcs=SKYMAP.patch_wcs(patch)),
            "template_coadd", skymap=SKYMAP.name, tract=tract, patch=patch.patch, band="r", run=templates,
        )  # fmt: skip
    butler.collections.redefine_chain(collections.templates("LATISS"), [templates])
    add_visits(butler, raw, visits)
    return butler


def add_visits(butler: Butler, raw: Path, number: int) -> None:
    """Insert the records of many visits that look like one raw."""
    observation = read_observation(raw)
    universe = butler.dimensions
    records = [*exposure_records(universe, observation), *visit_records(universe, [observation], SHAPE)]
    insert_records(butler, records, raw)
    for record in records:
        element = record.definition.name
        if not {"exposure", "visit"} & set(record.definition.required.names):
            continue
        rows = []
        for index in range(number):
            row = record.toDict()
            for key in {"id", "exposure", "visit"} & row.keys():
                row[key] = 3_000_000_000_000 + index
            for key in {"obs_id", "name"} & row.keys():
                row[key] = f"AT_X_{index:06d}"
            rows.append(row)
        butler.registry.insertDimensionData(element, *rows)


def prepare_central(cloud: Cloud, folder: Path, number: int) -> list[str]:
    """Make a repository with a registry in PostgreSQL, files in folders, and raws; return their keys."""
    for name in ("butler", "incoming", "arrivals", "decisions", "alerts", "metrics", "overrides"):
        cloud.environment[f"PROMPT_REPOSITORY__{name.upper()}"] = str(folder / name)
    cloud.environment["PROMPT_PUBSUB__SUBSCRIPTION"] = cloud.topology.activator
    keys = write_raws(folder / "incoming", number)
    make_central(
        folder / "butler",
        folder / "incoming" / keys[0],
        VISITS_IN_REPOSITORY,
        cloud.environment["PROMPT_REPOSITORY__REGISTRY"],
    ).close()
    cloud.prompt("repo", "create", cloud.repo)
    pipelines = cloud.repo / "pipelines"
    pipelines.mkdir()
    (pipelines / "selection.yaml").write_text(SELECTION)
    (pipelines / "Trivial.yaml").write_text(PIPELINE)
    return keys
