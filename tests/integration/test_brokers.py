"""The servers that messages go through do what tests of the bridge rely on."""

import json
import time
import uuid

import psutil
import pytest
import redis
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from local_cloud.brokers import KafkaBroker, RedisServer, SchemaRegistry
from local_cloud.servers import LOOPBACK

LONG = 30.0
"""A wait that ends earlier, because something comes."""


def new_name():
    return f"test-{uuid.uuid4().hex[:12]}"


def with_password(broker, address, **settings):
    """Settings of a client that comes by a listener that asks for a password."""
    return {
        "bootstrap.servers": address,
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": broker.user,
        "sasl.password": broker.password,
        **{name.replace("_", "."): value for name, value in settings.items()},
    }


def with_tls(broker, address, ca_file, **settings):
    secure = {"security_protocol": "SASL_SSL", "ssl_ca_location": str(ca_file)}
    return with_password(broker, address, **secure, **settings)


def send(settings, topic, *values):
    """Produce records, and wait until all are acknowledged."""
    failed = []
    producer = Producer({"acks": "all", "message.timeout.ms": int(LONG * 1000), **settings})
    for value in values:
        producer.produce(topic, value, on_delivery=lambda error, _: error and failed.append(error))
    assert producer.flush(LONG) == 0
    assert failed == []


def read(settings, topic, n):
    """Return the first records of a topic with one partition."""
    consumer = Consumer({"group.id": new_name(), **settings})
    consumer.assign([TopicPartition(topic, 0, 0)])
    deadline = time.monotonic() + LONG
    found = []
    while len(found) < n and time.monotonic() < deadline:
        message = consumer.poll(1.0)
        if message is not None and message.error() is None:
            found.append(message.value())
    consumer.close()
    return found


def refusal(settings):
    """Return the first error of a client that is refused."""
    errors = []
    producer = Producer({"error_cb": errors.append, **settings})
    deadline = time.monotonic() + LONG
    while not errors and time.monotonic() < deadline:
        producer.poll(1.0)
    return errors[0]


@pytest.mark.slow
def test_records_outlive_a_kill_of_their_broker(kafka):
    topic = new_name()
    with KafkaBroker() as broker:
        broker.create_topic(topic)
        plain = {"bootstrap.servers": broker.bootstrap}
        send(plain, topic, b"1", b"2")
        before = broker.ports
        broker.kill()
        assert not broker.running
        broker.start()
        assert broker.ports == before
        send(plain, topic, b"3")
        broker.restart()
        assert read(plain, topic, 3) == [b"1", b"2", b"3"]
        send(with_tls(broker, broker.tls, broker.ca_file), topic, b"4")


def test_a_topic_has_the_partitions_that_are_asked_for(kafka):
    topic = new_name()
    kafka.create_topic(topic, partitions=3)
    metadata = Producer({"bootstrap.servers": kafka.bootstrap}).list_topics(topic, LONG)
    assert set(metadata.topics[topic].partitions) == {0, 1, 2}


def test_the_right_password_is_accepted_and_a_wrong_one_refused(kafka):
    topic = new_name()
    kafka.create_topic(topic)
    right = with_password(kafka, kafka.scram)
    send(right, topic, b"1")
    assert read(right, topic, 1) == [b"1"]
    for wrong in ({"sasl_password": "wrong"}, {"sasl_username": "nobody"}):
        assert "invalid credentials" in refusal(with_password(kafka, kafka.scram, **wrong)).str()


def test_a_client_accepts_the_certificate_of_the_right_host_and_authority_only(kafka):
    topic = new_name()
    kafka.create_topic(topic)
    right = with_tls(kafka, kafka.tls, kafka.ca_file)
    send(right, topic, b"1")
    assert read(right, topic, 1) == [b"1"]
    for wrong in (
        with_tls(kafka, kafka.tls, kafka.wrong_ca_file),
        with_tls(kafka, kafka.tls_wrong_host, kafka.ca_file),
    ):
        # Its code may be that of any connection that broke.
        assert "certificate verify failed" in refusal(wrong).str()
    # It is the name that is wrong there, and nothing else.
    careless = {"ssl_endpoint_identification_algorithm": "none"}
    send(with_tls(kafka, kafka.tls_wrong_host, kafka.ca_file, **careless), topic, b"2")
    assert read(right, topic, 2) == [b"1", b"2"]


def test_a_wrong_password_is_refused_over_tls(kafka):
    error = refusal(with_tls(kafka, kafka.tls, kafka.ca_file, sasl_password="wrong"))
    assert "invalid credentials" in error.str()


def record(*fields):
    described = [{"name": name, "type": kind} for name, kind in fields]
    return Schema(json.dumps({"type": "record", "name": "Visit", "fields": described}), "AVRO")


def test_schemas_outlive_a_kill_of_their_registry(registry):
    subject = new_name()
    first, incompatible = record(("visit", "long")), record(("visit", "long"), ("group", "string"))
    with SchemaRegistry() as server:
        with SchemaRegistryClient({"url": server.url}) as client:
            schema_id = client.register_schema(subject, first)
            assert client.register_schema(subject, first) == schema_id
        url = server.url
        for end in (server.kill, server.stop):
            end()
            server.start()
            assert server.url == url
            # A new client, because the old one remembers.
            with SchemaRegistryClient({"url": url}) as client:
                found = client.get_schema(schema_id)
                assert json.loads(found.schema_str) == json.loads(first.schema_str)
                assert client.get_latest_version(subject).schema_id == schema_id
                with pytest.raises(SchemaRegistryError) as refused:
                    client.register_schema(subject, incompatible)
                assert refused.value.http_status_code == 409


def test_an_unknown_schema_is_not_found(registry):
    with SchemaRegistryClient({"url": registry.url}) as client, pytest.raises(SchemaRegistryError) as missing:
        client.get_schema(999_999)
    assert (missing.value.http_status_code, missing.value.error_code) == (404, 40403)


def test_entries_of_streams_outlive_a_kill_of_their_server(redis_server):
    key = new_name()
    with RedisServer() as server:
        url = server.url
        with redis.Redis.from_url(url) as client:
            client.xgroup_create(key, "workers", mkstream=True)
            ids = [client.xadd(key, {"visit": n}) for n in range(2)]
            client.xreadgroup("workers", "first", {key: ">"}, count=1)
        server.kill()
        server.start()
        assert server.url == url
        with redis.Redis.from_url(url) as client:
            assert client.xrange(key) == [(ids[0], {b"visit": b"0"}), (ids[1], {b"visit": b"1"})]
            assert client.xpending(key, "workers")["pending"] == 1


def test_brokers_listen_on_this_machine_only(kafka, registry, redis_server):
    for server in (kafka, registry, redis_server):
        listening = [each for each in psutil.Process(server.pid).net_connections() if each.status == "LISTEN"]
        # Apicurio has one more, by which it numbers its processes; the last one of Kafka is that of its line.
        own = server.ports[:-1] if server is kafka else server.ports
        assert set(own) <= {each.laddr.port for each in listening}
        assert {each.laddr.ip.removeprefix("::ffff:") for each in listening} == {LOOPBACK}
