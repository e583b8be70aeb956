"""A night on Google Cloud by push, on emulators: what works, and what may die."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from local_cloud.cloud import PUSHER, Cloud
from prompt_processing.messaging.webhook import WebhookPublisher
from prompt_processing.serving.envelope import WEBHOOK
from support.cloud_night import PATIENCE, CloudNight

pytestmark = pytest.mark.slow

LATE = 6.0
"""How long the images of a store that is away keep coming late [s]."""


@pytest.fixture(scope="module")
def cloud(small_night, tmp_path_factory, require_services):
    """A deployment with servers of its own, which tests may kill."""
    folder = tmp_path_factory.mktemp("push")
    with require_services(lambda: Cloud(folder / "repo")) as cloud:
        cloud.prompt("night", "prepare", small_night, "--repo", cloud.repo)
        yield cloud


@pytest.fixture(scope="module")
def night(cloud, small_night, tmp_path_factory):
    return CloudNight(cloud, small_night, tmp_path_factory.mktemp("events"))


@pytest.fixture(scope="module")
def services(cloud, night):
    """Activator and arrivals service, and what pushes to them."""
    allowed = {"PROMPT_PUSH__SUBSCRIPTIONS": json.dumps([cloud.topology.activator, WEBHOOK])}
    with (
        cloud.activator(**night.settings, **allowed) as activator,
        cloud.arrivals(**night.settings) as arrivals,
        cloud.push(cloud.topology.activator, activator, audience="activator", instance_concurrency=1),
        cloud.push(cloud.topology.arrivals, arrivals, audience="arrivals"),
    ):
        yield activator, arrivals


def post(cloud, service, body, **headers):
    """Push a message by hand, and return the answer."""
    token = cloud.issuer.issue("activator", PUSHER)
    headers = {
        "Authorization": f"Bearer {token}",
        "x-goog-pubsub-message-id": "by-hand",
        "x-goog-pubsub-subscription-name": cloud.topology.activator,
    } | headers
    return requests.post(service.url, data=body, headers=headers, timeout=10.0)


def test_a_visit_becomes_alerts_and_everything_is_answered_meanwhile(cloud, night, services):
    activator, _ = services
    night.announce(0)
    night.wait_until_working(0)
    (second,) = night.announce(1, publish=False)
    for path in ("live", "ready"):
        assert requests.get(activator.url + path, timeout=10.0).status_code == 200
    # One visit at a time; a warm-up is no visit.
    assert post(cloud, activator, second).status_code == 429
    assert post(cloud, activator, '{"kind": "warmup", "instrument": "LATISS"}').status_code == 204
    night.publish(second)
    night.upload(0)
    night.wait_until_finished(0)
    night.wait_until_working(1)
    night.upload(1)
    night.wait_until_finished(1)
    night.check(0, 1)


def test_a_message_that_comes_again_changes_nothing(cloud, night, services):
    activator, _ = services
    (body,) = night.announce(10)
    night.wait_until_working(10)
    night.upload(10)
    night.wait_until_finished(10)
    assert post(cloud, activator, body).status_code == 204
    assert post(cloud, activator, body, **{"x-goog-pubsub-message-id": "another"}).status_code == 204
    night.check(10)


def test_the_bridge_may_post_a_visit_to_the_activator(cloud, night, services):
    activator, _ = services
    (body,) = night.announce(11, publish=False)
    token = cloud.issuer.issue("activator", PUSHER)
    bridge = WebhookPublisher(activator.url, token=token, concurrency=1, timeout=PATIENCE)
    with ThreadPoolExecutor() as pool:
        posted = pool.submit(bridge.publish, [body])
        night.wait_until_working(11)
        assert not posted.done()  # it is answered when the visit is finished
        night.upload(11)
        posted.result(PATIENCE)
    assert str(night.record(11).outcome) == "processed"
    night.check(11)


def test_an_image_that_comes_after_its_visit_was_given_up_is_processed(cloud, night, services):
    night.announce(2, lead=-58.0)
    night.wait_until_finished(2)
    assert str(night.record(2).outcome) == "skipped:no-image"
    night.upload(2)
    night.wait_for(lambda: str(night.record(2).outcome) == "processed (late)")
    night.audit()


def test_the_activator_may_be_killed_at_any_moment(cloud, night, services):
    activator, _ = services
    for number, moment in ((3, "claimed"), (4, "image"), (5, "effects")):
        night.announce(number)
        night.wait_until_working(number)
        if moment != "claimed":
            night.upload(number)
        if moment == "effects":
            night.wait_for(lambda n=number: night.record(n).steps)
        activator.kill()
        activator.start()
        night.upload(number)
        night.wait_until_finished(number)
    night.check(3, 4, 5)


def test_the_arrivals_service_may_be_killed_at_any_moment(cloud, night, services):
    _, arrivals = services
    night.announce(6)
    night.wait_until_working(6)
    arrivals.kill()
    night.upload(6)
    arrivals.start()
    night.wait_until_finished(6)
    night.check(6)


def test_the_object_store_may_be_killed_and_started_again(cloud, night, services):
    night.announce(7, lead=2.0)
    night.wait_until_working(7)
    cloud.gcs.kill()
    time.sleep(LATE)
    cloud.restart_gcs()
    night.upload(7)
    night.wait_until_finished(7)
    night.check(7)


def test_the_database_may_be_killed_and_started_again(cloud, night, services):
    night.announce(8, lead=2.0)
    night.wait_until_working(8)
    cloud.postgres.kill()
    night.upload(8)
    time.sleep(LATE)
    cloud.postgres.start()
    night.wait_until_finished(8)
    night.check(8)


def test_the_activator_ends_within_the_time_of_cloud_run_and_gives_its_visit_back(cloud, night, services):
    activator, _ = services
    night.check_stop(activator, 9)
