"""Looking whether all is there that a bridge needs, before the night."""

import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final

import httpx2
from confluent_kafka import Consumer, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AclOperation, AdminClient, TopicDescription
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from prompt_processing.domain.errors import PromptError
from prompt_processing.domain.visit import WarmUp
from prompt_processing.instruments.cameras import CAMERAS
from prompt_processing.messaging.port import Publisher

TIMEOUT: Final = 2.0
"""Longest wait for an answer of the brokers [s]."""
TRIES: Final = 5


@dataclass(frozen=True, slots=True)
class Found:
    """What was found of one thing."""

    name: str
    fine: bool | None
    """`None` if it was not tried."""
    text: str


def look_at_kafka(
    client: Mapping[str, Any], topics: Mapping[str, AclOperation], group: str
) -> Iterator[Found]:
    """Yield whether the brokers answer, allow what is done with each topic, and let the group be seen."""
    refusals: list[str] = []
    # The client reports a wrong password or certificate through this callback only.
    settings: dict[str, Any] = {
        **client,
        "error_cb": lambda error: refusals.append(error.str()),
        "log_level": 0,  # it would be said twice
    }
    admin = AdminClient(settings)
    cluster, why = None, ""
    for _ in range(TRIES):
        try:
            cluster = admin.list_topics(timeout=TIMEOUT)
            break
        except KafkaException as error:
            admin.poll(0.0)  # calls back
            why = refusals[0] if refusals else error.args[0].str()
            if refusals:
                break
    if cluster is None:
        yield Found("brokers", fine=False, text=why)
        return
    yield Found("brokers", fine=True, text=f"{len(cluster.brokers)} of cluster {cluster.cluster_id}")
    described = admin.describe_topics(
        TopicCollection(list(topics)), include_authorized_operations=True, request_timeout=TRIES * TIMEOUT
    )
    for topic, operation in topics.items():
        yield _look_at_topic(topic, operation, described[topic])
    yield _look_at_group(settings, group, next(iter(topics)))


def _look_at_topic(topic: str, operation: AclOperation, answer: Future[TopicDescription]) -> Found:
    try:
        found = answer.result()
    except KafkaException as error:
        text = f"there is no such topic, or it may not be read: {error.args[0].str()}"
        return Found(topic, fine=False, text=text)
    # A cluster without rights tells none.
    if found.authorized_operations and operation not in found.authorized_operations:
        return Found(topic, fine=False, text=f"the user has no right to {operation.name}")
    return Found(topic, fine=True, text=f"{len(found.partitions)} partitions")


def _look_at_group(settings: Mapping[str, Any], group: str, topic: str) -> Found:
    consumer = Consumer({**settings, "group.id": group})
    try:
        (answer,) = consumer.committed([TopicPartition(topic, 0)], TRIES * TIMEOUT)
        problem = answer.error
    except KafkaException as error:
        problem = error.args[0]
    finally:
        consumer.close()
    # No more can be asked for without joining, which would move the partitions of those that work.
    text = "may be seen" if problem is None else problem.str()
    return Found(f"group {group}", fine=problem is None, text=text)


def look_at_schema(registry: SchemaRegistryClient, topic: str, reader: str) -> Found:
    """Return whether the latest schema of a topic has all fields that are read."""
    subject = f"{topic}-value"
    try:
        latest = registry.get_latest_version(subject)
    except (SchemaRegistryError, httpx2.HTTPError) as error:
        return Found(subject, fine=False, text=f"{registry.config()['url']}: {error}")
    written = {field["name"] for field in json.loads(latest.schema.schema_str or "{}").get("fields", ())}
    missing = [field["name"] for field in json.loads(reader)["fields"] if field["name"] not in written]
    if missing:
        return Found(subject, fine=False, text=f"version {latest.version} lacks {', '.join(missing)}")
    return Found(subject, fine=True, text=f"version {latest.version}, schema {latest.schema_id}")


def look_at_sink(name: str, make: Callable[[], Publisher], *, send: bool) -> Found:
    """Return whether a sink can be made, and takes a warm-up message for each instrument."""
    try:
        sink = make()
        if not send:
            return Found(f"sink {name}", fine=None, text="not tried, which --send does")
        sink.publish([WarmUp(instrument=camera).model_dump_json() for camera in sorted(CAMERAS)])
    except PromptError as error:
        return Found(f"sink {name}", fine=False, text=str(error))
    return Found(f"sink {name}", fine=True, text="took a warm-up message for each instrument")
