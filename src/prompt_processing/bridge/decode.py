"""Reading the observatory's records: Avro in Confluent's wire format.

Five bytes, a zero and the number of the writer's schema at the registry, come before the data
(https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/, "Wire format").
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, get_args

import httpx2
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.schema_registry.error import SchemaRegistryError
from confluent_kafka.serialization import MessageField, SerializationContext
from pydantic import BaseModel

from prompt_processing.bridge.records import Record
from prompt_processing.domain.errors import EventError, StoreError
from prompt_processing.domain.visit import NextVisit, NextVisitCanceled, parse_cancellation, parse_event

NAMESPACE: Final = "lsst.sal.ScriptQueue"
_UNKNOWN: Final = 404

type Event = NextVisit | NextVisitCanceled


class Decoder:
    """Turns records into events.

    The writer's schema is asked for once per number. Of its fields only those that are needed are read: it
    may have others, and need not be the schema that this program knows.

    Parameters
    ----------
    registry
        The schema registry.
    visits_topic, cancel_topic
        Topics of ``nextVisit`` and ``nextVisitCanceled``.
    """

    def __init__(self, registry: SchemaRegistryClient, *, visits_topic: str, cancel_topic: str) -> None:
        self._readers: Mapping[str, tuple[AvroDeserializer, Callable[[dict[str, Any]], Event]]] = {
            visits_topic: (AvroDeserializer(registry, visit_schema()), parse_event),
            cancel_topic: (AvroDeserializer(registry, cancel_schema()), parse_cancellation),
        }

    def __call__(self, record: Record) -> Event:
        """Return the event of a record.

        Raises
        ------
        EventError
            If it cannot be read, now or ever.
        StoreError
            If the registry does not answer.
        """
        if record.topic not in self._readers:
            raise EventError(f"{record}: there are no events on this topic")
        if record.value is None:
            raise EventError(f"{record}: the record is empty")
        deserialize, parse = self._readers[record.topic]
        try:
            fields = deserialize(record.value, SerializationContext(record.topic, MessageField.VALUE))
        except SchemaRegistryError as error:
            if error.http_status_code == _UNKNOWN:
                raise EventError(f"{record}: its schema is not known: {error}") from error
            raise StoreError(f"schema registry: {error}") from error
        except httpx2.HTTPError as error:
            raise StoreError(f"schema registry: {type(error).__name__}: {error}") from error
        except Exception as error:  # a decoder of bytes from outside may fail in any way
            raise EventError(f"{record}: is no Avro record of an event: {error!r}") from error
        if not isinstance(fields, dict):
            raise EventError(f"{record}: is no Avro record of an event")
        return parse(fields)


def visit_schema() -> str:
    """Return the Avro schema by which ``nextVisit`` records are read."""
    return _schema("logevent_nextVisit", NextVisit)


def cancel_schema() -> str:
    """Return the Avro schema by which ``nextVisitCanceled`` records are read."""
    return _schema("logevent_nextVisitCanceled", NextVisitCanceled)


def _schema(name: str, model: type[BaseModel]) -> str:
    fields = [{"name": name, "type": _avro(field.annotation)} for name, field in model.model_fields.items()]
    return json.dumps({"type": "record", "name": name, "namespace": NAMESPACE, "fields": fields})


def _avro(annotation: Any) -> Any:
    """Return the Avro type in which SAL sends a field."""
    if items := get_args(annotation):
        return {"type": "array", "items": _avro(get_args(items[0])[0] if get_args(items[0]) else items[0])}
    if issubclass(annotation, str):
        return "string"
    return "long" if issubclass(annotation, int) else "double"
