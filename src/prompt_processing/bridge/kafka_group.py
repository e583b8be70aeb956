"""The observatory's events, read by one member of a consumer group."""

import json
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from prompt_processing.bridge.metrics import BridgeMetrics
from prompt_processing.bridge.records import Record
from prompt_processing.domain.errors import ConflictError, ReplacedError, StoreError

_LOG: Final = structlog.get_logger(__name__)

TIMEOUT: Final = 2.0
"""Longest wait for an answer of the brokers [s]: nobody can be told to stop meanwhile."""
LEAVE: Final = 1.0
"""Longest wait for the brokers when this member leaves [s]."""
MOST_EARLY: Final = 100
"""Records that may come while others are committed, before no more are asked for."""
LOOK_AGAIN: Final = 10.0
"""Time after which it is said again what Kafka refuses [s]."""
_TURN: Final = 0.002
"""Time between two looks whether a commit is answered [s]."""
SESSION: Final = 10.0
"""Time after which a member that is gone is missed: less than visits are announced ahead [s]."""
_REFUSALS: Final = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
    }
)
"""What somebody has to mend. The client says it once, and goes on as if all were well."""
_FENCED: Final = KafkaError(KafkaError.FENCED_INSTANCE_ID).str()
_NONE_LATER: Final = -1
"""Offset that stands for: there is no record after this time."""


class GroupSource:
    """A `~prompt_processing.bridge.records.RecordSource` that reads topics as a member of a group.

    Where the group has read a partition before, it goes on there; a new group begins with what was written in
    the last seconds that count. Nothing is ever committed by itself.

    Parameters
    ----------
    client
        How the brokers are found; see `prompt_processing.messaging.kafka.connection`.
    topics
        Names of the topics.
    group, instance
        Name of the group, and of this member in it.
    max_age
        How far back a new group begins [s].
    metrics
        Where rebalances, lag and connection are noted.
    """

    ended = False

    def __init__(
        self,
        client: Mapping[str, Any],
        topics: Sequence[str],
        *,
        group: str,
        instance: str,
        max_age: float,
        metrics: BridgeMetrics,
    ) -> None:
        self._group = group
        self._name = f"{group}/{instance}"
        self._max_age = max_age
        self._metrics = metrics
        self._held = False
        self._lost = False
        self._early: deque[Record] = deque()
        """Records that came while another one was in hand."""
        self._answer: str | None = None
        """What the brokers say of a commit: nothing yet, nothing wrong, or what is wrong."""
        self._told = 0.0
        """When it was last said what Kafka refuses."""
        self._consumer = Consumer(
            {
                **client,
                "group.id": group,
                "group.instance.id": instance,
                "session.timeout.ms": int(SESSION * 1000),
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                # Only where what was committed has been deleted since: what is left is all that there is.
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": 10,
                "topic.metadata.refresh.interval.ms": 10_000,
                "statistics.interval.ms": 1000,
                "on_commit": self._on_commit,
                "stats_cb": lambda text: metrics.on_statistics(json.loads(text)),
            }
        )
        self._consumer.subscribe(
            list(topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke
        )

    def receive(self, timeout: float) -> Record | None:
        """Return the next record; see the port."""
        with self._errors():
            if self._early:
                record = self._early.popleft()
            else:
                if self._held:
                    self._consumer.resume(self._consumer.assignment())
                    self._held = False
                message = self._poll(timeout)
                if message is None:
                    self._tell_refusals()
                    return None
                record = to_record(message)
                self._metrics.refusals.pop(record.topic, None)
        # What changed before this record was given does not take it away again.
        self._lost = False
        return record

    def keep(self) -> bool:
        """Stay a member; see the port."""
        with self._errors():
            self._hold()
            self._serve(0.0)
        return not self._lost

    def done(self, record: Record) -> None:
        """Commit a record; see the port.

        The wait for the answer is one of polling: while a commit waits by itself, the consumer blocks whoever
        asks it for anything.
        """
        place = TopicPartition(record.topic, record.partition, record.offset + 1)
        self._answer = None
        end = time.monotonic() + TIMEOUT
        with self._errors():
            self._consumer.commit(offsets=[place], asynchronous=True)
            while self._answer is None and not self._lost:
                if time.monotonic() > end:
                    raise StoreError(f"{self._name}: {record}: not committed: no answer")
                # Not sooner: to pause and resume costs half a second.
                if len(self._early) >= MOST_EARLY:
                    self._hold()
                self._serve(_TURN)
        if self._answer:
            raise StoreError(f"{self._name}: {record}: not committed: {self._answer}")

    def close(self) -> None:
        """Leave, but keep the place in the group for a successor of the same name."""
        leaving = threading.Thread(target=self._consumer.close, name="leaving", daemon=True)
        leaving.start()
        leaving.join(LEAVE)

    def _hold(self) -> None:
        if not self._held:
            self._consumer.pause(self._consumer.assignment())
            self._held = True

    def _serve(self, timeout: float) -> None:
        """Let callbacks be called; what was under way already is given later."""
        message = self._poll(timeout)
        if message is not None:
            self._early.append(to_record(message))

    def _on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        problems = [each.error for each in partitions if each.error is not None]
        self._answer = str(error or (problems[0] if problems else ""))

    def _poll(self, timeout: float) -> Message | None:
        message = self._consumer.poll(timeout)
        if message is None:
            return None
        problem = message.error()
        if problem is None:
            return message
        if problem.fatal() or problem.code() == KafkaError._FATAL:  # noqa: SLF001 (its public name)
            kind = ReplacedError if _FENCED in problem.str() else ConflictError
            raise kind(f"{self._name}: {problem.str()}")
        if problem.code() not in _REFUSALS:
            raise StoreError(f"{self._name}: {problem.str()}")
        self._metrics.refusals[message.topic() or self._group] = problem
        return None

    def _tell_refusals(self) -> None:
        """Say now and then what Kafka refuses, and look whether topics that were missing are there now."""
        refusals, now = self._metrics.refusals, time.monotonic()
        if not refusals or now - self._told < LOOK_AGAIN:
            return
        self._told = now
        for name, problem in list(refusals.items()):
            if problem.code() == KafkaError.UNKNOWN_TOPIC_OR_PART and self._is_there(name):
                del refusals[name]
                _LOG.info("topic is there now", name=name)
            else:
                _LOG.error("refused by Kafka", name=name, error=problem.str())

    def _is_there(self, topic: str) -> bool:
        return self._consumer.list_topics(topic, TIMEOUT).topics[topic].error is None

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except KafkaException as error:
            raise StoreError(f"{self._name}: {error.args[0].str()}") from error

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._metrics.rebalances.inc()
        self._metrics.refusals.pop(self._group, None)
        _LOG.info("partitions assigned", partitions=[f"{each.topic}/{each.partition}" for each in partitions])
        known = answers(consumer.committed(partitions, TIMEOUT))
        for each, committed in zip(partitions, known, strict=True):
            if committed.offset < 0:
                each.offset = self._beginning(consumer, each)
        consumer.assign(partitions)
        # Also what was paused when it was taken away is still paused when it comes back.
        (consumer.pause if self._held else consumer.resume)(partitions)

    def _beginning(self, consumer: Consumer, partition: TopicPartition) -> int:
        """Return the offset from which a partition is read that the group has never read."""
        # The end first: what is written meanwhile comes after it.
        _, end = consumer.get_watermark_offsets(partition, TIMEOUT)
        since = int((time.time() - self._max_age) * 1000)
        wanted = TopicPartition(partition.topic, partition.partition, since)
        (found,) = answers(consumer.offsets_for_times([wanted], TIMEOUT))
        return end if found.offset == _NONE_LATER else found.offset

    def _on_revoke(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._lost = True
        self._early.clear()
        self._metrics.rebalances.inc()
        _LOG.info("partitions revoked", partitions=[f"{each.topic}/{each.partition}" for each in partitions])


def answers(partitions: list[TopicPartition]) -> list[TopicPartition]:
    """Return what the brokers say of partitions.

    Raises
    ------
    StoreError
        If they could not say it of one.
    """
    for each in partitions:
        if each.error is not None:
            raise StoreError(f"{each.topic}/{each.partition}: {each.error}")
    return partitions


def to_record(message: Message) -> Record:
    """Return a record of the Kafka client as ours, without headers that have no value."""
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None and partition is not None and offset is not None  # noqa: S101, PT018 (it was read)
    value: Any = message.value()
    try:
        headers: Any = message.headers() or []
    except (SystemError, UnicodeDecodeError):
        headers = []  # a name that is no text
    found = {name: content for name, content in headers if isinstance(content, bytes)}
    return Record(topic, partition, offset, value, message.timestamp()[1] / 1000, found)
