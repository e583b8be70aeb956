"""Visits as the observatory announces them: Avro records on Kafka, with all fields of the SAL topic.

The fields are those of ``lsst.sal.ScriptQueue.logevent_nextVisit`` and ``...Canceled`` (ts_xml, SAL 7.4).
"""

import json
from collections.abc import Mapping
from typing import Any, Final

import httpx2
from astropy.time import Time
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.error import SchemaRegistryError
from confluent_kafka.serialization import MessageField, SerializationContext

from prompt_processing.domain.errors import StoreError
from prompt_processing.domain.visit import NextVisit, NextVisitCanceled
from prompt_processing.messaging.kafka import KafkaWriter, Produced

NAMESPACE: Final = "lsst.sal.ScriptQueue"
_PRIVATE: Final = {
    "private_efdStamp": "double",
    "private_kafkaStamp": "double",
    "salIndex": "long",
    "private_revCode": "string",
    "private_sndStamp": "double",
    "private_rcvStamp": "double",
    "private_seqNum": "long",
    "private_identity": "string",
    "private_origin": "long",
}
"""What every SAL topic has."""
_VISIT: Final = {
    "scriptSalIndex": "long",
    "groupId": "string",
    "coordinateSystem": "long",
    "position": {"type": "array", "items": "double"},
    "startTime": "double",
    "rotationSystem": "long",
    "cameraAngle": "double",
    "filters": "string",
    "dome": "long",
    "duration": "double",
    "nimages": "long",
    "instrument": "string",
    "survey": "string",
    "totalCheckpoints": "long",
}
_CANCELED: Final = {"scriptSalIndex": "long", "groupId": "string"}


class SalEvents:
    """Writes events to their topics.

    Parameters
    ----------
    registry
        The schema registry; schemas are registered there.
    visits, cancellations
        Writers to the topics.
    """

    def __init__(
        self, registry: SchemaRegistryClient, *, visits: KafkaWriter, cancellations: KafkaWriter
    ) -> None:
        self._writers = {NextVisit: visits, NextVisitCanceled: cancellations}
        self._serializers = {
            NextVisit: AvroSerializer(registry, schema("logevent_nextVisit", _VISIT)),
            NextVisitCanceled: AvroSerializer(registry, schema("logevent_nextVisitCanceled", _CANCELED)),
        }

    def announce(self, event: NextVisit | NextVisitCanceled) -> None:
        """Write an event.

        Raises
        ------
        StoreError
            If brokers or registry do not answer.
        """
        writer = self._writers[type(event)]
        context = SerializationContext(writer.topic, MessageField.VALUE)
        try:
            value = self._serializers[type(event)](_fields(event), context)
        except (SchemaRegistryError, httpx2.HTTPError) as error:
            raise StoreError(f"schema registry: {error}") from error
        writer.write([Produced(None, value, {})])


def schema(name: str, fields: Mapping[str, Any]) -> str:
    """Return the Avro schema of a SAL topic with some fields of its own."""
    listed = [{"name": field, "type": kind} for field, kind in (_PRIVATE | dict(fields)).items()]
    return json.dumps({"type": "record", "name": name, "namespace": NAMESPACE, "fields": listed})


def _fields(event: NextVisit | NextVisitCanceled) -> dict[str, Any]:
    stamp = float(Time.now().unix_tai)
    private = {
        "private_kafkaStamp": stamp,
        "private_revCode": "",
        "private_sndStamp": stamp,
        "private_rcvStamp": 0.0,
        "private_seqNum": 0,
        "private_identity": f"ScriptQueue:{event.salIndex}",
        "private_origin": 0,
    }
    return private | event.model_dump(mode="json")
