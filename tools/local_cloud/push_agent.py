"""Plays Pub/Sub's push, and Cloud Run behind it.

The emulator pushes two messages at a time, sends no token and applies no filter. See
https://cloud.google.com/pubsub/docs/push for what the service does.
"""

import json
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from itertools import batched
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

import grpc
from google.api_core.exceptions import GoogleAPICallError, RetryError
from google.api_core.retry import Retry, if_transient_error
from google.pubsub_v1 import PubsubMessage, PullRequest, ReceivedMessage

from local_cloud.envelopes import dead_letter, envelope, metadata
from local_cloud.tokens import TokenIssuer
from local_cloud.topology import publisher, subscriber

ACKNOWLEDGING = frozenset({102, 200, 201, 202, 204})
"""Statuses that acknowledge a message; everything else has it delivered again."""
NO_INSTANCE = 429
"""What Cloud Run answers if no instance is free."""
NO_ANSWER = 0
"""Stands for the status of a request that was not answered in time, or at all."""
_LEASE = 30
"""For how long messages are hidden from others, again and again [s]."""
_MOST = 1000
"""How many messages may be in hand."""
_POLL = 0.02
_TIMEOUT = 5.0
_RETRY = Retry(predicate=if_transient_error, initial=0.1, maximum=1.0, timeout=10.0)
_UNREACHABLE = (GoogleAPICallError, RetryError, grpc.RpcError)


class Push(NamedTuple):
    """A request that was made."""

    message_id: str
    status: int
    seconds: float
    attempt: int
    endpoint: str
    """Empty if there was no free instance."""


class PushAgent:
    """Pulls from a subscription and posts each message in a thread of its own; use it as a context manager.

    It keeps the messages in hand, also between attempts, so that neither the deadlines, the delays nor the
    dead-letter policy of the emulator's subscription apply. It does not keep to ordering keys.

    Parameters
    ----------
    pubsub_host, subscription
        Where the messages come from: a subscription that is pulled.
    endpoints
        Where they go to. Several play instances of Cloud Run, each for ``instance_concurrency`` requests.
    issuer, audience, email
        Who signs the tokens, for whom, and who is calling; there is no token without an issuer.
    ack_deadline
        How long a request may take [s].
    max_attempts, dead_letter_topic
        After how many attempts a message goes to which topic; without one, attempts never end.
    attribute_filter
        Attributes that a message must have; others are acknowledged and never sent.
    wrapped, write_metadata
        Whether the message is in an envelope; if not, whether the headers tell what the envelope would.
    concurrency
        Most requests at a time; any number by default.
    instance_concurrency
        Most requests at a time to one endpoint; by default any number if there is one endpoint, else one.
    wait_for_instance
        How long a request waits for a free instance before it counts as answered with 429 [s].
    backoff
        Shortest and longest delay before another attempt [s].
    duplicate_every
        Every how many messages one is sent twice at once; none by default.
    reorder, seed
        Longest time for which a message is held back [s], by chance.
    """

    def __init__(
        self,
        pubsub_host: str,
        subscription: str,
        endpoints: str | Sequence[str],
        *,
        issuer: TokenIssuer | None = None,
        audience: str = "",
        email: str = "",
        ack_deadline: float = 600.0,
        max_attempts: int = 5,
        dead_letter_topic: str | None = None,
        attribute_filter: Mapping[str, str] | None = None,
        wrapped: bool = True,
        write_metadata: bool = False,
        concurrency: int | None = None,
        instance_concurrency: int | None = None,
        wait_for_instance: float = 0.0,
        backoff: tuple[float, float] = (0.1, 2.0),
        duplicate_every: int = 0,
        reorder: float = 0.0,
        seed: int = 0,
    ) -> None:
        self._subscription = subscription
        self._instances = _Instances(
            [endpoints] if isinstance(endpoints, str) else endpoints, instance_concurrency
        )
        self._token = (lambda: issuer.issue(audience, email)) if issuer else None
        self._ack_deadline = ack_deadline
        self._max_attempts = max_attempts
        self._dead_letter_topic = dead_letter_topic
        self._filter = dict(attribute_filter or {})
        self._wrapped, self._write_metadata = wrapped, write_metadata
        self._slots = threading.BoundedSemaphore(concurrency or _MOST)
        self._wait_for_instance = wait_for_instance
        self._backoff = backoff
        self._duplicate_every = duplicate_every
        self._reorder, self._random = reorder, random.Random(seed)  # noqa: S311 (no secret)
        self._subscriber, self._publisher = subscriber(pubsub_host), publisher(pubsub_host)
        self._stopped = threading.Event()
        self._changed = threading.Condition()
        self._leases: set[str] = set()
        self._deliveries: set[threading.Thread] = set()
        self._connections: set[HTTPConnection] = set()
        self._n_pulls = self._idle_pull = 0
        self.counts: Counter[str] = Counter()
        """How many messages were received, filtered, duplicated, acknowledged, dead_lettered; how many
        requests were refused; how many acknowledgements got lost."""
        self.pushes: list[Push] = []
        """All requests that have ended, in the order of their ends."""
        self.peak = 0
        """Most requests at a time."""

    def __enter__(self) -> Self:
        self._loops = [
            threading.Thread(target=loop, name=loop.__name__, daemon=True)
            for loop in (self._pull, self._keep)
        ]
        for thread in self._loops:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._subscriber.transport.close()
        self._publisher.transport.close()

    @property
    def n_in_flight(self) -> int:
        """How many requests are going on."""
        return len(self._connections)

    def stop(self) -> None:
        """Hang up, and give back what is not done with."""
        self._stopped.set()
        for thread in self._loops:
            thread.join()
        deadline = time.monotonic() + _TIMEOUT
        while self._deliveries and time.monotonic() < deadline:
            with self._changed:
                for connection in self._connections:
                    _hang_up(connection)
                self._changed.wait(_POLL)

    def wait_until_idle(self, timeout: float) -> None:
        """Wait until nothing is in hand and the subscription has nothing to give.

        Raises
        ------
        TimeoutError
            If it takes longer [s].
        """
        with self._changed:
            before = self._n_pulls
            self._wait(lambda: self._idle_pull > before, timeout)

    def wait_for(self, n: int, timeout: float, what: str = "acknowledged") -> None:
        """Wait until one of the counts has come up to a number.

        Raises
        ------
        TimeoutError
            If it takes longer [s].
        """
        with self._changed:
            self._wait(lambda: self.counts[what] >= n, timeout)

    def _wait(self, condition: Callable[[], bool], timeout: float) -> None:
        if not self._changed.wait_for(condition, timeout):
            going_on = len(self._deliveries)
            raise TimeoutError(f"after {timeout} s: {dict(self.counts)}, {going_on} deliveries going on")

    def _pull(self) -> None:
        pull: Callable[..., Any] = self._subscriber.transport.pull
        while not self._stopped.is_set():
            with self._changed:
                self._changed.wait_for(lambda: len(self._deliveries) < _MOST, _TIMEOUT)
                room = _MOST - len(self._deliveries)
                self._n_pulls += 1
                number, was_idle = self._n_pulls, not self._deliveries
            request = PullRequest(subscription=self._subscription, max_messages=room, return_immediately=True)
            try:
                # An answer that nobody waits for any more would hide its messages, so none is waited for.
                found = list(pull(request, timeout=_TIMEOUT).received_messages) if room > 0 else []
            except grpc.RpcError:
                self._stopped.wait(_POLL)
                continue
            if found:
                self._modify([received.ack_id for received in found], _LEASE)
                for received in found:
                    self._take(received)
            else:
                if was_idle:
                    with self._changed:
                        self._idle_pull = number
                        self._changed.notify_all()
                self._stopped.wait(_POLL)

    def _keep(self) -> None:
        """Keep what is in hand hidden from others."""
        while not self._stopped.wait(_LEASE / 3):
            with self._changed:
                held = list(self._leases)
            self._modify(held, _LEASE)

    def _take(self, received: ReceivedMessage) -> None:
        self._count("received")
        message = received.message
        if any(message.attributes.get(name) != value for name, value in self._filter.items()):
            self._settle(received.ack_id, "filtered")
            return
        with self._changed:
            self._leases.add(received.ack_id)
        self._start(message, received.ack_id, max(received.delivery_attempt, 1))
        if self._duplicate_every and self.counts["received"] % self._duplicate_every == 0:
            self._count("duplicated")
            self._start(message, None, 1)

    def _start(self, message: PubsubMessage, ack_id: str | None, attempt: int) -> None:
        hold = self._random.uniform(0.0, self._reorder)
        thread = threading.Thread(target=self._deliver, args=(message, ack_id, attempt, hold), daemon=True)
        with self._changed:
            self._deliveries.add(thread)
        thread.start()

    def _deliver(self, message: PubsubMessage, ack_id: str | None, attempt: int, hold: float) -> None:
        try:
            self._stopped.wait(hold)
            self._attempt(message, ack_id, attempt)
        finally:
            if ack_id is not None and ack_id in self._leases:
                self._leases.discard(ack_id)
                self._modify([ack_id], 0)
            with self._changed:
                self._deliveries.discard(threading.current_thread())
                self._changed.notify_all()

    def _attempt(self, message: PubsubMessage, ack_id: str | None, attempt: int) -> None:
        """Push a message until it is done with; a duplicate, which cannot be acknowledged, once."""
        delay, longest = self._backoff
        while not self._stopped.is_set():
            if self._push(message, attempt) in ACKNOWLEDGING:
                if ack_id is not None:
                    self._settle(ack_id, "acknowledged")
                return
            self._count("refused")
            if ack_id is None:
                return
            if self._dead_letter_topic is None or attempt < self._max_attempts:
                attempt += 1
            elif self._dead_letter(message, attempt):
                self._settle(ack_id, "dead_lettered")
                return
            self._stopped.wait(min(delay, longest))
            delay *= 2.0

    def _push(self, message: PubsubMessage, attempt: int) -> int:
        """Make a request; return its status."""
        with self._slots:
            begun = time.monotonic()
            status = NO_INSTANCE
            with self._instances.free(self._wait_for_instance) as endpoint:
                if endpoint is not None:
                    status = self._post(endpoint, *self._request(message, attempt))
            push = Push(message.message_id, status, time.monotonic() - begun, attempt, endpoint or "")
        with self._changed:
            self.pushes.append(push)
        return status

    def _request(self, message: PubsubMessage, attempt: int) -> tuple[bytes, dict[str, str]]:
        headers = {"User-Agent": "CloudPubSub-Google", "Content-Type": "application/json"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token()}"
        if self._wrapped:
            counted = attempt if self._dead_letter_topic else None
            return json.dumps(envelope(self._subscription, message, counted)).encode(), headers
        if self._write_metadata:
            headers |= metadata(self._subscription, message)
        return bytes(message.data), headers

    def _post(self, endpoint: str, body: bytes, headers: dict[str, str]) -> int:
        url = urlsplit(endpoint)
        connection = HTTPConnection(url.hostname or "", url.port, timeout=self._ack_deadline)
        target = url._replace(scheme="", netloc="").geturl() or "/"
        with self._changed:
            if self._stopped.is_set():
                return NO_ANSWER
            self._connections.add(connection)
            self.peak = max(self.peak, len(self._connections))
        try:
            connection.request("POST", target, body, headers)
            response = connection.getresponse()
            response.read()
        except (OSError, HTTPException):
            return NO_ANSWER
        else:
            return response.status
        finally:
            with self._changed:
                self._connections.discard(connection)
            connection.close()

    def _dead_letter(self, message: PubsubMessage, attempt: int) -> bool:
        copy = dead_letter(self._subscription, message, attempt)
        try:
            self._publisher.publish(topic=self._dead_letter_topic, messages=[copy], timeout=_TIMEOUT)
        except _UNREACHABLE:
            return False
        return True

    def _settle(self, ack_id: str, how: str) -> None:
        with self._changed:
            self._leases.discard(ack_id)
        try:
            self._subscriber.acknowledge(
                subscription=self._subscription, ack_ids=[ack_id], timeout=_TIMEOUT, retry=_RETRY
            )
        except _UNREACHABLE:
            how = "lost"
        self._count(how)

    def _modify(self, ack_ids: Sequence[str], seconds: int) -> None:
        for some in batched(ack_ids, _MOST):
            with suppress(*_UNREACHABLE):
                self._subscriber.modify_ack_deadline(
                    subscription=self._subscription,
                    ack_ids=list(some),
                    ack_deadline_seconds=seconds,
                    timeout=_TIMEOUT,
                    retry=None,
                )

    def _count(self, what: str) -> None:
        with self._changed:
            self.counts[what] += 1
            self._changed.notify_all()


class _Instances:
    """Endpoints, of which each takes some requests at a time."""

    def __init__(self, endpoints: Sequence[str], concurrency: int | None) -> None:
        self._endpoints = list(endpoints)
        self._concurrency = concurrency or (_MOST if len(self._endpoints) == 1 else 1)
        self._busy: Counter[str] = Counter()
        self._changed = threading.Condition()

    @contextmanager
    def free(self, timeout: float) -> Iterator[str | None]:
        """Keep the endpoint with the fewest requests busy; none if all are as busy as may be."""
        with self._changed:
            self._changed.wait_for(lambda: self._busy[self._least()] < self._concurrency, timeout)
            endpoint = self._least()
            taken = self._busy[endpoint] < self._concurrency
            self._busy[endpoint] += taken
        try:
            yield endpoint if taken else None
        finally:
            with self._changed:
                self._busy[endpoint] -= taken
                self._changed.notify()

    def _least(self) -> str:
        return min(self._endpoints, key=lambda endpoint: self._busy[endpoint])


def _hang_up(connection: HTTPConnection) -> None:
    with suppress(OSError, AttributeError):
        connection.sock.shutdown(socket.SHUT_RDWR)
