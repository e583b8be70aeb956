"""The composition for people with Docker, as far as it can be tested without."""

import os
import shutil
import subprocess
import uuid
from pathlib import Path

import pytest
import yaml

from local_cloud.emulators import GCS_VERSION
from local_cloud.servers import LOOPBACK, ServerMissingError
from local_cloud.topology import storage, subscriber
from prompt_processing.config import Settings

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((ROOT / "compose.yaml").read_text())


def test_the_composition_publishes_on_this_machine_only_and_has_the_tested_versions(compose):
    services = compose["services"]
    assert set(services) == {"pubsub", "gcs", "postgres", "setup", "activator", "arrivals"}
    for name, service in services.items():
        assert all(port.startswith(f"{LOOPBACK}:") for port in service.get("ports", ())), name
        image = service.get("image", "")
        assert not image or image.rpartition(":")[2] not in {"", "latest"}, name
    assert services["gcs"]["image"].endswith(f":{GCS_VERSION.removeprefix('v')}")


def test_the_settings_of_the_composition_are_settings(compose, monkeypatch, tmp_path):
    for name in ("activator", "arrivals"):
        with monkeypatch.context() as environment:
            for variable, value in compose["services"][name]["environment"].items():
                environment.setenv(variable, value)
            settings = Settings.load(tmp_path)
        assert settings.repository.incoming == "gs://prompt-incoming"
        assert len(settings.push.subscriptions) == 1


def find_curl():
    if shutil.which("curl") is None:
        raise ServerMissingError("curl is not installed (on Debian: apt-get install curl)")


def test_the_script_of_the_composition_makes_the_same_as_the_tests_have(
    compose, own_topology, pubsub, gcs, require_services
):
    require_services(find_curl)
    own = uuid.uuid4().hex[:12]
    topology = own_topology(push_endpoint="http://activator:8080/", arrivals_endpoint="http://arrivals:8080/")
    names = {"PROJECT": f"prompt-{own}", "INCOMING": f"in-{own}", "PRODUCTS": f"out-{own}"}
    service = compose["services"]["setup"]
    assert set(service["environment"]) == {*names, "PUBSUB", "GCS"}
    command = [*service["entrypoint"], service["command"][0].replace("$$", "$")]
    places = {"PUBSUB": f"http://{pubsub.host}", "GCS": gcs.url}
    for _ in range(2):
        subprocess.run(command, env={**os.environ, **names, **places}, timeout=60, check=True)
    with subscriber(pubsub.host) as client:
        for theirs in (topology.activator, topology.arrivals, topology.dead_letter):
            wanted = client.get_subscription(subscription=theirs)
            made = client.get_subscription(subscription=theirs.replace(topology.project, names["PROJECT"]))
            for field in ("push_config", "filter", "retry_policy"):
                assert getattr(made, field) == getattr(wanted, field), (theirs, field)
            for field in ("name", "topic"):
                same = getattr(made, field).replace(names["PROJECT"], topology.project)
                assert same == getattr(wanted, field), theirs
    with storage(gcs.url) as client:
        assert client.bucket(names["PRODUCTS"]).exists()
        (notification,) = client.bucket(names["INCOMING"]).list_notifications()
    assert (notification.topic_project, notification.topic_name) == (names["PROJECT"], "image-arrived")
    assert (notification.event_types, notification.payload_format) == (["OBJECT_FINALIZE"], "NONE")
