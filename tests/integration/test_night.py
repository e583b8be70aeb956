"""A night from raws to alerts, on real files and databases."""

import io
import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from lsst.daf.butler import Butler

from prompt_processing import database
from prompt_processing.apdb.sql import SqlApdb
from prompt_processing.config import Settings, shipped_pipelines
from prompt_processing.delivery.archive import AlertArchive
from prompt_processing.delivery.packets import decode
from prompt_processing.delivery.products import ButlerProducts
from prompt_processing.domain import collections
from prompt_processing.domain.clock import WallClock
from prompt_processing.domain.outcome import Status, Stopwatch
from prompt_processing.execution.rules import Rule
from prompt_processing.execution.selection import Selection
from prompt_processing.factory import open_overrides
from prompt_processing.instruments.fan_out import detector_visits
from prompt_processing.instruments.ingest import read_observation
from prompt_processing.instruments.skymap import SKYMAP
from prompt_processing.ledger.sql import SqlLedger
from prompt_processing.objects import root
from prompt_processing.preload.preloader import Preloader
from prompt_processing.web.collect import collect
from prompt_processing.worker.pixels import ButlerPixels
from prompt_processing.worker.player import read_events
from support.nights import contents, copy_repository, decisions, play

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("night")]

PROCESSING_TIMES = ["timeProcessedMjdTai"]


def test_every_visit_is_processed_and_its_alerts_are_out(played):
    repo, visits = played
    assert [(visit.outcome.status, visit.outcome.flags) for visit in visits] == [(Status.PROCESSED, ())] * 2
    assert all(visit.n_alerts > 0 and visit.latency_s > 0 for visit in visits)
    archived = list(AlertArchive(root(Settings.load(repo).repository.alerts)).ids())
    assert len(archived) == sum(visit.n_alerts for visit in visits)


def test_bright_transients_are_found_where_and_as_bright_as_they_are(played, night):
    repo, _ = played
    assessment = collect(repo, night).assessment
    assert assessment.n_bright >= 10
    assert assessment.completeness_bright >= 0.9
    assert assessment.astrometric_error_arcsec <= 0.1
    assert abs(assessment.flux_bias) <= 0.05


def test_an_alert_tells_what_the_apdb_holds_and_shows_three_cutouts(played):
    repo, _ = played
    places = Settings.load(repo).repository
    archive, apdb = AlertArchive(root(places.alerts)), SqlApdb(places.apdb_url)
    with_history = 0
    for source_id in archive.ids():
        alert = decode(archive.read(source_id))
        rows = apdb.visit_sources(alert["diaSource"]["visit"], alert["diaSource"]["detector"])
        row = rows[rows["diaSourceId"] == source_id].iloc[0]
        assert alert["diaSource"]["psfFlux"] == pytest.approx(row["psfFlux"], nan_ok=True)
        assert alert["diaObject"]["diaObjectId"] == row["diaObjectId"]
        for name in ("cutoutScience", "cutoutTemplate", "cutoutDifference"):
            with fits.open(io.BytesIO(alert[name])) as hdus:
                assert hdus[0].data.shape[0] == hdus[0].data.shape[1] >= 30
                assert hdus[0].header["CTYPE1"].startswith("RA---TAN")
        with_history += bool(alert["prvDiaSources"])
    assert with_history >= 3


def test_products_are_in_the_central_butler_and_metrics_are_written(played):
    repo, _ = played
    places = Settings.load(repo).repository
    with Butler.from_config(places.butler) as butler:
        for name in ("preliminary_visit_image", "difference_image", "dia_source_apdb"):
            assert len(butler.query_datasets(name, collections="LATISS/prompt/*", find_first=False)) == 2
        ref = butler.query_datasets("difference_image", collections="LATISS/prompt/*", find_first=False)[0]
        image = butler.get(ref)
        assert image.unit == "nJy"
        assert np.isfinite(image.masked_image.image).mean() > 0.9
    jobs = [json.loads(path.read_text()) for path in Path(places.metrics, "verify").rglob("*.json")]
    names = {item["metric"] for job in jobs for item in job["measurements"]}
    assert {"preliminary_visit_summary.psf_fwhm", "alerts.time_since_shutter_close"} <= names
    assert len(jobs) == 2


def test_nothing_of_a_worker_is_left_behind(played):
    repo, _ = played
    assert [path.name for path in Path(Settings.load(repo).repository.work).rglob("*.yaml")] == []


def test_playing_the_night_again_changes_nothing(played, night, tmp_path):
    repo = copy_repository(played[0], tmp_path / "again")
    files, rows = contents(repo), dump(repo)
    visits, problems = play(repo, night)
    assert problems == []
    assert [visit.outcome.status for visit in visits] == [Status.PROCESSED] * 2
    assert contents(repo) == files
    assert dump(repo) == rows


def test_a_visit_that_is_taken_up_again_changes_nothing_in_the_world(played, night, tmp_path):
    repo = copy_repository(played[0], tmp_path / "again")
    places = Settings.load(repo).repository
    ledger = SqlLedger(database.engine(places.ledger_url))
    visit = ledger.detector_visits()[0].visit
    assert ledger.reopen(visit.key)
    folders = [Path(place) for place in (places.alerts, places.decisions, places.arrivals)]
    before = [contents(folder) for folder in folders], dump(Path(places.apdb))
    visits, _ = play(repo, night)
    assert [visit.outcome.status for visit in visits] == [Status.PROCESSED] * 2
    assert len(ledger.find(visit.key).attempts) == 2
    assert ([contents(folder) for folder in folders], dump(Path(places.apdb))) == before
    with Butler.from_config(places.butler) as butler:
        images = butler.query_datasets("difference_image", collections="LATISS/prompt/*", find_first=False)
    assert len(images) == 2


def test_another_repository_gets_equal_rows_and_packets(played, repo, night):
    play(repo, night)
    pairs = list(zip(decisions(played[0]), decisions(repo), strict=True))
    assert len(pairs) == 2
    for first, second in pairs:
        assert first.info == second.info
        for table in ("dia_source", "dia_object", "dia_forced_source"):
            one, two = (
                getattr(decision, table).drop(columns=PROCESSING_TIMES, errors="ignore")
                for decision in (first, second)
            )
            pd.testing.assert_frame_equal(one, two, check_exact=True)
        assert [without_times(data) for _, data in first.packets] == [
            without_times(data) for _, data in second.packets
        ]


def without_times(packet):
    """Return an alert without the times of processing."""

    def strip(value):
        if isinstance(value, dict):
            return {key: strip(item) for key, item in value.items() if key not in PROCESSING_TIMES}
        return [strip(item) for item in value] if isinstance(value, list) else value

    return strip(decode(packet))


def dump(repo):
    """Return every row of every database of a repository."""
    rows = {}
    for file in sorted(repo.rglob("*.sqlite3")):
        connection = sqlite3.connect(file)
        rows[file.relative_to(repo).as_posix()] = list(connection.iterdump())
        connection.close()
    return rows


@pytest.mark.parametrize("pipeline", ["ApPipe", "SingleFrame", "Isr"])
def test_pipetask_gives_the_same_outputs_as_the_worker(played, night, tmp_path, pipeline):
    repo = tmp_path / "repo"
    shutil.copytree(played[0], repo)
    file = shipped_pipelines() / "LATISS" / f"{pipeline}.yaml"
    with Butler.from_config(repo, writeable=True) as butler:
        outputs = process_with(file, repo, night, butler)
        raw = next(ref for ref in outputs if ref.datasetType.name == "raw")
    exposure, run = raw.dataId["exposure"], next(ref.run for ref in outputs if ref.run != raw.run)
    command = [
        str(Path(sys.executable).with_name("pipetask")), "run", "-b", str(repo), "-p", str(file),
        "-i", f"{run},{collections.defaults('LATISS')}", "--output-run", "u/test/pipetask",
        "-d", f"instrument='LATISS' AND exposure={exposure} AND detector=0 AND skymap='{SKYMAP.name}'",
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
        apdb=SqlApdb(settings.repository.apdb_url, months=12),
        selection=Selection(
            (Rule(name="all", pipelines=(pipeline.name,)),), pipeline.parent.joinpath, "test"
        ),
        overrides=open_overrides(repo),
        padding=settings.worker.padding_arcsec,
        cache_bytes=0,
    )
    incoming = Path(settings.repository.incoming)
    pixels = ButlerPixels(preloader, incoming, settings.worker)
    raw = min(incoming.rglob("*.fits*"))
    (visit,) = next(
        detector_visits(event)
        for event in read_events(night / "events.jsonl", print)
        if event.groupId == read_observation(raw).exposure_group
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
