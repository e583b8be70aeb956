"""Records from one place to another: what is read again, once, outside of the bridge's group."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_INVALID,
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)

from prompt_processing.bridge.kafka_group import answers, to_record
from prompt_processing.bridge.records import Record
from prompt_processing.domain.errors import OperationError, StoreError

TIMEOUT: Final = 10.0
"""Longest wait for an answer of the brokers [s]."""
_NONE_LATER: Final = -1


class Range(NamedTuple):
    """A part of a partition."""

    topic: str
    partition: int
    begin: int
    """Offset of its first record."""
    end: int
    """Offset after its last record."""


class RangeSource:
    """A `~prompt_processing.bridge.records.RecordSource` of what stands in some topics now.

    Parameters
    ----------
    client
        How the brokers are found; see `prompt_processing.messaging.kafka.connection`.
    group
        Name under which it is remembered what is done, if anything is.
    commit
        Whether to remember that.
    unwrap
        What is made of each record before it is given; its own place is what is committed.
    """

    def __init__(
        self,
        client: Mapping[str, Any],
        *,
        group: str,
        commit: bool = False,
        unwrap: Callable[[Record], Record] = lambda record: record,
    ) -> None:
        self._servers = client["bootstrap.servers"]
        self._commit = commit
        self._unwrap = unwrap
        self._left: dict[tuple[str, int], int] = {}
        self._consumer = Consumer(
            {
                **client,
                "group.id": group,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": 10,
            }
        )
        self._in_hand: Record | None = None

    @property
    def ended(self) -> bool:
        """Whether there will be no more."""
        return not self._left

    def between(self, topics: Sequence[str], begin: float, end: float) -> list[Range]:
        """Return where the records of some time are [UTC s since 1970].

        Raises
        ------
        OperationError
            If there is no such topic.
        StoreError
            If Kafka does not answer.
        """
        found = []
        for topic, partition in self._partitions(topics):
            first, last = self._bounds(topic, partition)
            limits = [self._offset_at(topic, partition, moment, last) for moment in (begin, end)]
            found.append(Range(topic, partition, max(limits[0], first), limits[1]))
        return found

    def not_done(self, topic: str) -> list[Range]:
        """Return where the records are that are not done yet, as far as it is remembered.

        Raises
        ------
        OperationError
            If there is no such topic.
        StoreError
            If Kafka does not answer.
        """
        found = []
        for _, partition in self._partitions([topic]):
            first, last = self._bounds(topic, partition)
            here = [TopicPartition(topic, partition)]
            (committed,) = answers(self._ask(self._consumer.committed, here, TIMEOUT))
            begin = first if committed.offset == OFFSET_INVALID else max(committed.offset, first)
            found.append(Range(topic, partition, begin, last))
        return found

    def everything(self, topic: str) -> list[Range]:
        """Return where all records of a topic are; see `between` for errors."""
        return [
            Range(topic, partition, *self._bounds(topic, partition))
            for _, partition in self._partitions([topic])
        ]

    def read(self, ranges: Sequence[Range]) -> int:
        """Give these records from now on; return about how many they are."""
        self._left = {(each.topic, each.partition): each.end for each in ranges if each.begin < each.end}
        self._consumer.assign(
            [
                TopicPartition(each.topic, each.partition, each.begin)
                for each in ranges
                if each.begin < each.end
            ]
        )
        return sum(each.end - each.begin for each in ranges if each.begin < each.end)

    def receive(self, timeout: float) -> Record | None:
        """Return the next record; see the port."""
        message = self._ask(self._consumer.poll, timeout)
        if message is None:
            return None
        place = (message.topic(), message.partition())
        problem = message.error()
        if problem is not None:
            if problem.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 (the public name of an internal code)
                raise StoreError(f"{place[0]}: {problem.str()}")
            # A range may end with transaction markers, which the client does not deliver.
            self._left.pop(place, None)
            return None
        record = to_record(message)
        end = self._left.get(place, 0)
        if record.offset + 1 >= end:
            self._left.pop(place, None)
        if record.offset >= end:
            return None
        self._in_hand = record
        return self._unwrap(record)

    def keep(self) -> bool:
        """Do nothing: there is no group to stay in."""
        return True

    def done(self, record: Record) -> None:  # noqa: ARG002 (what counts is where its letter stands)
        """Remember that the record that was given last is done."""
        last = self._in_hand
        if self._commit and last is not None:
            place = TopicPartition(last.topic, last.partition, last.offset + 1)
            self._ask(lambda: self._consumer.commit(offsets=[place], asynchronous=False))

    def close(self) -> None:
        """Receive nothing any more."""
        self._consumer.close()

    def _partitions(self, topics: Sequence[str]) -> list[tuple[str, int]]:
        found: list[tuple[str, int]] = []
        for topic in topics:
            described = self._ask(self._consumer.list_topics, topic, TIMEOUT).topics[topic]
            if described.error is not None:
                raise OperationError(f"topic {topic}: {described.error.str()}")
            found += [(topic, partition) for partition in sorted(described.partitions)]
        return found

    def _bounds(self, topic: str, partition: int) -> tuple[int, int]:
        first, last = self._ask(
            self._consumer.get_watermark_offsets, TopicPartition(topic, partition, OFFSET_BEGINNING), TIMEOUT
        )
        return first, last

    def _offset_at(self, topic: str, partition: int, moment: float, last: int) -> int:
        """Return the offset of the first record at or after a moment."""
        wanted = TopicPartition(topic, partition, int(moment * 1000))
        (found,) = answers(self._ask(self._consumer.offsets_for_times, [wanted], TIMEOUT))
        return last if found.offset == _NONE_LATER else min(found.offset, last)

    def _ask(self, ask: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return ask(*arguments)
        except KafkaException as error:
            raise StoreError(f"kafka {self._servers}: {error.args[0].str()}") from error
