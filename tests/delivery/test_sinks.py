"""Sinks for alerts and metrics, the store of decisions."""

import gzip
import json
import uuid

import fastavro
import numpy as np
import pandas as pd
import pytest

from local_cloud.visits import detector_visit
from prompt_processing.delivery.archive import AlertArchive, alert_key
from prompt_processing.delivery.decision import Decision
from prompt_processing.delivery.decisions import DecisionStore
from prompt_processing.delivery.memory import MemoryAlerts, MemoryDecisions, MemoryMetrics
from prompt_processing.delivery.metrics import (
    FolderMetrics,
    Measurement,
    VisitMetrics,
    sasquatch_records,
    verify_job,
)
from prompt_processing.delivery.packets import AlertSchema
from prompt_processing.domain.decision import DecisionInfo
from prompt_processing.domain.errors import ConflictError, RepositoryError, StoreError
from prompt_processing.storage import object_store

PACKET = b"\0" + (1101).to_bytes(4, "big") + b"avro"
ID = 214748364800000123


@pytest.fixture(params=["memory", "folder"])
def alerts(request, tmp_path):
    return MemoryAlerts() if request.param == "memory" else AlertArchive(object_store.root(tmp_path))


def sent(sink):
    return sink.packets if isinstance(sink, MemoryAlerts) else {key: sink.read(key) for key in sink.ids()}


def test_alerts_can_be_sent_again(alerts):
    packets = [(ID, PACKET), (ID + 1, PACKET + b"x")]
    alerts.send(packets[:1])
    alerts.send(packets)
    alerts.send(packets)
    assert sent(alerts) == dict(packets)


def test_another_alert_under_the_same_id_is_a_conflict(alerts):
    alerts.send([(ID, PACKET)])
    with pytest.raises(ConflictError, match=str(ID)):
        alerts.send([(ID, PACKET + b"x")])
    assert sent(alerts) == {ID: PACKET}


def test_the_archive_has_the_layout_of_the_alert_database(tmp_path):
    AlertArchive(object_store.root(tmp_path)).send([(ID, PACKET)])
    file = tmp_path / "v2/alerts/214748" / f"{ID}.avro.gz"
    assert gzip.decompress(file.read_bytes()) == PACKET
    schema = json.loads((tmp_path / "v2/schemas/1101.json").read_text())
    assert schema["name"] == "lsst.v11_1.alert"
    fastavro.parse_schema(schema)
    assert (tmp_path / "v2/schemas/1101.json").read_text() == AlertSchema.load().text
    assert alert_key(ID) == f"v2/alerts/214748/{ID}.avro.gz"


def test_an_archived_alert_is_the_same_each_time(tmp_path):
    for name in ("a", "b"):
        AlertArchive(object_store.root(tmp_path / name)).send([(ID, PACKET)])
    assert (tmp_path / "a" / alert_key(ID)).read_bytes() == (tmp_path / "b" / alert_key(ID)).read_bytes()


def test_a_missing_or_damaged_alert_is_named(tmp_path):
    archive = AlertArchive(object_store.root(tmp_path))
    with pytest.raises(RepositoryError, match="no such alert"):
        archive.read(ID)
    archive.send([(ID, PACKET)])
    (tmp_path / alert_key(ID)).write_bytes(b"junk")
    with pytest.raises(RepositoryError, match="damaged"):
        archive.read(ID)


def metrics(**changes):
    return VisitMetrics(
        **{
            "instrument": "LATISS",
            "detector": 0,
            "visit": 3536546312300001,
            "exposure": 2026031500001,
            "group": "2026-03-16T02:01:03.123#1",
            "day_obs": 20260315,
            "band": "r",
            "physical_filter": "SDSSr_65mm~empty",
            "run": "LATISS/prompt/20260315",
            "version": "0.1.0",
            "timestamp": 1773626540.25,
            "measurements": (
                Measurement("prompt.n_dia_sources", 12),
                Measurement("prompt.psf_fwhm", 0.9, "arcsec", "PSF width"),
                Measurement("prompt.zero_point", float("nan"), "mag"),
                Measurement("latency.total", 21.5, "s"),
            ),
            **changes,
        }
    )


def test_a_verify_job():
    job = verify_job(metrics())
    assert set(job) == {"measurements", "blobs", "metrics", "specs", "meta"}
    values = {item["metric"]: (item["value"], item["unit"]) for item in job["measurements"]}
    assert values == {
        "prompt.n_dia_sources": (12, ""),
        "prompt.psf_fwhm": (0.9, "arcsec"),
        "prompt.zero_point": (None, "mag"),
        "latency.total": (21.5, "s"),
    }
    assert [item["name"] for item in job["metrics"]] == list(values)
    json.dumps(job, allow_nan=False)


def test_sasquatch_records_follow_their_own_schema():
    bodies = sasquatch_records(metrics())
    assert list(bodies) == ["lsst.prompt.prompt", "lsst.prompt.latency"]
    body = bodies["lsst.prompt.prompt"]
    record = body["records"][0]["value"]
    schema = json.loads(body["value_schema"])
    assert (schema["namespace"], schema["name"]) == ("lsst.prompt", "prompt")
    assert fastavro.validate(record, fastavro.parse_schema(schema))
    types = {field["name"]: field["type"] for field in schema["fields"]}
    assert set(types) == set(record)
    assert types["timestamp"] == types["run_timestamp"] == "double"
    assert (types["n_dia_sources"], types["psf_fwhm"]) == ("int", "float")
    # Identifiers of 64 bits go as text, and what could not be measured is left out.
    assert record["visit"] == "3536546312300001"
    assert record["tract"] == ""
    assert "zero_point" not in record
    assert uuid.UUID(record["id"])
    assert sasquatch_records(metrics()) == bodies


def test_metrics_of_the_same_visit_are_replaced(tmp_path):
    folder, memory = FolderMetrics(object_store.root(tmp_path)), MemoryMetrics()
    better = metrics(measurements=(Measurement("prompt.n_dia_sources", 13),))
    for sink in (folder, memory):
        sink.send(metrics())
        sink.send(better)
    assert list(memory.metrics.values()) == [better]
    name = "LATISS/20260315/3536546312300001_0.json"
    assert json.loads((tmp_path / "verify" / name).read_text()) == verify_job(better)
    stored = json.loads((tmp_path / "sasquatch/lsst.prompt.prompt" / name).read_text())
    assert stored == sasquatch_records(better)["lsst.prompt.prompt"]


def test_metrics_that_cannot_be_written_are_a_store_error(tmp_path):
    (tmp_path / "verify").write_bytes(b"")
    with pytest.raises(StoreError, match="verify"):
        FolderMetrics(object_store.root(tmp_path)).send(metrics())


def test_a_metric_has_a_package():
    with pytest.raises(ValueError, match=r"package\.metric"):
        Measurement("lonely", 1.0)


def decision(attempt=1):
    info = DecisionInfo(
        instrument="LATISS",
        group="g#1",
        detector=0,
        day_obs=20260315,
        exposure=2026031500001,
        visit=5,
        midpoint_mjd_tai=61115.0,
        shutter_close_mjd_tai=61115.0002,
        raws=("LATISS/20260315/AT_O_20260315_000001/AT_O_20260315_000001_R00_S00.fits",),
        attempt=attempt,
        pipeline="ApPipe",
        alert_schema_id=1101,
    )
    rows = pd.DataFrame({"diaSourceId": np.array([ID + attempt], dtype=np.int64)})
    return Decision(info, rows, rows, rows, ((ID, PACKET),))


@pytest.fixture(params=["memory", "folder"])
def decisions(request, tmp_path):
    return MemoryDecisions() if request.param == "memory" else DecisionStore(object_store.root(tmp_path))


def test_the_first_decision_stands(decisions):
    visit = detector_visit(groupId="g#1", startTime=1773626463.0)
    assert decisions.find(visit) is None
    assert decisions.store(decision()) == decision()
    assert decisions.store(decision(attempt=2)) == decision()
    assert decisions.find(visit) == decision()
    assert list(decisions.all()) == [decision()]


@pytest.mark.parametrize("hours", [-6.0, 6.0])
def test_a_decision_is_found_from_the_other_side_of_noon(decisions, hours):
    noon = 1773576000.0  # 2026-03-15T12:00
    decisions.store(decision())
    assert decisions.find(detector_visit(groupId="g#1", startTime=noon + hours * 3600)) == decision()
    assert decisions.find(detector_visit(groupId="g#1", startTime=noon - 13 * 3600)) is None


def test_a_decision_under_a_key_without_the_day_is_found(tmp_path):
    store = object_store.root(tmp_path)
    object_store.create(object_store.child(store, "LATISS/g_231/0.zip"), decision().to_bytes())
    assert DecisionStore(store).find(detector_visit(groupId="g#1")) == decision()


def test_metrics_of_a_visit_that_was_never_taken():
    made = metrics(
        visit=None,
        exposure=None,
        band=None,
        physical_filter=None,
        run=None,
        status="skipped",
        reason="no-image",
    )
    meta = verify_job(made)["meta"]
    assert (meta["visit"], meta["run"], meta["status"], meta["reason"]) == ("", "", "skipped", "no-image")
    for body in sasquatch_records(made).values():
        record = body["records"][0]["value"]
        assert fastavro.validate(record, fastavro.parse_schema(json.loads(body["value_schema"])))
        assert (record["exposure"], record["band"], record["reason"]) == ("", "", "no-image")


def test_metrics_without_a_visit_have_a_file_of_their_own(tmp_path):
    sink = FolderMetrics(object_store.root(tmp_path))
    sink.send(metrics())
    sink.send(metrics(visit=None, status="skipped", reason="no-image"))
    names = sorted(path.name for path in tmp_path.glob("verify/LATISS/20260315/*.json"))
    assert names == ["2026-03-16T02_3A01_3A03.123_231_0.json", "3536546312300001_0.json"]


def test_metrics_as_text_are_the_same_metrics():
    made = metrics(measurements=(Measurement("prompt.zero_point", float("inf"), "mag"),), reason="")
    assert VisitMetrics.from_json(made.to_json()) == made
    (item,) = VisitMetrics.from_json(
        metrics(measurements=(Measurement("a.b", float("nan")),)).to_json()
    ).measurements
    assert item.value != item.value
