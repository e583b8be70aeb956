"""The same pipeline by the worker and by ``pipetask run``: outputs must be equal."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from lsst.daf.butler import Butler

from prompt_processing.apdb.sql import SqlApdb
from prompt_processing.config import Settings, shipped_pipelines
from prompt_processing.delivery.products import ButlerProducts
from prompt_processing.domain import collections
from prompt_processing.domain.clock import WallClock
from prompt_processing.domain.outcome import Stopwatch
from prompt_processing.factory.stores import Stores
from prompt_processing.instruments.fan_out import detector_visits
from prompt_processing.instruments.ingest import read_observation
from prompt_processing.instruments.skymap import SKYMAP
from prompt_processing.night.folder import read_events
from prompt_processing.preload.preloader import Preloader
from prompt_processing.selection.rules import Rule
from prompt_processing.selection.selection import Selection
from prompt_processing.storage import object_store
from prompt_processing.worker.pixels import ButlerPixels


def assert_pipetask_agrees(repo, night, instrument, pipeline):
    """Run a shipped pipeline in both ways on the first raw of a repository that was played into."""
    file = shipped_pipelines() / instrument / f"{pipeline}.yaml"
    with Butler.from_config(repo, writeable=True) as butler:
        outputs = process_with(file, repo, night, butler)
        raw = next(ref for ref in outputs if ref.datasetType.name == "raw")
    exposure, detector = raw.dataId["exposure"], raw.dataId["detector"]
    run = next(ref.run for ref in outputs if ref.run != raw.run)
    where = (
        f"instrument='{instrument}' AND exposure={exposure} AND detector={detector} "
        f"AND skymap='{SKYMAP.name}'"
    )
    command = [
        str(Path(sys.executable).with_name("pipetask")), "run", "-b", str(repo), "-p", str(file),
        "-i", f"{run},{collections.defaults(instrument)}", "--output-run", "u/test/pipetask",
        "-d", where,
        "--register-dataset-types",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    compared = set()
    with Butler.from_config(repo) as butler:
        for ref, ours in outputs.items():
            name = ref.datasetType.name
            if name in TABLES + IMAGES + DICTS:
                assert_same(name, ours, butler.get(name, ref.dataId, collections="u/test/pipetask"))
                compared.add(name)
    assert compared == COMPARED[pipeline]


def process_with(pipeline, repo, night, butler):
    """Process the first raw as a worker does, and return what it keeps, read from the central Butler."""
    settings = Settings.load(repo)
    preloader = Preloader(
        central=butler,
        apdb=SqlApdb(settings.apdb.database_url, months=12),
        selection=Selection(
            (Rule(name="all", pipelines=(pipeline.name,)),), pipeline.parent.joinpath, "test"
        ),
        overrides=Stores.open(repo).overrides,
        padding=settings.worker.padding_arcsec,
        cache_bytes=0,
    )
    incoming = Path(settings.repository.incoming)
    pixels = ButlerPixels(preloader, object_store.root(incoming), incoming, settings.worker)
    raw = min(incoming.rglob("*.fits*"))
    observation = read_observation(raw)
    active = {observation.instrument: [observation.detector_num]}
    (visit,) = next(
        detector_visits(event, active)
        for event in read_events(night / "events.jsonl", print)
        if event.groupId == observation.exposure_group
    )
    with pixels.prepare(visit, Stopwatch()) as prepared:
        prepared.process([str(raw.relative_to(incoming))], Stopwatch())
        products = prepared.products(prepared.decide(1, (), WallClock().now()))
    ButlerProducts(butler, Path(settings.repository.work)).store(products)
    refs = [*products.datasets, *(raw.ref for raw in products.raws)]
    return {ref: butler.get(ref) for ref in refs}


TABLES = [
    "single_visit_star", "dia_source_unfiltered", "dia_source_detector", "dia_source_apdb", "dia_object_apdb",
    "dia_forced_source_apdb",
]  # fmt: skip
IMAGES = ["post_isr_image", "preliminary_visit_image", "template_detector", "difference_image"]
DICTS = ["preliminary_visit_summary", "difference_image_metrics", "difference_kernel"]
COMPARED = {
    "ApPipe": set(TABLES + IMAGES + DICTS) - {"post_isr_image"},
    "SingleFrame": {"single_visit_star", "preliminary_visit_image", "preliminary_visit_summary"},
    "Isr": {"post_isr_image"},
}
"""What each pipeline keeps of that."""


def assert_same(name, one, two):
    if name in TABLES:
        frames = [value if isinstance(value, pd.DataFrame) else value.to_pandas() for value in (one, two)]
        if name.endswith("_apdb"):
            # The worker keeps what it has decided: all columns of the APDB, with its types.
            frames[0] = frames[0][frames[1].columns]
            frames[1] = frames[1].astype(frames[0].dtypes)
        pd.testing.assert_frame_equal(*frames, check_exact=True)
    elif name in IMAGES:
        for plane in ("image", "variance", "mask"):
            np.testing.assert_array_equal(
                getattr(one.masked_image, plane), getattr(two.masked_image, plane), err_msg=f"{name}.{plane}"
            )
        corners = np.array([[0.0, 0.0], [300.5, 200.25]])
        if one.wcs is not None:
            np.testing.assert_array_equal(
                one.wcs.all_pix2world(corners, 0), two.wcs.all_pix2world(corners, 0)
            )
        assert one.info == two.info
    else:
        assert one.keys() == two.keys()
        for key, value in one.items():
            np.testing.assert_array_equal(value, two[key], err_msg=f"{name}.{key}")
