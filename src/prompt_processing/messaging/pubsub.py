"""Messages by Google Cloud Pub/Sub.

One request at a time over the library's plain clients: the batching and streaming ones start threads, which a
process that forks engines should not have, and hold messages for others. ``PUBSUB_EMULATOR_HOST`` is obeyed.
"""

import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import batched
from typing import Any, Final

import grpc
from google.api_core.exceptions import (
    FailedPrecondition,
    GoogleAPICallError,
    InvalidArgument,
    RetryError,
)
from google.api_core.gapic_v1.routing_header import to_grpc_metadata
from google.api_core.retry import Retry, if_transient_error
from google.auth.exceptions import GoogleAuthError
from google.pubsub_v1 import PublisherClient, PublishRequest, PubsubMessage, PullRequest, SubscriberClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from prompt_processing.domain.errors import ConfigError, RefusedMessageError, StoreError
from prompt_processing.domain.outcome import Delivery
from prompt_processing.messaging.attributes import attributes
from prompt_processing.messaging.port import NO_ORIGIN, Received

TIMEOUT: Final = 10.0
"""Longest time that a request may take, with its repetitions [s]."""
PULL_TIMEOUT: Final = 60.0
"""Longest time for which a pull waits for a message before it is made anew [s]."""
MAX_MESSAGES: Final = 1000
"""Most messages that Pub/Sub takes in one request."""
MAX_DELAY: Final = 600
"""Longest time for which Pub/Sub hides a message [s]."""
_RETRY: Final = Retry(predicate=if_transient_error, initial=0.1, maximum=2.0, timeout=TIMEOUT)
_ANSWERS: Final[dict[str, Any]] = {"timeout": TIMEOUT / 2, "retry": _RETRY}


class PubSubPublisher:
    """A `~prompt_processing.messaging.port.Publisher` to a topic.

    Parameters
    ----------
    topic
        Full name of the topic.
    """

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._client = _client(PublisherClient, PublisherGrpcTransport)

    def publish(self, bodies: Sequence[str], origin: Mapping[str, str] = NO_ORIGIN) -> None:
        """Send messages; see the port."""
        # The plain messages of the protocol: their wrappers take as long as the rest of a request.
        messages = [
            PubsubMessage.pb()(data=body.encode(), attributes={**attributes(body), **origin})
            for body in bodies
        ]
        for some in batched(messages, MAX_MESSAGES):
            request = PublishRequest.wrap(PublishRequest.pb()(topic=self._topic, messages=some))
            with _errors(self._topic):
                try:
                    self._client.publish(request, **_ANSWERS)
                except InvalidArgument as error:
                    raise RefusedMessageError(f"{self._topic}: {error}") from error


class PubSubQueue:
    """A `~prompt_processing.messaging.port.VisitQueue` that pulls from a subscription.

    Parameters
    ----------
    subscription
        Full name of the subscription. It may be one with exactly-once delivery.
    hidden
        How long a message is hidden from others when it is extended [s]. Until then the deadline of the
        subscription holds, which is 10 s at least.
    """

    def __init__(self, subscription: str, *, hidden: float = 20.0) -> None:
        self.hidden = hidden
        self._subscription = subscription
        self._client = _client(SubscriberClient, SubscriberGrpcTransport)
        self._pull = _Pull(self._client, subscription, max_messages=1)

    def receive(self, timeout: float) -> Received | None:
        """Return the next message; see the port."""
        for found in self._pull.wait(timeout):
            return Received(
                Delivery(found.message.message_id, found.message.data.decode(errors="replace")),
                found.ack_id,
                # Counted only by subscriptions that have a dead-letter topic.
                max(found.delivery_attempt, 1),
            )
        return None

    def extend(self, received: Received) -> None:
        """Hide a message for its full time again; see the port."""
        self._show_in(received, self.hidden)

    def ack(self, received: Received) -> None:
        """Say that a message is done with; see the port."""
        with _errors(self._subscription), _not_ours_any_more():
            self._client.acknowledge(subscription=self._subscription, ack_ids=[received.receipt], **_ANSWERS)

    def retry(self, received: Received, delay: float = 0.0) -> None:
        """Give a message back; see the port."""
        self._show_in(received, delay)

    def close(self) -> None:
        """Receive nothing any more; see the port."""
        self._pull.cancel()

    def _show_in(self, received: Received, delay: float) -> None:
        with _errors(self._subscription), _not_ours_any_more():
            self._client.modify_ack_deadline(
                subscription=self._subscription,
                ack_ids=[received.receipt],
                ack_deadline_seconds=min(max(math.ceil(delay), 0), MAX_DELAY),
                **_ANSWERS,
            )


class PubSubHints:
    """A `~prompt_processing.messaging.port.HintSource`: every message of a subscription is a hint.

    Parameters
    ----------
    subscription
        Full name of the subscription, which nobody else may use.
    """

    def __init__(self, subscription: str) -> None:
        self._subscription = subscription
        self._client = _client(SubscriberClient, SubscriberGrpcTransport)
        self._pull = _Pull(self._client, subscription, max_messages=MAX_MESSAGES)

    def wait(self, timeout: float) -> bool:
        """Wait for a hint; see the port."""
        receipts = [found.ack_id for found in self._pull.wait(timeout)]
        if receipts:
            with _errors(self._subscription), _not_ours_any_more():
                self._client.acknowledge(subscription=self._subscription, ack_ids=receipts, **_ANSWERS)
        return bool(receipts)

    def close(self) -> None:
        """Receive nothing any more."""
        self._pull.cancel()


class _Pull:
    """A request for messages that stays open while nobody waits for its answer.

    One that is given up might just have taken a message, which would then be hidden from everybody.
    """

    def __init__(self, client: SubscriberClient, subscription: str, *, max_messages: int) -> None:
        self._subscription = subscription
        self._request = PullRequest(subscription=subscription, max_messages=max_messages)
        transport: Any = client.transport
        self._start: Callable[..., Any] = transport.pull.future
        self._open: Any = None
        self._waiting = threading.Lock()

    def wait(self, timeout: float) -> Sequence[Any]:
        """Return the messages of the next answer, none if there is no answer within some time [s].

        Raises
        ------
        StoreError
            If Pub/Sub does not answer.
        """
        with self._waiting:
            return self._wait(timeout)

    def _wait(self, timeout: float) -> Sequence[Any]:
        if self._open is None:
            routing = [to_grpc_metadata({"subscription": self._subscription})]
            self._open = self._start(self._request, timeout=PULL_TIMEOUT, metadata=routing)
        try:
            answer = self._open.result(timeout)
        except (grpc.FutureTimeoutError, grpc.FutureCancelledError):
            return ()
        except grpc.RpcError as error:
            self._open = None
            code = error.code() if isinstance(error, grpc.Call) else None
            if code is grpc.StatusCode.DEADLINE_EXCEEDED:
                return ()
            detail = error.details() if isinstance(error, grpc.Call) else error
            name = code.name if code is not None else "unknown"
            raise StoreError(f"{self._subscription}: {name}: {detail}") from error
        self._open = None
        return list(answer.received_messages)

    def cancel(self) -> None:
        """Give the request up, and make no other one."""
        if self._open is not None:
            self._open.cancel()
        self._start = _cancelled


class _Cancelled:
    def result(self, timeout: float | None = None) -> Any:  # noqa: ARG002 (as of a request)
        raise grpc.FutureCancelledError


def _cancelled(*_: Any, **__: Any) -> _Cancelled:
    return _Cancelled()


def _client[T](client: Callable[..., T], transport: Callable[..., Any]) -> T:
    """Return a client of the emulator, if there is one, or else of the service, which it finds by itself."""
    host = os.environ.get("PUBSUB_EMULATOR_HOST")
    try:
        return client(transport=transport(channel=grpc.insecure_channel(host)) if host else None)
    except GoogleAuthError as error:
        raise ConfigError(f"Pub/Sub: {error}") from error


@contextmanager
def _not_ours_any_more() -> Iterator[None]:
    """Let a message go that was delivered to somebody else meanwhile: exactly-once delivery says so."""
    try:
        yield
    except (FailedPrecondition, InvalidArgument) as error:
        if "ACK" not in str(error).upper():
            raise


@contextmanager
def _errors(name: str) -> Iterator[None]:
    try:
        yield
    except (GoogleAPICallError, GoogleAuthError, RetryError, grpc.RpcError) as error:
        raise StoreError(f"{name}: {error}") from error
