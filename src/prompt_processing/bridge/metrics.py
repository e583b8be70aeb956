"""What is measured of the bridge, for Prometheus."""

import time
from collections.abc import Callable
from typing import Any, Final

from confluent_kafka import KafkaError
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

PUBLISH_SECONDS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class BridgeMetrics:
    """Counts and times of one bridge.

    Parameters
    ----------
    now
        Returns the time [UTC s since 1970].
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._registry = registry = CollectorRegistry()
        self.fanout_messages = Counter(
            "bridge_fanout_messages", "Messages that were sent and acknowledged", ["kind"], registry=registry
        )
        self.skipped = Counter("bridge_skipped", "Skipped events by reason", ["reason"], registry=registry)
        self.expired = Counter("bridge_expired", "Events that were too old", registry=registry)
        self.dead_letters = Counter(
            "bridge_dead_letters", "Records that could not be read or were refused", registry=registry
        )
        self.retries = Counter(
            "bridge_retries", "Attempts at a record that failed and are made again", registry=registry
        )
        self.rebalances = Counter(
            "bridge_rebalances", "Changes of the partitions that this bridge reads", registry=registry
        )
        self.publish_seconds = Histogram(
            "bridge_publish_seconds",
            "From the first of a record's messages until all are acknowledged, in the try that succeeded",
            buckets=PUBLISH_SECONDS,
            registry=registry,
        )
        self.record_seconds = Histogram(
            "bridge_record_seconds",
            "From the record in Kafka until all of its messages are acknowledged",
            buckets=PUBLISH_SECONDS,
            registry=registry,
        )
        self._replaced = Counter(
            "bridge_replaced_clients",
            "Kafka clients that were replaced by a new one",
            registry=registry,
        )
        self._joined = False
        Gauge(
            "bridge_joined", "Whether this bridge is a member of its group", registry=registry
        ).set_function(lambda: self._joined)
        self._connected = False
        Gauge("bridge_connected", "Whether a broker is connected", registry=registry).set_function(
            self.is_connected
        )
        self.refusals: dict[str, KafkaError] = {}
        """Topics that are missing or may not be read, and the group if it may not be used, each with why."""
        Gauge(
            "bridge_refusals", "Topics and groups that are missing or may not be read", registry=registry
        ).set_function(lambda: len(self.refusals))
        self.lag_records = Gauge("bridge_lag_records", "Records that wait in Kafka", registry=registry)
        self._last_visit = now()
        self._oldest = 0.0
        self._now = now
        Gauge(
            "bridge_lag_seconds", "Age of the record that is worked on; 0 if none is", registry=registry
        ).set_function(lambda: self._age(self._oldest))
        Gauge(
            "bridge_last_visit_age_seconds",
            "Time since the visit that was sent last came to Kafka, or since the start of the bridge",
            registry=registry,
        ).set_function(lambda: self._age(self._last_visit))

    def is_connected(self) -> bool:
        """Return whether a broker is connected."""
        return self._connected

    def is_ready(self) -> bool:
        """Return whether a broker is connected, has this bridge in its group, and refuses nothing."""
        return self._connected and self._joined and not self.refusals

    def replaced(self) -> None:
        """Note that the Kafka client failed; until the next one reports, this bridge is not ready."""
        self._replaced.inc()
        self._connected = self._joined = False

    def visit(self, announced: float) -> None:
        """Note when the visit that was sent last came to Kafka [UTC s since 1970]."""
        self._last_visit = announced

    def working(self, written: float) -> None:
        """Note when the record in hand was written [UTC s since 1970]; 0 when there is none."""
        self._oldest = written

    def on_statistics(self, statistics: dict[str, Any]) -> None:
        """Take what the Kafka client tells of itself (librdkafka's STATISTICS.md)."""
        brokers = statistics.get("brokers", {}).values()
        self._connected = any(broker.get("state") == "UP" for broker in brokers)
        self._joined = statistics.get("cgrp", {}).get("join_state") == "steady"
        partitions = [
            partition
            for topic in statistics.get("topics", {}).values()
            for partition in topic.get("partitions", {}).values()
        ]
        self.lag_records.set(sum(map(_lag, partitions)))

    def page(self) -> bytes:
        """Return all of it in the text form of Prometheus."""
        return generate_latest(self._registry)

    def _age(self, since: float) -> float:
        return max(self._now() - since, 0.0) if since else 0.0


def _lag(partition: dict[str, Any]) -> int:
    """Return how many records of a partition are not done, as far as it is known; 0 for those of others.

    What is committed counts; before the first commit, what was read.
    """
    end = partition.get("hi_offset", -1)
    read, committed = partition.get("app_offset", -1), partition.get("committed_offset", -1)
    if partition.get("fetch_state") in {None, "none"} or end < 0:
        return 0
    done = committed if committed >= 0 else max(read - 1, partition.get("lo_offset", 0), 0)
    return max(end - done, 0)
