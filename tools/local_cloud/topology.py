"""Topics, subscriptions and buckets, as the deployment has them on Google Cloud, made on the emulators."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import grpc
from google.api_core.exceptions import AlreadyExists, Conflict
from google.auth.credentials import AnonymousCredentials
from google.cloud.storage import Client
from google.cloud.storage.notification import NONE_PAYLOAD_FORMAT, OBJECT_FINALIZE_EVENT_TYPE
from google.protobuf.field_mask_pb2 import FieldMask
from google.pubsub_v1 import (
    DeadLetterPolicy,
    PublisherClient,
    PubsubMessage,
    PushConfig,
    RetryPolicy,
    SubscriberClient,
    Subscription,
)
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

PROJECT = "prompt-local"
INSTRUMENT = "LATISS"
PULL_DEADLINE = 20
"""How long a pulled message is hidden without a sign of life [s]."""
PUSH_DEADLINE = 600
"""How long a request may take [s]."""
MAX_ATTEMPTS = 5
RETRIES = (1, 20)
"""Shortest and longest delay before a message is delivered again [s]."""
TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Topology:
    """Full names of what was made, as the settings take them."""

    pubsub_host: str
    gcs_url: str
    project: str
    next_visit: str
    """Topic of the visit messages."""
    activator: str
    """Subscription to one instrument's visit messages."""
    dead_letters: str
    """Topic of the messages that were given up."""
    dead_letter: str
    """Subscription to them."""
    image_arrived: str
    """Topic of what the landing bucket says."""
    arrivals: str
    """Subscription to it, of whoever writes the pointers."""
    hints: str
    """Subscription to it, of a worker; empty if there is none."""
    incoming: str
    """Bucket of the raws."""
    products: str
    """Bucket of everything else."""


def publisher(pubsub_host: str) -> PublisherClient:
    """Return a plain client of the emulator: one request per call, no batches."""
    return PublisherClient(transport=PublisherGrpcTransport(channel=_channel(pubsub_host)))


def subscriber(pubsub_host: str) -> SubscriberClient:
    """Return a plain client of the emulator: one request per call, no threads."""
    return SubscriberClient(transport=SubscriberGrpcTransport(channel=_channel(pubsub_host)))


def storage(gcs_url: str, project: str = PROJECT) -> Client:
    """Return a client of the Cloud Storage server."""
    return Client(project, AnonymousCredentials(), client_options={"api_endpoint": gcs_url})


def publish(pubsub_host: str, topic: str, *messages: tuple[bytes, Mapping[str, str]]) -> None:
    """Send messages: their data and attributes."""
    sent = [PubsubMessage(data=data, attributes=attributes) for data, attributes in messages]
    with publisher(pubsub_host) as client:
        client.publish(topic=topic, messages=sent, timeout=TIMEOUT)


def pull(pubsub_host: str, subscription: str, *, timeout: float = 30.0) -> list[Any]:
    """Wait for messages of a subscription; acknowledge and return those that have come."""
    with subscriber(pubsub_host) as client:
        found = client.pull(subscription=subscription, max_messages=1000, timeout=timeout).received_messages
        client.acknowledge(subscription=subscription, ack_ids=[one.ack_id for one in found], timeout=TIMEOUT)
    return [one.message for one in found]


def make_topology(
    pubsub_host: str,
    gcs_url: str,
    *,
    project: str = PROJECT,
    instrument: str = INSTRUMENT,
    push_endpoint: str | None = None,
    arrivals_endpoint: str | None = None,
    exactly_once: bool = False,
    hints: bool = False,
    ack_deadline: int | None = None,
    retries: tuple[float, float] = RETRIES,
    max_attempts: int = MAX_ATTEMPTS,
    incoming: str = "prompt-incoming",
    products: str = "prompt-products",
) -> Topology:
    """Make everything that is not there yet.

    Subscriptions that are there get the endpoint, deadline and delays that are given.

    Parameters
    ----------
    pubsub_host, gcs_url
        Addresses of the emulators.
    project
        Who shares the emulators takes a project and buckets of its own.
    instrument
        Whose visit messages the subscription ``activator-...`` gets.
    push_endpoint, arrivals_endpoint
        Where the emulator pushes visit messages and arrivals to; they are pulled if `None`.
    exactly_once
        Whether the subscription to visit messages has exactly-once delivery.
    hints
        Whether there is a subscription for a worker's hints.
    ack_deadline
        Deadline of the visit messages [s].
    retries
        Shortest and longest delay before a message is delivered again [s].
    max_attempts
        After how many deliveries a message goes to the dead letters.
    incoming, products
        Names of the buckets.
    """
    made = Topology(
        pubsub_host=pubsub_host,
        gcs_url=gcs_url,
        project=project,
        next_visit=f"projects/{project}/topics/next-visit",
        activator=f"projects/{project}/subscriptions/activator-{instrument.lower()}",
        dead_letters=f"projects/{project}/topics/dead-letter",
        dead_letter=f"projects/{project}/subscriptions/dead-letter",
        image_arrived=f"projects/{project}/topics/image-arrived",
        arrivals=f"projects/{project}/subscriptions/arrivals",
        hints=f"projects/{project}/subscriptions/hints" if hints else "",
        incoming=incoming,
        products=products,
    )
    with publisher(pubsub_host) as client:
        for topic in (made.next_visit, made.dead_letters, made.image_arrived):
            with suppress(AlreadyExists):
                client.create_topic(name=topic, timeout=TIMEOUT)
    default = PULL_DEADLINE if push_endpoint is None else PUSH_DEADLINE
    guarded: dict[str, Any] = {
        "retry_policy": RetryPolicy(
            minimum_backoff=timedelta(seconds=retries[0]), maximum_backoff=timedelta(seconds=retries[1])
        ),
        "dead_letter_policy": DeadLetterPolicy(
            dead_letter_topic=made.dead_letters, max_delivery_attempts=max_attempts
        ),
    }
    subscriptions = [
        Subscription(
            name=made.activator,
            topic=made.next_visit,
            # The emulator keeps this and does not apply it.
            filter=f'attributes.instrument = "{instrument}"',
            ack_deadline_seconds=ack_deadline or default,
            push_config=_push(push_endpoint),
            enable_exactly_once_delivery=exactly_once,
            **guarded,
        ),
        Subscription(
            name=made.arrivals,
            topic=made.image_arrived,
            ack_deadline_seconds=PULL_DEADLINE,
            push_config=_push(arrivals_endpoint),
            **guarded,
        ),
        Subscription(name=made.dead_letter, topic=made.dead_letters, ack_deadline_seconds=PULL_DEADLINE),
    ]
    if made.hints:
        subscriptions.append(
            Subscription(name=made.hints, topic=made.image_arrived, ack_deadline_seconds=PULL_DEADLINE)
        )
    with subscriber(pubsub_host) as client:
        for subscription in subscriptions:
            _subscribe(client, subscription)
    with storage(gcs_url, project) as client:
        for bucket in (incoming, products):
            with suppress(Conflict):
                client.create_bucket(bucket, timeout=TIMEOUT)
    notify(gcs_url, incoming, made.image_arrived)
    return made


def notify(gcs_url: str, bucket: str, topic: str) -> None:
    """Have a bucket tell a topic of each new object, unless it does already.

    The emulator forgets this when it is started again; the service does not.
    """
    _, project, _, topic_id = topic.split("/")
    with storage(gcs_url, project) as client:
        place = client.bucket(bucket)
        known = place.list_notifications(timeout=TIMEOUT)
        if (topic_id, project) not in {(other.topic_name, other.topic_project) for other in known}:
            place.notification(
                topic_id,
                topic_project=project,
                event_types=[OBJECT_FINALIZE_EVENT_TYPE],
                payload_format=NONE_PAYLOAD_FORMAT,
            ).create(timeout=TIMEOUT)


def _subscribe(client: SubscriberClient, wanted: Subscription) -> None:
    """Make a subscription, or change one that is there in what may be changed."""
    try:
        client.create_subscription(request=wanted, timeout=TIMEOUT)
    except AlreadyExists:
        fields = ["ack_deadline_seconds", "push_config", "enable_exactly_once_delivery"]
        if "retry_policy" in wanted:
            fields.append("retry_policy")
        client.update_subscription(subscription=wanted, update_mask=FieldMask(paths=fields), timeout=TIMEOUT)


def _channel(host: str) -> grpc.Channel:
    # By default an emulator that was away is tried again after minutes only.
    delays = ("initial", 50), ("min", 50), ("max", 500)
    return grpc.insecure_channel(
        host, [(f"grpc.{name}_reconnect_backoff_ms", delay) for name, delay in delays]
    )


def _push(endpoint: str | None) -> PushConfig:
    return PushConfig(push_endpoint=endpoint) if endpoint else PushConfig()
