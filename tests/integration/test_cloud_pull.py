"""A night on Google Cloud with workers that pull, on emulators: what works, and what may die."""

import time

import pytest
import requests

from local_cloud.cloud import Cloud
from local_cloud.emulators import Proxy, PubSubEmulator
from support.cloud_night import CloudNight

pytestmark = pytest.mark.slow

AWAY = 60.0
"""How long Pub/Sub cannot be reached [s]."""


@pytest.fixture(scope="module")
def cloud(small_night, tmp_path_factory, require_services):
    """A deployment whose services reach Pub/Sub through a proxy that can be cut."""
    folder = tmp_path_factory.mktemp("pull")
    with (
        require_services(PubSubEmulator) as pubsub,
        Proxy("127.0.0.1", pubsub.port) as proxy,
        require_services(
            lambda: Cloud(folder / "repo", pubsub=pubsub, pubsub_proxy=proxy.host, exactly_once=True)
        ) as cloud,
    ):
        cloud.proxy = proxy
        cloud.prompt("night", "prepare", small_night, "--repo", cloud.repo)
        yield cloud


@pytest.fixture(scope="module")
def night(cloud, small_night, tmp_path_factory):
    return CloudNight(cloud, small_night, tmp_path_factory.mktemp("events"))


@pytest.fixture(scope="module")
def services(cloud, night):
    with (
        cloud.puller(**night.settings) as puller,
        cloud.arrivals(**night.settings) as arrivals,
        cloud.push(cloud.topology.arrivals, arrivals, audience="arrivals"),
    ):
        yield puller, arrivals


def test_a_visit_becomes_alerts_and_probes_are_answered_meanwhile(cloud, night, services):
    puller, _ = services
    night.announce(0)
    night.wait_until_working(0)
    for path in ("live", "ready"):
        assert requests.get(puller.url + path, timeout=10.0).status_code == 200
    assert requests.get(puller.url + "elsewhere", timeout=10.0).status_code == 404
    night.upload(0)
    night.wait_until_finished(0)
    night.check(0)


def test_a_worker_that_is_stopped_gives_its_message_back(cloud, night, services):
    puller, _ = services
    night.check_stop(puller, 1)


def test_a_worker_may_be_killed_at_any_moment(cloud, night, services):
    puller, _ = services
    night.announce(2)
    night.wait_until_working(2)
    night.upload(2)
    night.wait_for(lambda: night.record(2).steps)
    puller.kill()
    puller.start()
    night.wait_until_finished(2)
    night.check(2)


def test_pubsub_may_be_out_of_reach_for_a_minute(cloud, night, services):
    # One visit is in work when it goes, one is announced while it is away.
    night.announce(3)
    night.wait_until_working(3)
    cloud.proxy.cut()
    gone = time.monotonic()
    night.upload(3)
    night.wait_until_finished(3)
    night.announce(4, lead=AWAY + 15.0)
    night.upload(4)
    time.sleep(max(0.0, AWAY - (time.monotonic() - gone)))
    cloud.proxy.mend()
    night.wait_until_finished(4)
    night.check(3, 4)
