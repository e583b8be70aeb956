"""The bridge under faults, at length; what must come is known, and every message is counted."""

import itertools
import random
import threading
import time
from contextlib import ExitStack

import pytest

from local_cloud.bridge_world import (
    Observatory,
    PubSubReceiver,
    RedisReceiver,
    WebhookReceiver,
    bridge_process,
    bridge_service,
    keys,
    kill_bridges,
    metrics,
)
from local_cloud.emulators import Proxy
from local_cloud.http_sink import HttpSink
from local_cloud.kafka_line import Api
from local_cloud.servers import LOOPBACK
from support.engines import wait_for

pytestmark = pytest.mark.faults
N_KILLS = 50
N_VISITS = 500
OUTAGE = 60.0


@pytest.fixture
def tell(row):
    """A function that adds the row of a fault to the table in docs/guarantees.md, and judges it."""

    def judge(what, wanted, receiver, note=""):
        lost = len(wanted - receiver.counts.keys())
        strange = len(receiver.counts.keys() - wanted)
        twice = receiver.counts.total() - len(receiver.counts)
        row(what, len(wanted), lost, twice, strange, note)
        assert lost == strange == 0

    return judge


@pytest.fixture
def observatory(kafka, registry):
    return Observatory.on(kafka, registry, partitions=3)


def lsstcam(groups):
    return keys(*groups, instrument="LSSTCam")


def names(count):
    return [f"g{number}" for number in range(count)]


def test_it_is_killed_fifty_times(observatory, receiver, bridge_settings, tell):
    groups = names(N_VISITS)
    chance = random.Random(7)  # noqa: S311 (a fixed seed)
    batches = itertools.batched(groups, N_VISITS // N_KILLS)
    settings = bridge_settings(PROMPT_BRIDGE__SESSION_S="1")
    kill_bridges(observatory, receiver, settings, batches, chance)
    with bridge_process(settings):
        receiver.wait_for(lsstcam(groups), 240.0)
    tell(f"bridge killed {N_KILLS} times at random moments, {N_VISITS} visits", lsstcam(groups), receiver)


def test_registry_and_pubsub_are_away_for_a_minute(kafka, registry, pubsub, tell):
    """Two bridges, so that both have their outage at the same time."""
    with ExitStack() as opened:
        lines = [opened.enter_context(Proxy(LOOPBACK, port)) for port in (registry.port, pubsub.port)]
        to_registry, to_pubsub = lines
        places = {
            "registry": (registry.url.replace(str(registry.port), str(to_registry.port)), pubsub.host),
            "Pub/Sub": (registry.url, to_pubsub.host),
        }
        observed, received, services = {}, {}, {}
        for line in lines:
            line.cut()
        for what, (registry_url, host) in places.items():
            observed[what] = Observatory.on(kafka, registry, partitions=3)
            received[what] = opened.enter_context(PubSubReceiver(pubsub.host))
            own = {"PROMPT_PUBSUB__TOPIC": received[what].topic, "PUBSUB_EMULATOR_HOST": host}
            made = observed[what].settings(kafka.bootstrap, registry_url, **own)
            services[what] = opened.enter_context(bridge_service(made))
        end = time.monotonic() + OUTAGE
        for group in names(20):
            for observatory in observed.values():
                observatory.announce(group, "LSSTCam")
            threading.Event().wait(OUTAGE / 25)
        threading.Event().wait(end - time.monotonic())
        for what, service in services.items():
            assert not received[what].counts
            assert metrics(service)("bridge_retries_total") > 3
            assert metrics(service)("bridge_dead_letters_total") == 0
        began = time.monotonic()
        for line in lines:
            line.mend()
        for what, receiver in received.items():
            receiver.wait_for(lsstcam(names(20)))
            back = f"all there {time.monotonic() - began:.0f} s later"
            tell(f"{what} away for {OUTAGE:.0f} s, 20 visits", lsstcam(names(20)), receiver, back)


def test_the_broker_is_killed_again_and_again(require_services, registry, pubsub, receiver, tell, is_long):
    """The only bridge joins, polls, commits or has nothing to do when the broker dies."""
    from local_cloud.brokers import KafkaBroker

    n_kills = 20 if is_long else 4
    groups = iter(names(2 * n_kills))
    announced = []
    with require_services(KafkaBroker) as broker, broker.line as line, ExitStack() as opened:
        observatory = Observatory.on(broker, registry, partitions=3)
        own = {"PROMPT_PUBSUB__TOPIC": receiver.topic, "PUBSUB_EMULATOR_HOST": pubsub.host}
        settings = observatory.settings(line.host, registry.url, **own)

        def announce():
            announced.append(next(groups))
            observatory.announce_for_sure(announced[-1], "LSSTCam")

        bridge = opened.enter_context(bridge_process(settings))
        for number in range(n_kills):
            moment = (Api.JOIN_GROUP, Api.FETCH, Api.OFFSET_COMMIT, None)[number % 4]
            announce()
            if moment is None:
                receiver.wait_for(lsstcam(announced))
            else:
                with line.seeing(moment):
                    if moment is Api.JOIN_GROUP:
                        assert bridge.stop() == 0
                        bridge = opened.enter_context(bridge_process(settings))
                    announce()
            broker.kill()
            # Longer than the bridge's session, every fifth time.
            threading.Event().wait(11.0 if number % 5 == 4 else 0.0)
            broker.start()
        receiver.wait_for(lsstcam(announced), 120.0)
        assert bridge.stop() == 0
    tell(f"broker killed {n_kills} times, {len(announced)} visits", lsstcam(announced), receiver)


def test_redis_is_killed_again_and_again(require_services, observatory, bridge_settings, tell):
    from local_cloud.brokers import RedisServer

    with require_services(RedisServer) as server:
        receiver = RedisReceiver(server.url)
        own = {
            "PROMPT_BRIDGE__SINK": "redis",
            "PROMPT_REDIS__URL": server.url,
            "PROMPT_REDIS__STREAM": receiver.stream,
        }
        groups = names(200)
        with bridge_process(bridge_settings(**own)):
            for number, group in enumerate(groups):
                observatory.announce(group)
                if number % 40 == 20:
                    server.kill()
                    threading.Event().wait(1.0)
                    server.start()
            wait_for(lambda: receiver.look() or keys(*groups) <= receiver.counts.keys())
        tell("Redis killed 5 times, 200 visits of LATISS", keys(*groups), receiver)


def test_a_webhook_fails_in_every_way(observatory, bridge_settings, tell):
    """So often that some messages use up their tries, and the rest of their visit is begun again."""
    with HttpSink() as server:
        receiver = WebhookReceiver(server, seed=5, failing=0.5)
        groups = names(2)
        with bridge_process(bridge_settings(**receiver.settings)):
            for group in groups:
                observatory.announce(group, "LSSTCam")
            wait_for(lambda: receiver.look() or lsstcam(groups) <= receiver.counts.keys())
        assert len(server.requests) > len(receiver.counts)
        tell(
            "half of the webhook's answers are 429, 500, none or a hang, 2 visits", lsstcam(groups), receiver
        )


def test_bridges_come_and_go(observatory, receiver, bridge_settings, tell):
    """Each that joins or leaves moves the partitions while messages are sent."""
    groups = names(150)
    announcing = threading.Thread(
        target=lambda: [observatory.announce(group, "LSSTCam") for group in groups], daemon=True
    )
    announcing.start()
    chance = random.Random(11)  # noqa: S311 (a fixed seed)
    settings = bridge_settings(PROMPT_BRIDGE__SESSION_S="1")
    with bridge_process(settings):
        for number in range(12):
            with bridge_process(settings) as other:
                threading.Event().wait(chance.uniform(0.2, 1.0))
                if number % 3:
                    other.stop()
        announcing.join()
        receiver.wait_for(lsstcam(groups))
    tell("12 bridges join and leave a group, 150 visits", lsstcam(groups), receiver)


@pytest.mark.parametrize("offset", [-30.0, 30.0])
def test_a_clock_is_wrong(observatory, receiver, bridge_settings, tell, offset):
    with bridge_process(bridge_settings(PROMPT_WORKER__CLOCK_OFFSET_S=str(offset))):
        for group in names(10):
            observatory.announce(group, "LSSTCam")
        receiver.wait_for(lsstcam(names(10)))
    tell(f"clock {offset:+.0f} s, 10 visits", lsstcam(names(10)), receiver)
