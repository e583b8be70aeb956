"""A night from raws to alerts, on real files and databases."""

import io
import json
import sqlite3
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from lsst.daf.butler import Butler

from prompt_processing.apdb.sql import SqlApdb
from prompt_processing.config import Settings
from prompt_processing.delivery.archive import AlertArchive
from prompt_processing.delivery.packets import decode
from prompt_processing.domain.outcome import Status
from prompt_processing.ledger.sql import SqlLedger
from prompt_processing.storage import database
from prompt_processing.storage.object_store import root
from prompt_processing.views.collect import collect
from support.equal import assert_pipetask_agrees
from support.nights import contents, copy_repository, decisions, play

pytestmark = pytest.mark.slow

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
    archive, apdb = AlertArchive(root(places.alerts)), SqlApdb(Settings.load(repo).apdb.database_url)
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
    apdb = Path(Settings.load(repo).apdb.url.get_secret_value())
    before = [contents(folder) for folder in folders], dump(apdb)
    visits, _ = play(repo, night)
    assert [visit.outcome.status for visit in visits] == [Status.PROCESSED] * 2
    assert len(ledger.find(visit.key).attempts) == 2
    assert ([contents(folder) for folder in folders], dump(apdb)) == before
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
    repo = copy_repository(played[0], tmp_path / "repo")
    assert_pipetask_agrees(repo, night, "LATISS", pipeline)
