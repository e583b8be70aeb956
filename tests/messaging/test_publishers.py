"""What every sink of the bridge promises, on each of them, and what is special about each."""

import json
import os
import threading
import time
import traceback
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import psutil
import pytest
import redis
from confluent_kafka import Consumer, TopicPartition
from google.pubsub_v1 import PullRequest

from local_cloud import topology
from local_cloud.emulators import Proxy
from local_cloud.http_sink import CLOSE, HANG, Answer, HttpSink, in_turn
from local_cloud.servers import LOOPBACK
from local_cloud.visits import EVENT, detector_visit
from prompt_processing.config import KafkaSettings
from prompt_processing.domain.errors import RefusedMessageError, StoreError
from prompt_processing.domain.visit import CancelVisit, WarmUp, parse_event, parse_message
from prompt_processing.instruments.fan_out import detector_visits
from prompt_processing.messaging import kafka as kafka_module
from prompt_processing.messaging import redis as redis_module
from prompt_processing.messaging import webhook
from prompt_processing.messaging.attributes import attributes
from prompt_processing.messaging.kafka import MAX_RECORD, KafkaPublisher, KafkaWriter, connection
from prompt_processing.messaging.lines import Lines
from prompt_processing.messaging.pubsub import PubSubPublisher
from prompt_processing.messaging.redis import RedisPublisher
from prompt_processing.messaging.sql import SqlQueue
from prompt_processing.messaging.webhook import WebhookPublisher
from prompt_processing.serving.envelope import WEBHOOK
from prompt_processing.storage import database

LONG = 30.0
"""A wait that ends earlier, because something comes; and more than any sink may take to give up."""
SOON = 1.0
"""Time within which Pub/Sub delivers what is there, and a server that works answers [s]."""
TOKEN = "a-token-that-nobody-may-see"  # noqa: S105 (of nobody)
GROUP = "2026-03-15T01:00:00.000 µ"
SURVEY = "BLOCK-430 ü"
ORIGIN = {
    "source_topic": "lsst.sal.ScriptQueue.logevent_nextVisit",
    "source_partition": "3",
    "source_offset": "4711",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "published_at": "2026-03-15T01:00:00.123Z",
}
ALL = frozenset({"kind", "schema_version", "instrument", "group", "detector", "survey", "dedup_key", *ORIGIN})
N_DETECTORS = 189


def new_name():
    return f"test-{uuid.uuid4().hex[:12]}"


def lsstcam(group=GROUP):
    """The messages of a visit for all detectors."""
    changes = {"instrument": "LSSTCam", "groupId": group, "survey": SURVEY}
    messages = detector_visits(parse_event({**EVENT, **changes}))
    assert len(messages) == N_DETECTORS
    return messages


def visit(detector, **changes):
    changes = {"instrument": "LSSTCam", "groupId": GROUP, "survey": SURVEY, **changes}
    return detector_visit(detector=detector, **changes)


def texts(*messages):
    return [message.model_dump_json() for message in messages]


class Got(NamedTuple):
    """A message as whoever receives it has it."""

    message: Any
    told: dict[str, str]
    """What stands beside it."""


@dataclass
class Sink:
    """A publisher with the other side of it."""

    publisher: Any
    received: Any
    """A function that returns all that has come since it was called last."""
    tells: frozenset[str] = ALL
    """What it has a place for."""


def from_pubsub(host, subscription):
    """Pull until nothing comes any more."""
    found = []
    with topology.subscriber(host) as client:
        while True:
            request = PullRequest(subscription=subscription, max_messages=1000, return_immediately=True)
            answer = client.transport.pull(request, timeout=LONG)
            if not answer.received_messages:
                return found
            receipts = [one.ack_id for one in answer.received_messages]
            client.acknowledge(subscription=subscription, ack_ids=receipts, timeout=LONG)
            messages = [one.message for one in answer.received_messages]
            found += [Got(parse_message(one.data), dict(one.attributes)) for one in messages]


def from_queue(queue):
    found = []
    while (received := queue.receive(0.0)) is not None:
        queue.ack(received)
        found.append(Got(parse_message(received.delivery.body), {}))
    return found


def from_webhook(sink):
    found = []
    for posted in sink.requests:
        event = json.loads(posted.body)
        told = {
            "kind": event["type"].removeprefix("prompt."),
            "dedup_key": event["id"],
            "source_topic": event["source"],
            "published_at": event.get("time"),
            "traceparent": posted.headers.get("traceparent"),
        }
        assert event.get("traceparent") == told["traceparent"]
        assert posted.pushed.subscription == WEBHOOK
        found.append(Got(parse_message(posted.pushed.data), told))
    sink.requests.clear()
    return found


class KafkaTopic:
    """A topic with its publisher, read from its beginning."""

    def __init__(self, broker, **config):
        self.name = new_name()
        self._servers = broker.bootstrap
        broker.create_topic(self.name, config={name.replace("_", "."): text for name, text in config.items()})
        client = connection(KafkaSettings(servers=self._servers, security="plaintext"))
        self.publisher = KafkaPublisher(KafkaWriter(client, self.name))
        self._read = 0

    def records(self):
        """Return the records that are there, without those that were returned before."""
        with closing(Consumer({"bootstrap.servers": self._servers, "group.id": new_name()})) as consumer:
            place = TopicPartition(self.name, 0, self._read)
            consumer.assign([place])
            _, end = consumer.get_watermark_offsets(place, timeout=LONG)
            found = []
            while self._read < end:
                record = consumer.poll(LONG)
                assert record is not None
                assert record.error() is None
                found.append(record)
                self._read = record.offset() + 1
        return found

    def received(self):
        return [
            Got(parse_message(one.value()), {name: value.decode() for name, value in one.headers()})
            for one in self.records()
        ]


class Streams:
    """Streams of a test's own with their publisher."""

    def __init__(self, url, max_length=1000):
        self.name = new_name()
        self.client = redis.Redis.from_url(url, decode_responses=True)
        self.publisher = RedisPublisher(url, stream=f"{self.name}:{{instrument}}", max_length=max_length)

    def stream(self, instrument="lsstcam"):
        return f"{self.name}:{instrument}"

    @property
    def names(self):
        return set(self.client.scan_iter(f"{self.name}*"))

    def entries(self, instrument="lsstcam"):
        return [fields for _, fields in self.client.xrange(self.stream(instrument))]

    def received(self):
        entries = [fields for name in self.names for _, fields in self.client.xrange(name)]
        for name in self.names:
            self.client.delete(name)
        return [Got(parse_message(fields), fields) for fields in entries]


@pytest.fixture
def topic(kafka):
    return KafkaTopic(kafka)


@pytest.fixture
def streams(redis_server):
    return Streams(redis_server.url)


@pytest.fixture
def http_sink():
    with HttpSink() as sink:
        yield sink


@pytest.fixture
def quick(monkeypatch):
    """Pauses that take no time."""
    monkeypatch.setattr(webhook, "FIRST_PAUSE", 0.01)


def webhook_publisher(url, *, token=TOKEN, concurrency=20, timeout=LONG):
    return WebhookPublisher(url, token=token, concurrency=concurrency, timeout=timeout)


def pubsub_sink(host, *, way=None):
    """A topic with a subscription.

    Parameters
    ----------
    host
        Address of the emulator.
    way
        Address by which the publisher reaches it.
    """
    project = f"projects/{new_name()}"
    name, subscription = f"{project}/topics/messages", f"{project}/subscriptions/messages"
    with topology.publisher(host) as client:
        client.create_topic(name=name, timeout=LONG)
    with topology.subscriber(host) as client:
        client.create_subscription(name=subscription, topic=name, ack_deadline_seconds=60, timeout=LONG)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PUBSUB_EMULATOR_HOST", way or host)
        publisher = PubSubPublisher(name)
    return Sink(publisher, lambda: from_pubsub(host, subscription))


def sql_sink(url, *, way=None):
    """A queue; `way` is the URL by which the publisher reaches it."""
    queue = SqlQueue(database.engine(url))
    publisher = SqlQueue(database.engine(way)) if way else queue
    return Sink(publisher, lambda: from_queue(queue), frozenset())


def make_sink(kind, request):
    fixture = request.getfixturevalue
    match kind:
        case "kafka" | "redis":
            other = fixture({"kafka": "topic", "redis": "streams"}[kind])
            return Sink(other.publisher, other.received)
        case "webhook":
            server = fixture("http_sink")
            told = frozenset({"kind", "dedup_key", "source_topic", "published_at", "traceparent"})
            return Sink(webhook_publisher(server.url), lambda: from_webhook(server), told)
        case "pubsub":
            return pubsub_sink(fixture("pubsub").host)
        case "sqlite":
            return sql_sink(f"sqlite:///{fixture('tmp_path')}/queue.sqlite3")
        case "postgres":
            return sql_sink(fixture("postgres_url"))
    output = fixture("capsys")

    def printed():
        return [Got(parse_message(line), {}) for line in output.readouterr().out.splitlines()]

    return Sink(Lines(), printed, frozenset())


@pytest.fixture(params=["kafka", "redis", "webhook", "pubsub", "sqlite", "postgres", "stdout"])
def sink(request):
    """A sink of each kind."""
    return make_sink(request.param, request)


# What all of them promise.


def test_every_message_arrives_once_and_can_be_read(sink):
    sent = [
        *lsstcam(),
        visit(0, instrument="LATISS", survey=""),
        CancelVisit(instrument="LSSTCam", groupId=GROUP, scriptSalIndex=3),
        WarmUp(instrument="LATISS"),
    ]
    sink.publisher.publish(texts(*sent), ORIGIN)
    assert Counter(got.message for got in sink.received()) == Counter(sent)
    sink.publisher.publish(texts(visit(7)))
    assert [got.message for got in sink.received()] == [visit(7)]


def test_a_call_without_messages_sends_nothing(sink):
    sink.publisher.publish([])
    sink.publisher.publish([], ORIGIN)
    assert sink.received() == []


def test_what_a_message_is_about_and_comes_from_stands_beside_it(sink):
    cancel = CancelVisit(instrument="LATISS", groupId=GROUP, scriptSalIndex=3)
    warm_up = WarmUp(instrument="LSSTComCam")
    sink.publisher.publish(texts(visit(42), visit(43, survey=""), cancel, warm_up), ORIGIN)
    told = {got.message: got.told for got in sink.received()}
    expected = {
        visit(42): {
            "kind": "visit",
            "instrument": "LSSTCam",
            "group": GROUP,
            "detector": "42",
            "survey": SURVEY,
            "dedup_key": f"LSSTCam:{GROUP}:42",
        },
        cancel: {"kind": "cancel", "instrument": "LATISS", "group": GROUP},
        warm_up: {"kind": "warmup", "instrument": "LSSTComCam"},
    }
    for message, about in expected.items():
        wanted = {**about, "schema_version": "1", **ORIGIN}
        found = {name: told[message].get(name) for name in wanted if name in sink.tells}
        assert found == {name: text for name, text in wanted.items() if name in sink.tells}


def test_attributes_are_only_those_that_a_message_has(topic):
    topic.publisher.publish(texts(visit(43, survey=""), WarmUp(instrument="LATISS")))
    about_visit, about_warm_up = (got.told for got in topic.received())
    assert about_visit.keys() == ALL - {"survey", *ORIGIN}
    assert about_warm_up.keys() == {"kind", "schema_version", "instrument"}


def test_what_is_sent_again_has_the_same_key_and_no_two_messages_of_a_visit_have_it():
    keys = [attributes(body)["dedup_key"] for body in texts(*lsstcam())]
    assert len(set(keys)) == N_DETECTORS
    assert [attributes(body)["dedup_key"] for body in texts(*lsstcam())] == keys
    assert not {attributes(body)["dedup_key"] for body in texts(*lsstcam("another"))} & set(keys)


# Servers that are away.


@dataclass
class Line:
    """A sink whose server can be taken away and given back."""

    sink: Sink
    cut: Any
    mend: Any
    n_tries: int = 2
    """How often something is sent meanwhile."""


@pytest.fixture(
    params=[
        pytest.param("kafka", marks=pytest.mark.slow),
        "redis",
        "redis-line",
        "webhook",
        pytest.param("pubsub", marks=pytest.mark.slow),
        "postgres",
    ]
)
def line(request, monkeypatch):
    """A sink of each kind that has a server."""
    match request.param:
        case "kafka":
            broker = request.getfixturevalue("kafka")
            monkeypatch.setattr(kafka_module, "TIMEOUT", 3.0)
            topic = request.getfixturevalue("topic")
            yield Line(Sink(topic.publisher, topic.received), broker.kill, broker.restart)
        case "redis":
            server = request.getfixturevalue("redis_server")
            streams = request.getfixturevalue("streams")
            yield Line(Sink(streams.publisher, streams.received), server.kill, server.restart)
        case "redis-line":
            server = request.getfixturevalue("redis_server")
            streams = request.getfixturevalue("streams")
            with Proxy(LOOPBACK, server.port) as proxy:
                name = f"{streams.name}:{{instrument}}"
                publisher = RedisPublisher(f"redis://{proxy.host}/0", stream=name, max_length=1000)
                yield Line(Sink(publisher, streams.received), proxy.cut, proxy.mend)
        case "webhook":
            request.getfixturevalue("quick")
            server = request.getfixturevalue("http_sink")
            with Proxy(LOOPBACK, server.port) as proxy:
                publisher = webhook_publisher(f"http://{proxy.host}/")
                yield Line(Sink(publisher, lambda: from_webhook(server)), proxy.cut, proxy.mend)
        case "pubsub":
            server = request.getfixturevalue("pubsub")
            with Proxy(LOOPBACK, server.port) as proxy:
                yield Line(pubsub_sink(server.host, way=proxy.host), proxy.cut, proxy.mend, n_tries=1)
        case "postgres":
            server = request.getfixturevalue("postgres")
            url = request.getfixturevalue("postgres_url")
            with Proxy(LOOPBACK, server.port) as proxy:
                way = url.replace(f":{server.port}/", f":{proxy.port}/")
                yield Line(sql_sink(url, way=way), proxy.cut, proxy.mend)


def publish_at_last(publisher, bodies):
    """Try until it succeeds, as the bridge does."""
    deadline = time.monotonic() + LONG
    while True:
        try:
            return publisher.publish(bodies)
        except StoreError:
            assert time.monotonic() < deadline


def test_a_server_that_is_away_is_told_in_time_and_used_when_it_is_back(line):
    publisher = line.sink.publisher
    publish_at_last(publisher, texts(visit(0)))
    line.cut()
    try:
        for detector in range(1, 1 + line.n_tries):
            began = time.monotonic()
            with pytest.raises(StoreError):
                publisher.publish(texts(visit(detector)))
            assert time.monotonic() - began < LONG
    finally:
        line.mend()
    sent = [visit(0), visit(3), visit(4)]
    publish_at_last(publisher, texts(*sent[1:]))
    # What was not taken was not kept either, to come some time later.
    assert {got.message for got in line.sink.received()} == set(sent)


@pytest.mark.parametrize("kind", [pytest.param("kafka", marks=pytest.mark.slow), "redis"])
def test_a_server_that_hangs_is_told_in_time_and_used_when_it_goes_on(kind, request, monkeypatch):
    monkeypatch.setattr(kafka_module, "TIMEOUT", 3.0)
    monkeypatch.setattr(redis_module, "TIMEOUT", 1.0)
    server = request.getfixturevalue({"kafka": "kafka", "redis": "redis_server"}[kind])
    sink = request.getfixturevalue({"kafka": "topic", "redis": "streams"}[kind])
    sink.publisher.publish(texts(visit(0)))
    process = psutil.Process(server.pid)
    process.suspend()
    try:
        began = time.monotonic()
        with pytest.raises(StoreError):
            sink.publisher.publish(texts(visit(1)))
        assert time.monotonic() - began < LONG / 3
    finally:
        process.resume()
    publish_at_last(sink.publisher, texts(visit(2)))
    # What it had been given before it hung may come.
    assert {got.message for got in sink.received()} - {visit(1)} == {visit(0), visit(2)}


# Kafka.


def test_kafka_records_are_keyed_by_what_they_are_about(topic):
    topic.publisher.publish(texts(visit(1), visit(2), WarmUp(instrument="LSSTCam")))
    keys = [record.key() for record in topic.records()]
    assert keys == [f"LSSTCam:{GROUP}:1".encode(), f"LSSTCam:{GROUP}:2".encode(), None]


@pytest.mark.parametrize("size", [20_000, MAX_RECORD], ids=["for-the-broker", "for-the-client"])
def test_kafka_refuses_what_is_too_large_and_goes_on(kafka, size):
    topic = KafkaTopic(kafka, max_message_bytes="10000")
    # Text that does not become much smaller by compression.
    huge = visit(1, survey=os.urandom(size // 2).hex())
    for detectors in ((1,), (1, 2)):
        with pytest.raises(RefusedMessageError, match=topic.name):
            topic.publisher.publish(texts(*(huge.model_copy(update={"detector": one}) for one in detectors)))
        topic.publisher.publish(texts(visit(detectors[-1])))
    assert [got.message for got in topic.received()] == [visit(1), visit(2)]


def test_kafka_takes_a_visit_that_is_as_a_whole_larger_than_one_record_may_be(kafka):
    limit = 50_000
    topic = KafkaTopic(kafka, max_message_bytes=str(limit))
    sent = lsstcam()
    assert sum(map(len, texts(*sent))) > limit
    topic.publisher.publish(texts(*sent), ORIGIN)
    assert [got.message for got in topic.received()] == sent


@pytest.mark.slow
def test_kafka_does_not_wait_for_ever_for_a_topic_that_is_not_there(kafka):
    client = connection(KafkaSettings(servers=kafka.bootstrap, security="plaintext"))
    began = time.monotonic()
    with pytest.raises(StoreError):
        KafkaPublisher(KafkaWriter(client, "no such topic")).publish(texts(visit(1)))
    assert time.monotonic() - began < LONG


# Redis.


def test_redis_has_a_stream_per_instrument(streams):
    streams.publisher.publish(texts(visit(1), visit(0, instrument="LATISS")))
    assert streams.names == {streams.stream("latiss"), streams.stream("lsstcam")}
    for name, shown in (("latiss", "LATISS"), ("lsstcam", "LSSTCam")):
        assert [fields["instrument"] for fields in streams.entries(name)] == [shown]


def test_redis_entries_are_flat_and_keep_the_names_of_the_message(streams):
    sent = visit(5)
    streams.publisher.publish(texts(sent), ORIGIN)
    (fields,) = streams.entries()
    assert set(type(sent).model_fields) <= fields.keys()
    assert json.loads(fields["position"]) == list(sent.position)
    assert (fields["groupId"], fields["detector"], fields["survey"]) == (GROUP, "5", SURVEY)


def test_redis_streams_are_cut_to_about_their_length(redis_server):
    max_length = 1000
    streams = Streams(redis_server.url, max_length)
    for number in range(12):
        streams.publisher.publish(texts(*lsstcam(str(number))))
    # Redis drops whole nodes of about 100 entries.
    assert max_length <= streams.client.xlen(streams.stream()) < max_length + 200
    groups = [fields["groupId"] for fields in streams.entries()]
    assert groups[-N_DETECTORS:] == ["11"] * N_DETECTORS
    assert "0" not in groups


def test_redis_shows_the_messages_of_a_call_all_at_once(redis_server, streams):
    def waits():
        return any(
            one["name"] == streams.name and "b" in one["flags"] for one in streams.client.client_list()
        )

    reader = redis.Redis.from_url(redis_server.url, client_name=streams.name)
    with closing(reader), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(reader.xread, {streams.stream(): "0"}, block=int(LONG * 1000))
        while not waits():
            assert not waiting.done()
        streams.publisher.publish(texts(*lsstcam()))
        ((_, entries),) = waiting.result()
    assert len(entries) == N_DETECTORS


def test_redis_without_memory_takes_none_of_a_call(redis_server, streams):
    streams.client.config_set("maxmemory", "1")
    try:
        with pytest.raises(StoreError, match="redis"):
            streams.publisher.publish(texts(visit(1), visit(2)))
        assert streams.entries() == []
    finally:
        streams.client.config_set("maxmemory", "0")
    streams.publisher.publish(texts(visit(3)))
    assert [fields["detector"] for fields in streams.entries()] == ["3"]


def test_redis_with_something_else_under_a_name_takes_none_of_a_call(streams):
    streams.client.set(streams.stream("latiss"), "no stream")
    for instruments in (["LATISS"], ["LSSTCam", "LATISS", "LSSTComCam"]):
        bodies = texts(*(visit(0, instrument=name) for name in instruments))
        with pytest.raises(StoreError, match="redis"):
            streams.publisher.publish(bodies)
    assert streams.client.get(streams.stream("latiss")) == "no stream"
    assert streams.names == {streams.stream("latiss")}


# The webhook.


def ids(posted):
    return Counter(one.pushed.message_id for one in posted)


def messages(sink):
    """The messages that were taken."""
    return Counter(parse_message(pushed.data) for pushed in sink.delivered)


def test_a_webhook_never_has_more_requests_open_than_it_may(http_sink):
    concurrency = 20

    def hold(posted):
        with http_sink.changed:
            # The first ones wait until they are as many as there may be, and then for one too many.
            assert http_sink.changed.wait_for(lambda: http_sink.most_open >= concurrency, LONG)
            http_sink.changed.wait_for(lambda: http_sink.n_open > concurrency, SOON / 30)
        return Answer(200)

    http_sink.answer = hold
    sent = lsstcam()
    webhook_publisher(http_sink.url, concurrency=concurrency).publish(texts(*sent))
    assert http_sink.most_open == concurrency
    assert messages(http_sink) == Counter(sent)


def test_a_webhook_gets_a_cloud_event_that_a_service_of_ours_reads(http_sink):
    sent = visit(42)
    webhook_publisher(http_sink.url).publish(texts(sent), ORIGIN)
    (posted,) = http_sink.requests
    assert posted.headers["content-type"].startswith("application/cloudevents+json")
    event = json.loads(posted.body)
    assert event.pop("data") == json.loads(sent.model_dump_json())
    assert event == {
        "specversion": "1.0",
        "type": "prompt.visit",
        "source": ORIGIN["source_topic"],
        "id": f"LSSTCam:{GROUP}:42",
        "datacontenttype": "application/json",
        "time": ORIGIN["published_at"],
        "traceparent": ORIGIN["traceparent"],
    }
    assert posted.headers["traceparent"] == ORIGIN["traceparent"]
    pushed = posted.pushed
    assert (pushed.subscription, pushed.message_id) == (WEBHOOK, event["id"])
    assert parse_message(pushed.data) == sent


def test_a_webhook_needs_no_origin(http_sink):
    webhook_publisher(http_sink.url).publish(texts(visit(42)))
    (posted,) = http_sink.requests
    event = json.loads(posted.body)
    assert event["source"]
    assert not {"time", "traceparent"} & event.keys()
    assert "traceparent" not in posted.headers


def test_events_of_a_webhook_have_different_ids_that_stay_the_same(http_sink, quick):
    cancels = [
        CancelVisit(instrument=name, groupId=group, scriptSalIndex=3)
        for name in ("LATISS", "LSSTCam")
        for group in ("a", "b")
    ]
    sent = texts(*lsstcam(), *cancels, WarmUp(instrument="LATISS"), WarmUp(instrument="LSSTCam"))
    http_sink.answer = in_turn(503, 200)
    publisher = webhook_publisher(http_sink.url)
    publisher.publish(sent)
    publisher.publish(sent, ORIGIN)
    # Twice in the first call, because of the failure, and once in the other.
    assert ids(http_sink.requests) == dict.fromkeys(ids(http_sink.requests), 3)
    assert len(ids(http_sink.requests)) == len(sent)


@pytest.mark.parametrize(("token", "sent"), [(TOKEN, f"Bearer {TOKEN}"), ("", None)])
def test_a_webhook_gets_its_token(http_sink, token, sent):
    webhook_publisher(http_sink.url, token=token).publish(texts(visit(1), visit(2)))
    assert [posted.headers.get("authorization") for posted in http_sink.requests] == [sent] * 2


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_a_webhook_takes_a_message_by_a_status_of_success(http_sink, status):
    http_sink.answer = in_turn(status)
    webhook_publisher(http_sink.url).publish(texts(visit(1)))
    assert len(http_sink.requests) == 1


@pytest.mark.parametrize(
    "failure",
    [Answer(500), Answer(503), Answer(404), Answer(408), CLOSE],
    ids=lambda answer: str(answer.status),
)
def test_a_webhook_that_fails_at_first_gets_the_message_again(http_sink, quick, failure):
    http_sink.answer = in_turn(failure, failure, 200)
    webhook_publisher(http_sink.url).publish(texts(visit(1), visit(2)))
    assert set(ids(http_sink.requests).values()) == {3}
    assert messages(http_sink) == Counter([visit(1), visit(2)])


def test_a_webhook_that_asks_for_time_gets_it(http_sink, quick):
    http_sink.answer = in_turn(Answer(429, {"Retry-After": "1"}), 200)
    webhook_publisher(http_sink.url).publish(texts(visit(1)))
    first, second = http_sink.requests
    assert 1.0 <= second.at - first.at + 0.01 < LONG
    assert messages(http_sink) == {visit(1): 1}


def test_a_webhook_that_asks_for_too_much_time_gets_less(http_sink, quick, monkeypatch):
    monkeypatch.setattr(webhook, "LONGEST_PAUSE", 0.05)
    http_sink.answer = in_turn(Answer(429, {"Retry-After": "40"}), 200)
    began = time.monotonic()
    webhook_publisher(http_sink.url).publish(texts(visit(1)))
    assert time.monotonic() - began < LONG
    assert messages(http_sink) == {visit(1): 1}


@pytest.mark.parametrize("asked", ["soon", "", "-1", "²", "9" * 400, "Fri, 27 Nov 2026 18:00:00 GMT"])
def test_a_webhook_that_asks_for_nonsense_gets_the_message_again(http_sink, quick, monkeypatch, asked):
    monkeypatch.setattr(webhook, "LONGEST_PAUSE", 0.05)
    http_sink.answer = in_turn(Answer(429, {"Retry-After": asked}), 200)
    webhook_publisher(http_sink.url).publish(texts(visit(1)))
    assert messages(http_sink) == {visit(1): 1}


@pytest.mark.parametrize("status", [302, 401, 403, 404, 409, 429, 500, 503])
def test_a_webhook_that_goes_on_failing_is_a_store_error(http_sink, quick, monkeypatch, status):
    monkeypatch.setattr(webhook, "TRIES", 3)
    http_sink.answer = in_turn(Answer(status, {"Location": http_sink.url}))
    with pytest.raises(StoreError, match=str(status)):
        webhook_publisher(http_sink.url).publish(texts(visit(1), visit(2)))
    assert ids(http_sink.requests) == {f"LSSTCam:{GROUP}:{detector}": 3 for detector in (1, 2)}


@pytest.mark.parametrize("failure", [HANG, CLOSE], ids=["hangs", "closes"])
def test_a_webhook_that_does_not_answer_is_a_store_error(http_sink, quick, monkeypatch, failure):
    monkeypatch.setattr(webhook, "TRIES", 2)
    http_sink.answer = lambda posted: (
        failure if posted.pushed.message_id == f"LSSTCam:{GROUP}:1" else Answer(200)
    )
    publisher = webhook_publisher(http_sink.url, timeout=SOON)
    began = time.monotonic()
    with pytest.raises(StoreError, match=f"LSSTCam:{GROUP}:1"):
        publisher.publish(texts(visit(1), visit(2), visit(3)))
    assert time.monotonic() - began < LONG
    assert messages(http_sink) == Counter([visit(2), visit(3)])
    http_sink.answer = in_turn(200)
    publisher.publish(texts(visit(1)))
    assert messages(http_sink) == Counter([visit(2), visit(3), visit(1)])


def test_a_webhook_gets_only_what_is_left_when_a_visit_is_tried_again(http_sink, quick, monkeypatch):
    monkeypatch.setattr(webhook, "TRIES", 2)
    bodies = texts(*(visit(detector) for detector in range(3)))
    publisher = webhook_publisher(http_sink.url)
    failing = parse_message(bodies[1])
    http_sink.answer = lambda posted: Answer(500 if parse_message(posted.pushed.data) == failing else 204)
    with pytest.raises(StoreError):
        publisher.publish(bodies)
    assert len(http_sink.requests) == 4
    http_sink.answer = lambda _: Answer(204)
    publisher.publish(bodies)
    assert parse_message(http_sink.requests[-1].pushed.data) == failing
    assert len(http_sink.requests) == 5
    # Once all are delivered it is forgotten: what is announced again is sent again.
    publisher.publish(bodies)
    assert len(http_sink.requests) == 8


def test_requests_of_a_webhook_wait_for_their_turn_however_long_it_takes(http_sink, monkeypatch):
    monkeypatch.setattr(webhook, "TRIES", 1)
    never = threading.Event()

    def answer(posted):
        never.wait(SOON / 5)
        return Answer(200)

    http_sink.answer = answer
    # One at a time: all together take longer than a single one may.
    webhook_publisher(http_sink.url, concurrency=1, timeout=SOON).publish(texts(*map(visit, range(8))))
    assert set(ids(http_sink.requests).values()) == {1}
    assert http_sink.most_open == 1
    assert len(http_sink.delivered) == 8


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_webhook_that_refuses_one_message_gets_the_others(http_sink, quick, status):
    refused, failed = f"LSSTCam:{GROUP}:1", f"LSSTCam:{GROUP}:2"
    recovering = in_turn(500, 200)

    def answer(posted):
        match posted.pushed.message_id:
            case name if name == refused:
                return Answer(status, text="the detector does not exist")
            case name if name == failed:
                return recovering(posted)
        return Answer(200)

    http_sink.answer = answer
    sent = lsstcam()
    with pytest.raises(RefusedMessageError, match=f"{refused}.*{status}.*the detector does not exist"):
        webhook_publisher(http_sink.url).publish(texts(*sent))
    assert messages(http_sink) == Counter(message for message in sent if message.detector != 1)
    # Another try would be in vain.
    assert ids(http_sink.requests)[refused] == 1
    assert ids(http_sink.requests)[failed] == 2


def test_a_webhook_that_refuses_one_message_and_fails_with_another_is_tried_again(
    http_sink, quick, monkeypatch
):
    monkeypatch.setattr(webhook, "TRIES", 2)
    http_sink.answer = lambda posted: Answer(400 if posted.pushed.message_id.endswith(":1") else 500)
    for detectors in ((1, 2), (2, 1)):
        with pytest.raises(StoreError, match=f"LSSTCam:{GROUP}:2"):
            webhook_publisher(http_sink.url).publish(texts(*map(visit, detectors)))


@pytest.mark.parametrize("status", [400, 401, 500])
def test_errors_of_a_webhook_never_show_its_token(http_sink, quick, monkeypatch, status):
    monkeypatch.setattr(webhook, "TRIES", 2)
    # As servers do that are being debugged.
    http_sink.answer = lambda posted: Answer(status, text=f"{'-' * 170} {posted.headers['authorization']}")
    with pytest.raises((StoreError, RefusedMessageError), match=str(status)) as caught:
        webhook_publisher(http_sink.url).publish(texts(visit(1)))
    shown = "".join(traceback.format_exception(caught.value))
    assert TOKEN not in shown
    assert TOKEN[:10] not in shown


def test_a_webhook_that_nobody_listens_at_does_not_show_its_token(http_sink, quick, monkeypatch):
    monkeypatch.setattr(webhook, "TRIES", 2)
    with Proxy(LOOPBACK, http_sink.port) as proxy:
        proxy.cut()
        with pytest.raises(StoreError, match=proxy.host) as caught:
            webhook_publisher(f"http://{proxy.host}/").publish(texts(visit(1)))
    assert TOKEN not in "".join(traceback.format_exception(caught.value))


# Standard output.


def test_output_that_nobody_reads_is_a_store_error(monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    end = os.fdopen(writing, "w", encoding="utf-8")
    monkeypatch.setattr("sys.stdout", end)
    with pytest.raises(StoreError, match="standard output"):
        Lines().publish(texts(visit(1)))
    with suppress(BrokenPipeError):
        end.close()
