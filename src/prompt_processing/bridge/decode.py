"""Reading the observatory's records: Avro in Confluent's wire format.

Five bytes, a zero and the number of the writer's schema at the registry, come before the data
(https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/, "Wire format").
"""

import io
import json
import struct
from collections.abc import Callable, Mapping
from typing import Any, Final, get_args

from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError
from fastavro import parse_schema, schemaless_reader
from pydantic import BaseModel

from prompt_processing.bridge.records import Record
from prompt_processing.domain.errors import EventError, StoreError
from prompt_processing.domain.visit import NextVisit, NextVisitCanceled, parse_cancellation, parse_event

NAMESPACE: Final = "lsst.sal.ScriptQueue"
_FRAME: Final = struct.Struct(">bi")
_MAGIC: Final = 0
_UNKNOWN: Final = range(40400, 40500)
"""Codes of the registry's own answers that there is no such schema; a status 404 alone may be anybody's."""

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
        self._registry = registry
        self._name = f"schema registry {registry.config()['url']}"
        self._written: dict[int, Any] = {}
        self._read: Mapping[str, tuple[Any, Callable[[dict[str, Any]], Event]]] = {
            visits_topic: (_parsed(visit_schema()), parse_event),
            cancel_topic: (_parsed(cancel_schema()), parse_cancellation),
        }

    def __call__(self, record: Record) -> Event:
        """Return the event of a record.

        Raises
        ------
        EventError
            If it cannot be read, now or ever.
        StoreError
            If the registry does not answer as it should.
        """
        if record.topic not in self._read:
            raise EventError(f"{record}: there are no events on this topic")
        value = record.value or b""
        magic, number = _FRAME.unpack_from(value) if len(value) >= _FRAME.size else (None, 0)
        if magic != _MAGIC or number < 0:
            raise EventError(f"{record}: does not begin as a record with a schema of the registry does")
        schema, parse = self._read[record.topic]
        writer = self._writer(number, record)
        try:
            fields: Any = schemaless_reader(io.BytesIO(value[_FRAME.size :]), writer, schema)
        except Exception as error:  # a decoder of bytes from outside may fail in any way
            raise EventError(f"{record}: is no Avro record of an event: {error!r}") from error
        return parse(fields)

    def _writer(self, number: int, record: Record) -> Any:
        """Return a schema of the registry; whatever else goes wrong than that it is unknown may pass."""
        if number not in self._written:
            try:
                self._written[number] = _parsed(self._registry.get_schema(number).schema_str or "")
            except SchemaRegistryError as error:
                if error.error_code in _UNKNOWN:
                    raise EventError(f"{record}: its schema {number} is not known: {error}") from error
                raise StoreError(f"{self._name}: {error}") from error
            except Exception as error:  # such as the page of a proxy in the registry's place
                raise StoreError(f"{self._name}: {type(error).__name__}: {error}") from error
        return self._written[number]


def _parsed(text: str) -> Any:
    return parse_schema(json.loads(text))


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
