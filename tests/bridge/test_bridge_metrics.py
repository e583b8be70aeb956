"""What the metrics of a bridge tell, and whether it is ready."""

import pytest
from confluent_kafka import KafkaError
from prometheus_client.parser import text_string_to_metric_families

from prompt_processing.bridge.metrics import BridgeMetrics


@pytest.fixture
def clock():
    return [1000.0]


@pytest.fixture
def metrics(clock):
    return BridgeMetrics(now=lambda: clock[0])


def value(metrics, name):
    """Return a metric as whoever scrapes the page reads it."""
    families = text_string_to_metric_families(metrics.page().decode())
    (found,) = (sample.value for family in families for sample in family.samples if sample.name == name)
    return found


def test_the_age_of_the_last_visit_begins_with_the_bridge(metrics, clock):
    clock[0] += 700.0
    assert value(metrics, "bridge_last_visit_age_seconds") == 700.0
    # One that was written before the bridge was started.
    metrics.visit(900.0)
    assert value(metrics, "bridge_last_visit_age_seconds") == 800.0
    metrics.visit(1690.0)
    assert value(metrics, "bridge_last_visit_age_seconds") == 10.0


MEMBER = {"brokers": {"b": {"state": "UP"}}, "cgrp": {"join_state": "steady"}}


def test_a_bridge_is_ready_when_it_is_in_its_group_and_nothing_is_refused(metrics):
    assert not metrics.is_ready()
    metrics.on_statistics({**MEMBER, "cgrp": {"join_state": "wait-join"}})
    assert not metrics.is_ready()
    assert value(metrics, "bridge_joined") == 0
    metrics.on_statistics(MEMBER)
    assert metrics.is_ready()
    assert value(metrics, "bridge_joined") == 1
    metrics.refusals["visits"] = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    assert not metrics.is_ready()
    assert value(metrics, "bridge_refusals") == 1
    assert value(metrics, "bridge_connected") == 1
    del metrics.refusals["visits"]
    metrics.on_statistics({**MEMBER, "brokers": {"b": {"state": "DOWN"}}})
    assert not metrics.is_ready()


def test_a_bridge_is_not_ready_between_two_clients(metrics):
    metrics.on_statistics(MEMBER)
    metrics.replaced()
    assert not metrics.is_ready()
    assert value(metrics, "bridge_replaced_clients_total") == 1
    metrics.on_statistics(MEMBER)
    assert metrics.is_ready()
