"""The observatory's events, read by one member of a consumer group."""

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from prompt_processing.bridge.kafka_topics import TopicIds
from prompt_processing.bridge.metrics import BridgeMetrics
from prompt_processing.bridge.records import Record
from prompt_processing.domain.errors import StoreError

_LOG: Final = structlog.get_logger(__name__)

TIMEOUT: Final = 2.0
"""Longest wait for an answer of the brokers [s]: nobody can be told to stop meanwhile."""
LEAVE: Final = 1.0
"""Longest wait for the brokers when this member leaves [s]."""
MOST_EARLY: Final = 100
"""Records that may come while others are committed, before no more are asked for."""
LOOK_AGAIN: Final = 10.0
"""Time between two looks at the topics, and between two reports of what Kafka refuses [s]."""
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 30.0
"""Longest wait before a failed client is replaced [s]; it doubles until a record comes."""
_TURN: Final = 0.002
"""Time between two looks whether a commit is answered [s]."""
_MAX_POLL_INTERVAL: Final = 30_000
"""Time in which a member must poll and rejoin [ms]; a join without an answer is repeated after it."""
_REFUSALS: Final = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
    }
)
"""What somebody has to mend. The client says it once, and goes on as if all were well."""
_NONE_LATER: Final = -1
"""Offset that stands for: there is no record after this time."""


class GroupSource:
    """A `~prompt_processing.bridge.records.RecordSource` that reads topics as a member of a group.

    It continues at the group's committed offsets; a new group begins with the records of the last ``max_age``
    seconds. It commits only what `done` is called for. A new Kafka client replaces one that fails for good,
    and continues at the committed offsets.

    Parameters
    ----------
    client
        How to reach the brokers; see `prompt_processing.messaging.kafka.connection`.
    topics
        Names of the topics.
    group
        Name of the group.
    session
        Time after which the brokers give the partitions of a silent member to another one [s].
    max_age
        How far back a new group begins [s].
    metrics
        Receives rebalances, lag, connection and replaced clients.
    """

    ended = False

    def __init__(
        self,
        client: Mapping[str, Any],
        topics: Sequence[str],
        *,
        group: str,
        session: float,
        max_age: float,
        metrics: BridgeMetrics,
    ) -> None:
        self._group = group
        self._topics = tuple(topics)
        self._ids = TopicIds(client, self._topics)
        self._max_age = max_age
        self._metrics = metrics
        self._held = False
        self._lost = False
        self._replace_at: float | None = None
        """When a failed client is replaced; `None` while the client works."""
        self._pause = FIRST_PAUSE
        self._early: deque[Record] = deque()
        """Records that came while another one was in hand."""
        self._answer: str | None = None
        """The brokers' answer to a commit: none yet, empty for success, or the error."""
        self._looked = float("-inf")
        """When the topics were last looked at."""
        self._fresh: set[str] = set()
        """Topics that were made again: what is committed of them does not count."""
        self._settings = {
            # A static member (group.instance.id) would get its partitions back at once after a crash. But the
            # client forgets its member id when its session ends, and the broker takes a commit without one
            # for that of a second member with the same name: this ends the client (decision 19).
            "group.id": group,
            "session.timeout.ms": int(session * 1000),
            "heartbeat.interval.ms": int(session * 100),
            "max.poll.interval.ms": _MAX_POLL_INTERVAL,
            # A commit without an answer delays the next join this long.
            "socket.timeout.ms": 10_000,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            # Applies only where Kafka has deleted the committed record: then the rest is all there is.
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 10,
            "topic.metadata.refresh.interval.ms": 10_000,
            "statistics.interval.ms": 1000,
            **client,
        }
        self._life = 0
        """Number of clients that were opened or given up."""
        self._consumer = self._open()

    def receive(self, timeout: float) -> Record | None:
        """Return the next record; see the port."""
        with self._errors():
            if not self._is_open(timeout):
                return None
            if self._early:
                record = self._early.popleft()
            else:
                self._look_at_topics()
                if self._replace_at is not None:
                    return None
                if self._held:
                    self._consumer.resume(self._consumer.assignment())
                    self._held = False
                message = self._poll(timeout)
                if message is None:
                    return None
                record = to_record(message)
                self._metrics.refusals.pop(record.topic, None)
        # What changed before this record was given does not take it away again.
        self._lost = False
        self._pause = FIRST_PAUSE
        return record

    def keep(self) -> bool:
        """Stay a member; see the port."""
        if self._replace_at is None:
            with self._errors():
                self._hold()
                self._serve(0.0)
        return not self._lost

    def done(self, record: Record) -> None:
        """Commit a record; see the port.

        It polls while it waits for the answer: a synchronous commit would block the client's other calls.
        """
        place = TopicPartition(record.topic, record.partition, record.offset + 1)
        self._answer = None
        end = time.monotonic() + TIMEOUT
        with self._errors():
            self._consumer.commit(offsets=[place], asynchronous=True)
            while self._answer is None and not self._lost:
                if time.monotonic() > end:
                    raise StoreError(f"{self._group}: {record}: not committed: no answer")
                # Not sooner: to pause and resume costs half a second.
                if len(self._early) >= MOST_EARLY:
                    self._hold()
                self._serve(_TURN)
        if self._answer:
            raise StoreError(f"{self._group}: {record}: not committed: {self._answer}")

    def close(self) -> None:
        """Leave the group, so that another member gets the partitions at once."""
        leaving = threading.Thread(target=self._consumer.close, name="leaving", daemon=True)
        leaving.start()
        leaving.join(LEAVE)

    def _open(self) -> Consumer:
        self._life = life = self._life + 1

        def current(callback: Callable[..., None]) -> Callable[..., None]:
            """Ignore what a client reports after it was given up, while it leaves the group."""
            return lambda *reported: callback(*reported) if life == self._life else None

        reports = {"on_commit": current(self._on_commit), "stats_cb": current(self._on_statistics)}
        consumer = Consumer({**self._settings, **reports})
        on_revoke = current(self._on_revoke)
        consumer.subscribe(
            list(self._topics), on_assign=current(self._on_assign), on_revoke=on_revoke, on_lost=on_revoke
        )
        return consumer

    def _is_open(self, timeout: float) -> bool:
        """Replace a failed client when its pause is over; wait for that for some time [s]."""
        if self._replace_at is None:
            return True
        left = self._replace_at - time.monotonic()
        if left > 0:
            time.sleep(min(left, timeout))
            return False
        self.close()
        self._consumer = self._open()
        self._replace_at = None
        return True

    def _give_up(self, why: str) -> None:
        """Have the client replaced; the next one reads the record in hand again."""
        self._life += 1
        self._replace_at = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        self._lost, self._held = True, False
        self._early.clear()
        self._metrics.replaced()
        _LOG.error("a new Kafka client replaces this one", group=self._group, error=why)

    def _hold(self) -> None:
        if not self._held:
            self._consumer.pause(self._consumer.assignment())
            self._held = True

    def _serve(self, timeout: float) -> None:
        """Let callbacks be called; what was under way already is given later."""
        message = self._poll(timeout)
        if message is not None:
            self._early.append(to_record(message))

    def _on_statistics(self, text: str) -> None:
        self._metrics.on_statistics(json.loads(text))

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
            self._give_up(problem.str())
        if problem.code() not in _REFUSALS:
            raise StoreError(f"{self._group}: {problem.str()}")
        name = message.topic() or self._group
        if name not in self._metrics.refusals:
            self._looked = float("-inf")  # reported at once
        self._metrics.refusals[name] = problem
        return None

    def _look_at_topics(self) -> None:
        """Report what Kafka refuses, and begin anew with a topic that was deleted and made again."""
        if time.monotonic() - self._looked < LOOK_AGAIN:
            return
        self._looked = time.monotonic()
        refusals = self._metrics.refusals
        for name, problem in list(refusals.items()):
            if problem.code() == KafkaError.UNKNOWN_TOPIC_OR_PART and self._is_there(name):
                del refusals[name]
                _LOG.info("topic is there now", name=name)
            else:
                _LOG.error("refused by Kafka", name=name, error=problem.str())
        if new := self._ids.new():
            # The client's offset, and what it has committed since, belong to the deleted topic.
            self._fresh |= new
            self._give_up(f"deleted and made again: {', '.join(sorted(new))}")

    def _is_there(self, topic: str) -> bool:
        return self._consumer.list_topics(topic, TIMEOUT).topics[topic].error is None

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except KafkaException as error:
            raise StoreError(f"{self._group}: {error.args[0].str()}") from error

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._metrics.rebalances.inc()
        self._metrics.refusals.pop(self._group, None)
        _LOG.info("partitions assigned", partitions=[f"{each.topic}/{each.partition}" for each in partitions])
        known = answers(consumer.committed(partitions, TIMEOUT))
        for each, committed in zip(partitions, known, strict=True):
            if committed.offset < 0 or each.topic in self._fresh:
                each.offset = self._beginning(consumer, each)
        consumer.assign(partitions)
        self._fresh -= {each.topic for each in partitions}
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
