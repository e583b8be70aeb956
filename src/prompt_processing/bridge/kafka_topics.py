"""Topics that were deleted and made again under the same name."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

TIMEOUT: Final = 2.0
"""Longest wait for an answer of the brokers [s]."""


class TopicIds:
    """The ids of some topics, which a topic with the same name does not share (KIP-516).

    The consumer of librdkafka does not compare them: it continues at the offset that it had in the deleted
    topic, and skips what lies before.

    Parameters
    ----------
    client
        How to reach the brokers; see `prompt_processing.messaging.kafka.connection`.
    topics
        Names of the topics.
    """

    def __init__(self, client: Mapping[str, Any], topics: Sequence[str]) -> None:
        self._admin = AdminClient(dict(client))
        self._topics = TopicCollection(list(topics))
        self._ids: dict[str, str] = {}

    def new(self) -> set[str]:
        """Return the topics that are other ones than at the last call.

        Topics that are missing or may not be seen, or whose brokers do not answer, wait for the next call.
        """
        found = set()
        for name, answer in self._admin.describe_topics(self._topics, request_timeout=TIMEOUT).items():
            try:
                now = str(answer.result().topic_id)
            except KafkaException:
                continue
            if self._ids.setdefault(name, now) != now:
                found.add(name)
            self._ids[name] = now
        return found
