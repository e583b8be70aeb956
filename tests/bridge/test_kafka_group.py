"""A source replaces its client; the clients here only record what they are given."""

import json

import pytest

import prompt_processing.bridge.kafka_group as module
from prompt_processing.bridge.kafka_group import GroupSource
from prompt_processing.bridge.metrics import BridgeMetrics

CLIENT = {"bootstrap.servers": "127.0.0.1:1", "log_level": 0}
IN_GROUP = json.dumps({"brokers": {"b": {"state": "UP"}}, "cgrp": {"join_state": "steady"}})


class Client:
    def __init__(self, settings):
        self.settings = settings
        self.closed = False

    def subscribe(self, topics, **callbacks):
        self.callbacks = callbacks

    def assignment(self):
        return []

    def pause(self, partitions):
        pass

    def poll(self, timeout):
        return None

    def close(self):
        self.closed = True


@pytest.fixture
def clients(monkeypatch):
    made = []

    def make(settings):
        made.append(Client(settings))
        return made[-1]

    monkeypatch.setattr(module, "Consumer", make)
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.0)
    monkeypatch.setattr(module, "LOOK_AGAIN", float("inf"))
    return made


@pytest.fixture
def metrics():
    return BridgeMetrics()


@pytest.fixture
def source(clients, metrics):
    return GroupSource(CLIENT, ["visits"], group="g", session=10.0, max_age=1.0, metrics=metrics)


def test_what_a_client_reports_after_it_was_given_up_does_not_count(source, clients, metrics):
    source._give_up("test")
    clients[0].settings["stats_cb"](IN_GROUP)
    assert not metrics.is_ready()
    source.receive(0.0)
    old, new = clients
    assert old.closed
    source._lost = False  # as after the first record of the new client
    old.callbacks["on_revoke"](old, [])
    old.callbacks["on_lost"](old, [])
    old.settings["on_commit"](None, [])
    assert source.keep()
    assert source._answer is None
    new.callbacks["on_revoke"](new, [])
    assert not source.keep()
    new.settings["on_commit"](None, [])
    assert not source._answer
    new.settings["stats_cb"](IN_GROUP)
    assert metrics.is_ready()


def test_the_pause_before_a_new_client_grows_to_a_limit(source, monkeypatch):
    monkeypatch.setattr(module, "LONGEST_PAUSE", 0.03)
    monkeypatch.setattr(module.time, "monotonic", lambda: 100.0)
    source._pause = 0.01
    pauses = []
    for _ in range(4):
        source._give_up("test")
        pauses.append(round(source._replace_at - 100.0, 3))
    assert pauses == [0.01, 0.02, 0.03, 0.03]


def test_no_client_is_made_before_its_time(source, clients, monkeypatch):
    now, slept = [100.0], []
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(module.time, "sleep", slept.append)
    source._pause = 5.0
    source._give_up("test")
    assert source.receive(1.0) is None
    now[0] += 4.5
    assert source.receive(1.0) is None
    assert slept == [1.0, 0.5]
    assert len(clients) == 1
    now[0] += 0.5
    source.receive(1.0)
    assert len(clients) == 2
