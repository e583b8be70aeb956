"""Probes and metrics of a service that has no requests otherwise."""

import socket
import threading
from http.client import HTTPConnection

import pytest

from local_cloud.servers import LOOPBACK, reserve_port
from prompt_processing.runtime.health import Health


@pytest.fixture
def port(monkeypatch):
    """A free port, where the probes are to be answered."""
    with reserve_port() as held:
        port = held.getsockname()[1]
        monkeypatch.setenv("HOST", LOOPBACK)
        monkeypatch.setenv("PORT", str(port))
        yield port


def ask(port, path, method="GET"):
    connection = HTTPConnection(LOOPBACK, port, timeout=30)
    connection.request(method, path)
    status = connection.getresponse().status
    connection.close()
    return status


def test_it_lives_from_the_start_and_is_ready_when_it_says_so(port):
    with Health() as health:
        assert [ask(port, path) for path in ("/live", "/ready")] == [200, 503]
        health.ready()
        assert [ask(port, path) for path in ("/live", "/ready")] == [200, 200]
        assert [ask(port, path) for path in ("/", "/ready/", "/../live", "/live?x=1")] == [404] * 4
        assert ask(port, "/ready", "POST") == 501


def test_it_is_ready_when_it_says_so_and_can_work(port):
    connected = []
    with Health(is_ready=lambda: bool(connected)) as health:
        health.ready()
        assert ask(port, "/ready") == 503
        connected.append(True)
        assert ask(port, "/ready") == 200


def test_one_that_hangs_is_not_alive(port):
    with Health(is_alive=lambda: False):
        assert ask(port, "/live") == 503


def test_metrics_are_there_if_there_are_any(port):
    with Health(metrics=lambda: b"bridge_connected 1.0\n"):
        connection = HTTPConnection(LOOPBACK, port, timeout=30)
        connection.request("GET", "/metrics")
        assert connection.getresponse().read() == b"bridge_connected 1.0\n"
        connection.close()


def test_there_are_none_otherwise(port):
    with Health():
        assert ask(port, "/metrics") == 404


def test_it_answers_while_others_keep_it_waiting(port):
    with Health(), socket.create_connection((LOOPBACK, port)), socket.create_connection((LOOPBACK, port)):
        assert ask(port, "/live") == 200


def test_at_the_end_nobody_answers(port):
    with Health():
        waiting = socket.create_connection((LOOPBACK, port))
    with pytest.raises(ConnectionRefusedError):
        ask(port, "/live")
    waiting.close()


def test_without_a_port_there_is_no_server(monkeypatch):
    monkeypatch.delenv("PORT", raising=False)
    before = threading.active_count()
    with Health() as health:
        health.ready()
        assert threading.active_count() == before
