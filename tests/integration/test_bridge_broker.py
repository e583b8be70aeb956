"""A lone bridge goes on, whatever its broker does; every message is counted."""

import threading
import time
from contextlib import ExitStack, suppress
from functools import partial

import psutil
import pytest
import requests
from confluent_kafka import Consumer
from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

import prompt_processing.bridge.kafka_group as module
from local_cloud.bridge_world import FOREVER, Observatory, bridge_process, bridge_service, keys, metrics
from local_cloud.kafka_line import Api
from prompt_processing.bridge.kafka_group import GroupSource
from prompt_processing.bridge.metrics import BridgeMetrics
from prompt_processing.config import KafkaSettings
from prompt_processing.domain.errors import StoreError
from prompt_processing.messaging.kafka import connection
from support.engines import wait_for

pytestmark = pytest.mark.slow
until = partial(wait_for, timeout=FOREVER)


def is_ready(service):
    return requests.get(f"{service.url}ready", timeout=10.0).status_code == 200


class Member:
    """A source in this process, whose group begins with the first record there is."""

    def __init__(self, observatory, servers, session, **client):
        settings = connection(KafkaSettings(servers=servers, security="plaintext"))
        self.metrics = BridgeMetrics()
        self.source = GroupSource(
            {**settings, **client},
            [observatory.visits],
            group=f"member-{observatory.own}",
            session=session,
            max_age=3600.0,
            metrics=self.metrics,
        )

    def next(self):
        """Return the next record, however often that fails before."""
        end = time.monotonic() + FOREVER
        while time.monotonic() < end:
            try:
                record = self.source.receive(1.0)
            except StoreError:
                continue
            if record is not None:
                return record
        raise TimeoutError


@pytest.fixture
def member(observatory):
    """A function that makes one."""
    with ExitStack() as opened:

        def make(servers, session=10.0, **client):
            made = Member(observatory, servers, session, **client)
            opened.callback(made.source.close)
            return made

        yield make


def test_a_commit_after_the_end_of_its_session_does_not_end_a_member(kafka, observatory, member):
    """The broker still knows the member, whose client has forgotten its name (a static one ends by this)."""
    observatory.announce("a")
    observatory.announce("b")
    with kafka.line as line:
        found = member(line.host)
        record = found.next()
        with line.losing(Api.HEARTBEAT, count=1, cut=False):
            pass
        lost = time.monotonic()
        # The client's session has begun a heartbeat before that of the broker.
        threading.Event().wait(lost + 9.5 - time.monotonic())
        with suppress(StoreError):
            found.source.done(record)
        assert not found.source.keep()
        again = found.next()
        assert again == record
        found.source.done(again)
        assert found.next().offset == record.offset + 1


def test_a_client_that_fails_for_good_is_replaced(kafka, observatory, member, monkeypatch):
    """A static member that another one of its name has fenced: for the client, this is final."""
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.1)
    for group in ("a", "b"):
        observatory.announce(group)
    found = member(kafka.bootstrap, **{"group.instance.id": "name"})
    record = found.next()
    until(lambda: found.source.keep() and found.metrics.is_ready())
    other = Consumer(
        {
            "bootstrap.servers": kafka.bootstrap,
            "group.id": f"member-{observatory.own}",
            "group.instance.id": "name",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    other.subscribe([observatory.visits])
    try:
        until(lambda: other.poll(0.1) is not None)
        with pytest.raises(StoreError, match="fenced"):
            until(lambda: not found.source.keep())
        assert not found.metrics.is_ready()
        assert not found.source.keep()
    finally:
        other.close()
    assert found.next() == record
    found.source.done(record)
    until(lambda: found.source.receive(0.1) or found.metrics.is_ready())
    assert "bridge_replaced_clients_total 1.0" in found.metrics.page().decode()


@pytest.mark.parametrize("api", [Api.JOIN_GROUP, Api.SYNC_GROUP, Api.OFFSET_COMMIT, Api.HEARTBEAT])
def test_an_answer_may_get_lost(api, kafka, observatory, receiver, bridge_settings):
    with kafka.line as line, ExitStack() as opened:
        settings = bridge_settings(PROMPT_KAFKA__SERVERS=line.host, PROMPT_BRIDGE__SESSION_S="3")
        with line.losing(api, count=2):
            opened.enter_context(bridge_process(settings))
            observatory.announce("a")
            observatory.announce("b")
        receiver.wait_for(keys("a", "b"))
        observatory.announce("c")
        receiver.wait_for(keys("a", "b", "c"))
    assert receiver.counts.keys() == keys("a", "b", "c")


def test_a_broker_takes_a_bridge_for_dead(observatory, receiver, bridge_settings):
    """The bridge was stopped for longer than its session, with a record in hand."""
    with bridge_service(bridge_settings(PROMPT_BRIDGE__SESSION_S="1")) as service:
        observatory.announce("a")
        receiver.wait_for(keys("a"))
        process = psutil.Process(service.pid)
        process.suspend()
        observatory.announce("b")
        threading.Event().wait(3.0)
        process.resume()
        receiver.wait_for(keys("b"))
        until(lambda: is_ready(service))
        assert metrics(service)("bridge_rebalances_total") >= 2


def test_a_topic_is_deleted_and_made_again(kafka, observatory, receiver, bridge_settings):
    """The client misses that it was away, and finds more records than it had read before."""
    before, after = ("a0", "a1", "a2"), ("b0", "b1", "b2", "b3", "b4")
    with bridge_service(bridge_settings()) as service:
        for group in before:
            observatory.announce(group)
        receiver.wait_for(keys(*before))
        until(lambda: metrics(service)("bridge_lag_records") == 0)
        process = psutil.Process(service.pid)
        process.suspend()
        kafka.delete_topic(observatory.visits)
        kafka.create_topic(observatory.visits)
        for group in after:
            observatory.announce_for_sure(group)
        process.resume()
        receiver.wait_for(keys(*after))
        until(lambda: is_ready(service))
        assert metrics(service)("bridge_replaced_clients_total") == 1


def test_a_broker_comes_back_with_an_empty_disk(require_services, registry, pubsub, receiver):
    """Topics, groups and offsets are gone, and what the producer of the second bridge knew of them."""
    from local_cloud.brokers import KafkaBroker

    with require_services(KafkaBroker) as broker, ExitStack() as opened:
        reader, writer = (Observatory.on(broker, registry) for _ in range(2))
        messages = f"messages-{writer.own}"
        to_pubsub = {"PROMPT_PUBSUB__TOPIC": receiver.topic, "PUBSUB_EMULATOR_HOST": pubsub.host}
        to_kafka = {"PROMPT_BRIDGE__SINK": "kafka", "PROMPT_BRIDGE__MESSAGES_TOPIC": messages}
        services = [
            opened.enter_context(bridge_service(observatory.settings(broker.bootstrap, registry.url, **own)))
            for observatory, own in ((reader, to_pubsub), (writer, to_kafka))
        ]
        sent = [lambda: set(receiver.counts), lambda: broker.keys(messages)]
        for observatory in (reader, writer):
            observatory.announce("a")
        for service, found in zip(services, sent, strict=True):
            until(lambda found=found: found() == keys("a"))
            until(lambda service=service: metrics(service)("bridge_lag_records") == 0)
        broker.kill()
        until(lambda: not any(map(is_ready, services)))
        broker.erase()
        broker.start()
        for observatory in (reader, writer):
            for topic in (observatory.visits, observatory.cancellations, observatory.letters):
                broker.create_topic(topic)
            for group in ("b", "c"):
                observatory.announce_for_sure(group)
        for found in sent:
            until(lambda found=found: keys("b", "c") <= found())
        until(lambda: all(map(is_ready, services)))


def test_a_password_is_changed_and_changed_back(require_services, registry, pubsub, receiver):
    from local_cloud.brokers import KafkaBroker

    def set_password(broker, password):
        info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        change = UserScramCredentialUpsertion(broker.user, info, password.encode())
        admin = AdminClient({"bootstrap.servers": broker.bootstrap})
        admin.alter_user_scram_credentials([change])[broker.user].result(FOREVER)
        # Connections that stand are asked no more.
        broker.restart()

    with require_services(KafkaBroker) as broker:
        observatory = Observatory.on(broker, registry)
        own = {
            "PROMPT_PUBSUB__TOPIC": receiver.topic,
            "PUBSUB_EMULATOR_HOST": pubsub.host,
            "PROMPT_KAFKA__SECURITY": "sasl_ssl",
            "PROMPT_KAFKA__USER": broker.user,
            "PROMPT_KAFKA__PASSWORD": broker.password,
            "PROMPT_KAFKA__CA_FILE": str(broker.ca_file),
        }
        with bridge_service(observatory.settings(broker.tls, registry.url, **own)) as service:
            observatory.announce("a")
            receiver.wait_for(keys("a"))
            set_password(broker, "another")
            observatory.announce_for_sure("b")
            until(lambda: "authentication" in service.log().lower())
            assert not is_ready(service)
            set_password(broker, broker.password)
            observatory.announce_for_sure("c")
            receiver.wait_for(keys("b", "c"))
            until(lambda: is_ready(service))
