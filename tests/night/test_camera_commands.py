"""``prompt camera`` as a user calls it."""

import json
import time
import uuid

import pytest
from click.testing import CliRunner

from prompt_processing.cli import main
from prompt_processing.domain.visit import parse_message
from prompt_processing.factory.create import create_repository
from prompt_processing.factory.stores import Stores
from support.nights import contents

PAST = ("--clock-offset", "0")
"""The night is over on this clock: everything is done at once."""


def run(*arguments, code=0):
    result = CliRunner().invoke(main, ["camera", *map(str, arguments)])
    assert result.exit_code == code, (result.output, result.exception)
    return result


@pytest.fixture
def incoming(tmp_path):
    return tmp_path / "incoming"


def test_upload_and_upload_again(make_night, incoming):
    night = make_night(2)
    out = run("upload", night.folder, "--to", incoming).stdout
    assert out == f"{incoming}: 2 raws uploaded, 0 were there already, 0 failed\n"
    out = run("upload", night.folder, "--to", incoming, "--threads", 1).stdout
    assert out.splitlines()[:2] == [f"there already: {key}" for key in night.keys]
    assert out.splitlines()[2] == f"{incoming}: 0 raws uploaded, 2 were there already, 0 failed"
    assert contents(incoming) == contents(night.folder / "raw")


def test_a_failed_upload_has_its_exit_status(make_night, incoming):
    night = make_night(2)
    place = incoming / night.keys[0]
    place.parent.mkdir(parents=True)
    place.write_bytes(b"")
    out = run("upload", night.folder, "--to", incoming, code=1).stdout
    assert "another object is there already" in out
    assert "1 raws uploaded, 0 were there already, 1 failed" in out


def test_a_file_that_is_no_raw_is_refused_before_anything_is_uploaded(make_night, incoming, tmp_path):
    odd = tmp_path / "odd.fits"
    odd.write_bytes(b"")
    error = run("upload", make_night(1).folder, odd, "--to", incoming, code=1).stderr
    assert "is not named like a raw" in error
    assert not incoming.exists()


def test_play_into_the_queue_of_a_repository(make_night, tmp_path):
    night = make_night(2)
    repo = tmp_path / "repo"
    create_repository(repo)
    destination = f"queue:{repo}"
    out = run("play", night.folder, "--to", repo / "incoming", "--events", destination, *PAST).stdout
    assert out.splitlines()[:3] == [
        "Services that process this night need this setting:",
        "PROMPT_WORKER__CLOCK_OFFSET_S=0.000",
        "2 events and 2 raws in 0.9 minutes",
    ]
    assert "2 events published (2 messages), 2 raws uploaded, 0 were there already, 0 lost, 0 actions" in out
    assert contents(repo / "incoming") == contents(night.folder / "raw")
    queue = Stores.open(repo).publisher
    groups = [parse_message(queue.receive(0.0).delivery.body).groupId for _ in range(2)]
    assert groups == night.groups
    assert queue.receive(0.0) is None


def test_play_in_real_time(make_night, incoming):
    night = make_night(1, ahead=0.0)
    times = ("--lead", 0, "--start-in", 0, "--jitter", 0, "--cadence", 1)
    start = time.monotonic()
    result = run("play", night.folder, "--to", incoming, "--events", "stdout", *times)
    (line,) = result.stdout.splitlines()
    assert json.loads(line)["groupId"] == night.groups[0]
    assert "warning: headers of the raws differ from events in time" in result.stderr
    # The shutter is open for 1 s, and reading takes 2 s.
    assert "1 events and 1 raws in 0" in result.stderr
    assert 2.9 < time.monotonic() - start < 30.0
    assert "1 raws uploaded" in result.stderr


def test_play_with_faults(make_night, incoming):
    night = make_night(2)
    faults = ("--lost", 1, "--duplicate", 1, "--seed", 7)
    out = run("play", night.folder, "--to", incoming, "--events", "none", *PAST, *faults).stdout
    assert f"lost: {night.keys[0]}" in out
    assert "4 events published (4 messages), 0 raws uploaded, 0 were there already, 2 lost" in out


@pytest.mark.parametrize("destination", ["kafka:", "pubsub:topic", "queue:", "stdout:x", "nowhere"])
def test_an_unknown_destination_is_told_with_those_that_there_are(make_night, incoming, destination):
    error = run("play", make_night(1).folder, "--to", incoming, "--events", destination, code=1).stderr
    assert destination in error
    assert "queue:REPO, pubsub:projects/PROJECT/topics/TOPIC, kafka:REPO, stdout, none" in error


@pytest.mark.parametrize("cadence", ["0", "-3", "nan", "inf", "fast"])
def test_a_cadence_that_is_none_is_refused(make_night, incoming, cadence):
    arguments = ("--to", incoming, "--events", "none", "--cadence", cadence)
    assert "neither a positive number" in run("play", make_night(1).folder, *arguments, code=2).stderr


def test_a_night_of_which_nothing_can_be_played_is_told(make_night, incoming):
    night = make_night(1)
    file = night.folder / "events.jsonl"
    event = {**json.loads(file.read_text()), "coordinateSystem": 4}
    file.write_text(json.dumps(event))
    night.raws[0].unlink()
    error = run("play", night.folder, "--to", incoming, "--events", "none", code=1).stderr
    assert "there is nothing to play" in error


def test_play_into_a_bucket_and_a_topic(make_night, pubsub, gcs, monkeypatch):
    from local_cloud.topology import make_topology, storage
    from prompt_processing.messaging.pubsub import PubSubQueue

    name = uuid.uuid4().hex[:8]
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", pubsub.host)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
    own = {"project": f"camera-{name}", "incoming": f"camera-in-{name}", "products": f"camera-out-{name}"}
    topology = make_topology(pubsub.host, gcs.url, **own)
    night, store = make_night(2), f"gs://{topology.incoming}/night"
    destination = f"pubsub:{topology.next_visit}"
    out = run("play", night.folder, "--to", store, "--events", destination, *PAST, "--duplicate", 1).stdout
    assert "4 events published (4 messages), 2 raws uploaded, 2 were there already" in out
    assert "0 raws uploaded, 2 were there already" in run("upload", night.folder, "--to", store).stdout
    queue = PubSubQueue(topology.activator)
    groups = {parse_message(queue.receive(10.0).delivery.body).groupId for _ in range(4)}
    queue.close()
    assert groups == set(night.groups)
    blobs = {blob.name: blob for blob in storage(gcs.url).list_blobs(topology.incoming)}
    keys = [f"night/{key}" for key in night.keys]
    assert blobs.keys() == {*keys, *(key.replace(".fits", ".json") for key in keys)}
    for key, raw in zip(keys, night.raws, strict=True):
        assert blobs[key].download_as_bytes() == raw.read_bytes()
        assert blobs[key.replace(".fits", ".json")].time_created <= blobs[key].time_created
