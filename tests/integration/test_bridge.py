"""The bridge on a real broker, registry, Pub/Sub emulator and Redis; the long form is in tests/faults."""

import itertools
import json
import random
import threading
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial

import psutil
import pytest
from confluent_kafka import Producer

from local_cloud.bridge_world import (
    FOREVER,
    Observatory,
    RedisReceiver,
    WebhookReceiver,
    bridge_process,
    bridge_service,
    keys,
    kill_bridges,
    metrics,
)
from local_cloud.emulators import Proxy
from local_cloud.http_sink import Answer, HttpSink
from support.engines import wait_for

pytestmark = pytest.mark.slow
until = partial(wait_for, timeout=FOREVER)


def test_every_detector_gets_its_message_and_tells_where_it_comes_from(
    observatory, receiver, bridge_settings
):
    observatory.announce("before")  # a new group begins in the past
    with bridge_service(bridge_settings()) as service:
        observatory.announce("wide", "LSSTCam")
        observatory.write(b"junk")
        observatory.announce("test", salIndex=999)
        observatory.announce("after")
        observatory.cancel("after")
        wanted = keys("before", "after") | keys("wide", instrument="LSSTCam") | {"cancel:LATISS"}
        receiver.wait_for(wanted)
        assert receiver.counts == dict.fromkeys(wanted, 1)
        until(lambda: metrics(service)('bridge_fanout_messages_total{kind="visit"}') == 191)
        until(lambda: metrics(service)('bridge_fanout_messages_total{kind="cancel"}') == 1)
        metric = metrics(service)
        assert metric('bridge_skipped_total{reason="test-queue"}') == 1
        assert metric("bridge_dead_letters_total") == 1
        assert metric("bridge_connected") == 1
        until(lambda: metrics(service)("bridge_lag_records") == 0)
        service.stop()
        assert service.exit_code == 0
        lines = [line for line in service.lines() if line["message"] == "event sent"]
    assert [line["messages"] for line in lines if line["group"] == "wide"] == [189]
    found = receiver.attributes["LSSTCam:wide:94"]
    assert {name: found[name] for name in ("instrument", "detector", "group", "survey", "kind")} == {
        "instrument": "LSSTCam", "detector": "94", "group": "wide", "survey": "BLOCK-1", "kind": "visit",
    }  # fmt: skip
    assert (found["source_topic"], found["source_offset"]) == (observatory.visits, "1")
    assert found["schema_version"] == "1"
    sent = datetime.fromisoformat(found["published_at"])
    assert abs((datetime.now(UTC) - sent).total_seconds()) < 120
    assert found["traceparent"] == receiver.attributes["LSSTCam:wide:3"]["traceparent"]


def test_dead_letters_are_listed_and_read_again(observatory, receiver, bridge_settings, command, tmp_path):
    with bridge_process(bridge_settings()):
        producer = Producer({**observatory.client})
        producer.produce(observatory.visits, b"junk", headers=[("traceparent", None), ("other", b"\xff")])
        producer.flush()
        observatory.announce("x", position=[0.0, 95.0])
        observatory.announce("last")
        receiver.wait_for(keys("last"))
    letters = json.loads(command("dead-letters", "list", tmp_path, "--json"))
    assert [letter["source"].rpartition("/")[2] for letter in letters] == ["0", "1"]
    assert [letter["replayed"] for letter in letters] == [False, False]
    assert "declination 95" in letters[1]["error"]
    said = "0 dead letters would be sent again, 0 skipped, 2 cannot be"
    assert said in command("dead-letters", "replay", tmp_path, "--dry-run", code=1)
    assert "2 dead letters, 2 waiting" in command("dead-letters", "list", tmp_path)
    # They have their letters already.
    said = "1 events were sent again, 0 skipped, 2 cannot be"
    assert said in command("replay", tmp_path, "--from", "2026-01-01", code=1)
    assert "2 dead letters, 2 waiting" in command("dead-letters", "list", tmp_path)
    said = "0 dead letters were sent again, 0 skipped, 2 cannot be"
    assert said in command("dead-letters", "replay", tmp_path, code=1)
    # Nothing was mended, so each is a new dead letter, of the same record.
    letters = json.loads(command("dead-letters", "list", tmp_path, "--json"))
    assert [letter["replayed"] for letter in letters] == [True, True, False, False]
    assert [letter["source"] for letter in letters[:2]] == [letter["source"] for letter in letters[2:]]


def test_a_letter_whose_cause_is_mended_becomes_messages(
    kafka, observatory, receiver, bridge_settings, command, tmp_path
):
    """Here the cause is a sink that does not take messages of this size."""
    small = f"small-{observatory.own}"
    kafka.create_topic(small, config={"max.message.bytes": "100"})
    refused = bridge_settings(PROMPT_BRIDGE__SINK="kafka", PROMPT_BRIDGE__MESSAGES_TOPIC=small)
    with bridge_service(refused) as service:
        observatory.announce("x", "LSSTCam")
        until(lambda: metrics(service)("bridge_dead_letters_total") == 1)
    assert "1 dead letters were sent again" in command("dead-letters", "replay", tmp_path)
    receiver.wait_for(keys("x", instrument="LSSTCam"))
    assert "1 dead letters, 0 waiting" in command("dead-letters", "list", tmp_path)


def test_what_was_sent_may_be_sent_again(observatory, receiver, bridge_settings, command, tmp_path):
    begin = datetime.now(UTC)
    with bridge_process(bridge_settings()):
        observatory.announce("a")
        observatory.announce("old", private_efdStamp=time.time() - 7200)
        observatory.announce("b")
        receiver.wait_for(keys("a", "b"))
    out = command("replay", tmp_path, "--from", begin.isoformat(), "--dry-run")
    assert out.count('"kind":"visit"') == 3
    assert receiver.counts == dict.fromkeys(keys("a", "b"), 1)
    assert "3 events were sent again" in command("replay", tmp_path, "--from", begin.isoformat())
    until(lambda: receiver.counts.total() >= 5)
    assert receiver.counts == {**dict.fromkeys(keys("a", "b"), 2), **dict.fromkeys(keys("old"), 1)}
    assert "0 events" in command("replay", tmp_path, "--from", "2020-01-01", "--to", "2020-01-02")
    assert "later than --from" in command(
        "replay", tmp_path, "--from", "2020-01-02", "--to", "2020-01-01", code=2
    )
    error = command("replay", tmp_path, "--from", "yesterday", code=2)
    assert "2026-02-01T23:30:00" in error


def test_the_broker_may_be_killed_and_comes_back(require_services, registry, pubsub, receiver):
    from local_cloud.brokers import KafkaBroker

    with require_services(KafkaBroker) as broker:
        observatory = Observatory.on(broker, registry)
        own = {"PROMPT_PUBSUB__TOPIC": receiver.topic, "PUBSUB_EMULATOR_HOST": pubsub.host}
        with bridge_process(observatory.settings(broker.bootstrap, registry.url, **own)) as bridge:
            observatory.announce("a")
            receiver.wait_for(keys("a"))
            broker.kill()
            broker.start()
            observatory.announce_for_sure("b")
            receiver.wait_for(keys("b"))
            broker.kill()
            began = time.monotonic()
            assert bridge.stop() == 0
            assert time.monotonic() - began < 10
    assert receiver.counts.keys() == keys("a", "b")


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_a_bridge_stops_while_nobody_answers_its_commit(require_services, registry, how):
    from local_cloud.brokers import KafkaBroker

    with require_services(KafkaBroker) as broker, HttpSink() as sink:
        answered = threading.Event()
        receiver = WebhookReceiver(sink, seed=0, failing=0.0)
        sink.answer = lambda _: Answer(204 if answered.wait(FOREVER) else 500)
        observatory = Observatory.on(broker, registry)
        own = {"PROMPT_BRIDGE__SINK": "webhook", "PROMPT_WEBHOOK__URL": sink.url}
        with bridge_service(observatory.settings(broker.bootstrap, registry.url, **own)) as service:
            observatory.announce("a")
            until(lambda: sink.requests)
            process = psutil.Process(broker.pid)
            process.kill() if how == "killed" else process.suspend()
            answered.set()
            until(lambda: receiver.look() or keys("a") <= receiver.counts.keys())
            began = time.monotonic()
            service.stop()
            assert service.exit_code == 0
            assert time.monotonic() - began < 10
            if how == "killed":
                broker.kill()
                broker.start()
            else:
                process.resume()
            service.start()
            observatory.announce_for_sure("b")
            until(lambda: receiver.look() or keys("b") <= receiver.counts.keys())
    # A broker that was frozen finds the commit when it wakes, but may have given up the member before.
    assert receiver.counts["LATISS:a:0"] in ({2} if how == "killed" else {1, 2})


def test_the_registry_may_be_away(observatory, receiver, bridge_settings, registry):
    observatory.announce("a")
    with Proxy("127.0.0.1", registry.port) as line:
        away = {"PROMPT_KAFKA__REGISTRY": registry.url.replace(str(registry.port), str(line.port))}
        line.cut()
        with bridge_service(bridge_settings(**away)) as service:
            until(lambda: metrics(service)("bridge_retries_total") > 0)
            assert metrics(service)("bridge_dead_letters_total") == 0
            line.mend()
            receiver.wait_for(keys("a"))
            line.cut()
            observatory.announce("b")  # by a schema that is known
            receiver.wait_for(keys("b"))
    assert receiver.counts == dict.fromkeys(keys("a", "b"), 1)


def test_pubsub_may_be_away_and_the_bridge_stops_all_the_same(observatory, receiver, bridge_settings, pubsub):
    with Proxy("127.0.0.1", pubsub.port) as line:
        away = bridge_settings(PUBSUB_EMULATOR_HOST=line.host, PROMPT_BRIDGE__DRAIN_S="3")
        with bridge_service(away) as service:
            observatory.announce("a", "LSSTCam")
            receiver.wait_for(keys("a", instrument="LSSTCam"))
            line.cut()
            observatory.announce("b", "LSSTCam")
            until(lambda: metrics(service)("bridge_retries_total") > 0)
            observatory.announce("c", "LSSTCam")
            began = time.monotonic()
            service.stop()
            assert service.exit_code == 0
            assert time.monotonic() - began < 10
            line.mend()
            service.start()
            receiver.wait_for(keys("b", "c", instrument="LSSTCam"))


def test_redis_may_be_away(require_services, observatory, bridge_settings):
    from local_cloud.brokers import RedisServer

    with require_services(RedisServer) as server, ExitStack() as opened:
        receiver = RedisReceiver(server.url)
        own = {
            "PROMPT_BRIDGE__SINK": "redis",
            "PROMPT_REDIS__URL": server.url,
            "PROMPT_REDIS__STREAM": receiver.stream,
        }
        opened.enter_context(bridge_process(bridge_settings(**own)))
        observatory.announce("a")
        until(lambda: receiver.look() or keys("a") <= receiver.counts.keys())
        server.kill()
        observatory.announce("b")
        server.start()
        until(lambda: receiver.look() or keys("b") <= receiver.counts.keys())
        assert receiver.counts.keys() == keys("a", "b")


def test_a_webhook_may_fail(observatory, bridge_settings):
    """Some messages of a visit are delivered and some are not, for a while."""
    with HttpSink() as server:
        receiver = WebhookReceiver(server, seed=5, failing=0.3)
        with bridge_process(bridge_settings(**receiver.settings)):
            observatory.announce("a", "LSSTCam")
            observatory.announce("b")
            wanted = keys("a", instrument="LSSTCam") | keys("b")
            until(lambda: receiver.look() or wanted <= receiver.counts.keys())
        assert receiver.counts.keys() == wanted
        assert server.most_open <= 50


def test_the_bridge_may_be_killed_at_any_moment(observatory, receiver, bridge_settings):
    groups = [f"g{number}" for number in range(20)]
    chance = random.Random(3)  # noqa: S311 (a fixed seed)
    settings = bridge_settings(PROMPT_BRIDGE__SESSION_S="1")
    kill_bridges(observatory, receiver, settings, itertools.batched(groups, 4), chance)
    wanted = keys(*groups, instrument="LSSTCam") | keys("last")
    with bridge_process(settings) as last:
        observatory.announce("last")
        receiver.wait_for(wanted)
        assert last.stop() == 0
    assert receiver.counts.keys() == wanted


def test_a_rebalance_in_the_middle_of_a_visit(kafka, registry, receiver, pubsub):
    """The one that has a record in hand loses a partition to another bridge of the group."""
    observatory = Observatory.on(kafka, registry, partitions=2)
    groups = [f"g{number}" for number in range(12)]  # both partitions have some
    with Proxy("127.0.0.1", pubsub.port) as line:

        def settings(host):
            own = {"PROMPT_PUBSUB__TOPIC": receiver.topic, "PUBSUB_EMULATOR_HOST": host}
            return observatory.settings(kafka.bootstrap, registry.url, **own, PROMPT_BRIDGE__SESSION_S="2")

        with bridge_service(settings(line.host)) as first:
            observatory.announce("a")
            receiver.wait_for(keys("a"))
            line.cut()
            for group in groups:
                observatory.announce(group)
            until(lambda: metrics(first)("bridge_retries_total") > 0)
            with bridge_process(settings(pubsub.host)):
                until(lambda: receiver.counts.keys() - keys("a"))
                assert not keys(*groups) <= receiver.counts.keys()
                failed = metrics(first)("bridge_retries_total")
                until(lambda: metrics(first)("bridge_retries_total") > failed)
            # The other one was killed: the first one gets its partition when its session is over, and what it
            # is given first takes long.
            changes = metrics(first)("bridge_rebalances_total")
            observatory.announce("last")
            until(lambda: metrics(first)("bridge_rebalances_total") >= changes + 2)
            failed = metrics(first)("bridge_retries_total")
            until(lambda: metrics(first)("bridge_retries_total") > failed)
            line.mend()
            receiver.wait_for(keys(*groups, "last"))
    assert receiver.counts.keys() == keys("a", *groups, "last")


def test_two_groups_send_everything_each(observatory, receiver, bridge_settings):
    groups = [f"g{number}" for number in range(5)]
    others = bridge_settings(PROMPT_BRIDGE__GROUP=f"other-{observatory.own}")
    with bridge_process(bridge_settings()), bridge_process(others) as second:
        for group in groups:
            observatory.announce(group, "LSSTCam")
        wanted = keys(*groups, instrument="LSSTCam")
        until(lambda: all(receiver.counts[key] >= 2 for key in wanted))
        second.kill()
        observatory.announce("after", "LSSTCam")
        receiver.wait_for(keys("after", instrument="LSSTCam"))
