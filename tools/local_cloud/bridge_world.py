"""A bridge as its container has it, between a real observatory and real receivers."""

import os
import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import grpc
import redis
from google.api_core.exceptions import GoogleAPICallError

from local_cloud.brokers import KafkaBroker, SchemaRegistry
from local_cloud.cloud import Service
from local_cloud.fork import CONTEXT
from local_cloud.http_sink import CLOSE, HANG, Answer, HttpSink, Posted
from local_cloud.topology import publisher, subscriber
from local_cloud.visits import EVENT
from prompt_processing.config import KafkaSettings
from prompt_processing.domain.errors import StoreError
from prompt_processing.domain.visit import NextVisit, NextVisitCanceled, parse_event
from prompt_processing.messaging.kafka import KafkaWriter, Produced, connection, open_registry
from prompt_processing.night.sal_events import SalEvents

N_DETECTORS = {"LATISS": 1, "LSSTCam": 189}
FOREVER = 60.0
"""Longest time that anything may take here [s]."""
_QUEUES = {"LATISS": 2, "LSSTCam": 1}


class Observatory:
    """Announces visits on topics of its own.

    Parameters
    ----------
    servers, registry_url
        Where Kafka and the schema registry are, as this class reaches them.
    """

    def __init__(self, servers: str, registry_url: str) -> None:
        self.own = uuid.uuid4().hex[:8]
        self.visits = f"visits-{self.own}"
        self.cancellations = f"cancellations-{self.own}"
        self.letters = f"letters-{self.own}"
        settings = KafkaSettings(servers=servers, security="plaintext", registry=registry_url)
        self.client = connection(settings)
        self._writer = KafkaWriter(self.client, self.visits)
        self.events = SalEvents(
            open_registry(settings),
            visits=self._writer,
            cancellations=KafkaWriter(self.client, self.cancellations),
        )

    @classmethod
    def on(cls, broker: KafkaBroker, registry: SchemaRegistry, *, partitions: int = 1) -> Self:
        """Return one whose topics are there, that of the visits with some partitions."""
        made = cls(broker.bootstrap, registry.url)
        broker.create_topic(made.visits, partitions)
        broker.create_topic(made.cancellations)
        broker.create_topic(made.letters, partitions)
        return made

    def announce(self, group: str, instrument: str = "LATISS", **changes: Any) -> None:
        """Announce a visit that begins soon."""
        self.events.announce(event(group, instrument, **changes))

    def announce_for_sure(self, group: str, instrument: str = "LATISS") -> None:
        """Announce a visit to a broker that comes back."""
        end = time.monotonic() + FOREVER
        while time.monotonic() < end:
            with suppress(StoreError):
                return self.announce(group, instrument)
        raise TimeoutError(f"{group} was not announced within {FOREVER} s")

    def cancel(self, group: str, instrument: str = "LATISS") -> None:
        self.events.announce(
            NextVisitCanceled(
                salIndex=_QUEUES[instrument], scriptSalIndex=1, groupId=group, private_efdStamp=time.time()
            )
        )

    def write(self, *values: bytes) -> None:
        """Write anything to the topic of the visits."""
        self._writer.write([Produced(None, value, {}) for value in values])

    def settings(self, servers: str, registry_url: str, **others: str) -> dict[str, str]:
        """Return the settings of a bridge that reaches them at some addresses."""
        return {
            "PROMPT_KAFKA__SERVERS": servers,
            "PROMPT_KAFKA__SECURITY": "plaintext",
            "PROMPT_KAFKA__REGISTRY": registry_url,
            "PROMPT_BRIDGE__VISITS_TOPIC": self.visits,
            "PROMPT_BRIDGE__CANCEL_TOPIC": self.cancellations,
            "PROMPT_BRIDGE__DEAD_LETTERS_TOPIC": self.letters,
            "PROMPT_BRIDGE__GROUP": f"bridge-{self.own}",
            **others,
        }


def event(group: str, instrument: str = "LATISS", **changes: Any) -> NextVisit:
    """Return the event of a visit that is announced now."""
    now = time.time()
    fields = {
        "groupId": group,
        "instrument": instrument,
        "salIndex": _QUEUES[instrument],
        "private_efdStamp": now,
        "private_sndStamp": now + 37.0,
        "startTime": now + 57.0,
    }
    return parse_event({**EVENT, **fields, **changes})


def keys(*groups: str, instrument: str = "LATISS") -> set[str]:
    """Return the dedup_key of each message that visits must have."""
    return {
        f"{instrument}:{group}:{detector}" for group in groups for detector in range(N_DETECTORS[instrument])
    }


class Received:
    """Counts messages by their dedup_key; a thread of its own takes them from somewhere."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.newest = datetime.min.replace(tzinfo=UTC)
        """When the newest message was published, if its attributes tell it."""
        self._changed = threading.Condition()

    def add(self, found: Iterable[str], newest: datetime) -> None:
        with self._changed:
            self.counts.update(found)
            self.newest = max(self.newest, newest)
            self._changed.notify_all()

    def wait_for_one_after(self, moment: datetime) -> None:
        """Wait until a message has come that was published later: by a bridge that was started then."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.newest > moment, FOREVER), f"nothing since {moment}"

    def wait_for(self, wanted: set[str], timeout: float = FOREVER) -> None:
        """Wait until each of some messages has come at least once."""
        with self._changed:
            done = self._changed.wait_for(lambda: wanted <= self.counts.keys(), timeout)
            assert done, f"{len(wanted - self.counts.keys())} of {len(wanted)} are missing after {timeout} s"


class PubSubReceiver(Received):
    """A topic, and what comes by a subscription to it; use it as a context manager."""

    def __init__(self, host: str) -> None:
        super().__init__()
        own = uuid.uuid4().hex[:8]
        self._host = host
        self.topic = f"projects/bridge-{own}/topics/next-visit"
        self._subscription = f"projects/bridge-{own}/subscriptions/next-visit"
        self.attributes: dict[str, dict[str, str]] = {}
        self._stop = threading.Event()

    def __enter__(self) -> Self:
        with publisher(self._host) as client:
            client.create_topic(name=self.topic)
        with subscriber(self._host) as client:
            client.create_subscription(name=self._subscription, topic=self.topic, ack_deadline_seconds=60)
        self._thread = threading.Thread(target=self._receive, name="receiver", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _receive(self) -> None:
        with subscriber(self._host) as client:
            while not self._stop.is_set():
                try:
                    found = client.pull(subscription=self._subscription, max_messages=1000, timeout=2.0)
                    messages = found.received_messages
                    if messages:
                        client.acknowledge(
                            subscription=self._subscription, ack_ids=[each.ack_id for each in messages]
                        )
                except (GoogleAPICallError, grpc.RpcError):
                    continue
                attributes = [dict(each.message.attributes) for each in messages]
                names = [
                    each.get("dedup_key") or f"{each['kind']}:{each['instrument']}" for each in attributes
                ]
                self.attributes.update(zip(names, attributes, strict=True))
                times = [
                    datetime.fromisoformat(each["published_at"])
                    for each in attributes
                    if "published_at" in each
                ]
                self.add(names, max(times, default=self.newest))


class RedisReceiver(Received):
    """What is in the streams of a Redis server, below a prefix of its own."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.stream = f"{uuid.uuid4().hex[:8]}:{{instrument}}"
        self._url = url

    def look(self) -> None:
        """Count what is there now."""
        with redis.Redis.from_url(self._url, decode_responses=True) as client:
            entries: Any = client.xrange(self.stream.format(instrument="latiss"))
        self.counts = Counter(fields["dedup_key"] for _, fields in entries)


class WebhookReceiver(Received):
    """What was delivered to an HTTP server of which a part of the answers are failures.

    Parameters
    ----------
    seed
        Decides which.
    failing
        Fraction of the answers.
    """

    def __init__(self, sink: HttpSink, *, seed: int, failing: float) -> None:
        super().__init__()
        self._sink = sink
        self._chance = random.Random(seed)  # noqa: S311 (a fixed seed)
        self._failing = failing
        self._lock = threading.Lock()
        sink.answer = self._answer

    def _answer(self, _: Posted) -> Answer:
        with self._lock:
            if self._chance.random() >= self._failing:
                return Answer(204)
            return self._chance.choice([Answer(429, {"Retry-After": "0"}), Answer(500), CLOSE, HANG])

    @property
    def settings(self) -> dict[str, str]:
        """Settings of a bridge that posts here, and waits for an answer for a second only."""
        return {
            "PROMPT_BRIDGE__SINK": "webhook",
            "PROMPT_WEBHOOK__URL": self._sink.url,
            "PROMPT_WEBHOOK__TIMEOUT_S": "1",
            "PROMPT_WEBHOOK__CONCURRENCY": "50",
        }

    def look(self) -> None:
        """Count what was delivered up to now."""
        self.counts = Counter(pushed.message_id for pushed in list(self._sink.delivered))


@contextmanager
def bridge_service(settings: Mapping[str, str], probe: str = "/ready") -> Iterator[Service]:
    """Run the bridge as its container does."""
    with Service("kafka_bridge", settings, "main.py", probe) as service:
        yield service


class BridgeProcess:
    """A bridge in a process that is forked from one which has imported everything: it may be killed often."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._process = CONTEXT.Process(target=_run, args=(dict(settings),), daemon=True)
        self._process.start()

    def kill(self) -> None:
        self._process.kill()
        self._process.join()

    def stop(self) -> int | None:
        """Tell it to stop; return its exit code."""
        self._process.terminate()
        self._process.join(FOREVER)
        return self._process.exitcode


@contextmanager
def bridge_process(settings: Mapping[str, str]) -> Iterator[BridgeProcess]:
    process = BridgeProcess(settings)
    try:
        yield process
    finally:
        process.kill()


def kill_bridges(
    observatory: Observatory,
    receiver: Received,
    settings: Mapping[str, str],
    batches: Iterable[Sequence[str]],
    chance: random.Random,
) -> None:
    """Announce batches of visits of LSSTCam, and start and kill a bridge after each."""
    for batch in batches:
        for group in batch:
            observatory.announce(group, "LSSTCam")
        began = datetime.now(UTC)
        with bridge_process(settings):
            # From its first message on, at any moment: before, within or after a publication, or a commit.
            receiver.wait_for_one_after(began)
            threading.Event().wait(chance.uniform(0.0, 0.15))


def _run(settings: dict[str, str]) -> None:
    import signal

    from prompt_processing.factory.bridge import BridgeFactory
    from prompt_processing.runtime import logs

    os.environ.update(settings)
    logs.configure(("prompt_processing=ERROR",))
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    factory = BridgeFactory(Path("/nonexistent"))
    factory.bridge(factory.group_source()).run(stop)


def metrics(service: Service) -> Callable[[str], float]:
    """Return what gives a metric of a bridge by its name and labels."""
    import urllib.request

    with urllib.request.urlopen(f"{service.url}metrics", timeout=10) as answer:  # noqa: S310 (loopback)
        lines = [line for line in answer.read().decode().splitlines() if not line.startswith("#")]
    values = dict(line.rsplit(" ", 1) for line in lines)
    return lambda name: float(values.get(name, 0.0))
