"""Reading records of the observatory."""

import io
import json
import struct
import uuid

import fastavro
import httpx2
import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from local_cloud.visits import EVENT
from prompt_processing.bridge.decode import Decoder
from prompt_processing.bridge.records import Record
from prompt_processing.domain.errors import EventError, StoreError
from prompt_processing.domain.visit import NextVisitCanceled, parse_event
from prompt_processing.night.sal_events import SalEvents

VISITS, CANCEL = "visits", "cancellations"


class Writer:
    """Keeps what is written to a topic."""

    def __init__(self, topic):
        self.topic = topic
        self.written = []

    def write(self, records):
        self.written += records


@pytest.fixture
def registry():
    return SchemaRegistryClient.new_client({"url": f"mock://{uuid.uuid4().hex}"})


@pytest.fixture
def decoder(registry):
    return Decoder(registry, visits_topic=VISITS, cancel_topic=CANCEL)


def record(value, topic=VISITS):
    return Record(topic, 0, 5, value, 0.0, {})


def encoded(registry, event):
    writers = {"visits": Writer(VISITS), "cancellations": Writer(CANCEL)}
    SalEvents(registry, **writers).announce(event)
    (written,) = [each for writer in writers.values() for each in writer.written]
    return written.value


def test_an_event_comes_back(registry, decoder):
    event = parse_event(EVENT)
    assert decoder(record(encoded(registry, event))) == event
    cancelled = NextVisitCanceled(salIndex=1, scriptSalIndex=2, groupId="g", private_efdStamp=3.0)
    assert decoder(record(encoded(registry, cancelled), CANCEL)) == cancelled


def write(registry, fields, name="logevent_nextVisit", **values):
    """Return an event written with a schema that has some fields of other types, or others, or fewer."""
    kinds = {int: "long", float: "double", str: "string", list: {"type": "array", "items": "double"}}
    schema = {
        "type": "record",
        "name": name,
        "namespace": "lsst.sal.ScriptQueue",
        "fields": [{"name": each, "type": kinds[type(value)]} for each, value in EVENT.items()],
    }
    schema["fields"] = [field for field in schema["fields"] if field["name"] not in fields]
    schema["fields"] += [{"name": each, "type": kind} for each, kind in fields.items() if kind]
    number = registry.register_schema(f"{VISITS}-value", Schema(json.dumps(schema), "AVRO"))
    with io.BytesIO() as stream:
        fastavro.schemaless_writer(stream, schema, {**EVENT, **values})
        return struct.pack(">bI", 0, number) + stream.getvalue()


def test_fields_may_be_added_and_types_be_narrower(registry, decoder):
    value = write(registry, {"aNewOne": "string", "nimages": "int", "duration": "float"}, aNewOne="x")
    assert decoder(record(value)) == parse_event(EVENT)


def test_an_event_without_a_field_that_is_needed_cannot_be_read(registry, decoder):
    with pytest.raises(EventError, match=r"visits/0/5.*groupId"):
        decoder(record(write(registry, {"groupId": None})))


def test_an_event_that_makes_no_sense_cannot_be_read(registry, decoder):
    with pytest.raises(EventError, match="nimages"):
        decoder(record(write(registry, {}, nimages=-1)))


@pytest.mark.parametrize(
    "value",
    [None, b"", b"junk", b"\x00\x00\x00\x00", b"\x07\x00\x00\x00\x01abcdef", b"{}", b"\x00" + b"\xff" * 100],
)
def test_junk_cannot_be_read(decoder, value):
    with pytest.raises(EventError, match="visits/0/5"):
        decoder(record(value))


def test_half_an_event_cannot_be_read(registry, decoder):
    value = encoded(registry, parse_event(EVENT))
    for length in range(5, len(value)):
        with pytest.raises(EventError):
            decoder(record(value[:length]))


def test_a_record_of_another_topic_cannot_be_read(registry, decoder):
    with pytest.raises(EventError, match="other/0/5"):
        decoder(record(encoded(registry, parse_event(EVENT)), "other"))


@pytest.mark.parametrize(
    ("problem", "error"),
    [
        (SchemaRegistryError(404, 40403, "Schema not found"), EventError),
        (SchemaRegistryError(404, -1, "default backend"), StoreError),
        (ValueError("a page in HTML"), StoreError),
        (SchemaRegistryError(500, 50001, "backend"), StoreError),
        (SchemaRegistryError(401, 401, "who are you"), StoreError),
        (SchemaRegistryError(429, 429, "slow down"), StoreError),
        (httpx2.ConnectError("refused"), StoreError),
        (httpx2.ReadTimeout("silence"), StoreError),
    ],
)
def test_a_registry_that_does_not_answer_is_no_fault_of_the_record(
    registry, decoder, monkeypatch, problem, error
):
    value = encoded(registry, parse_event(EVENT))

    def fail(*_, **__):
        raise problem

    with monkeypatch.context() as patched:
        patched.setattr(registry, "get_schema", fail)
        with pytest.raises(error):
            decoder(record(value))
    assert decoder(record(value)) == parse_event(EVENT)
