"""Hints on their way from where they come to the engines."""

import queue
import threading

import pytest

from prompt_processing.arrivals import hints
from prompt_processing.arrivals.hints import HintRelay
from prompt_processing.domain.errors import StoreError
from support.border import LONG, service_log


class Source:
    """Gives the hints, and the errors, that it was told to."""

    def __init__(self):
        self.coming = queue.Queue()
        self.asked = threading.Semaphore(0)
        self.closed = False

    def wait(self, timeout):
        self.asked.release()
        found = self.coming.get(timeout=LONG)
        if isinstance(found, Exception):
            raise found
        return found

    def close(self):
        self.closed = True
        self.coming.put(False)


@pytest.fixture
def source():
    return Source()


@pytest.fixture
def passed():
    return threading.Semaphore(0)


def test_every_hint_is_passed_on_and_nothing_else(source, passed):
    with HintRelay(source, passed.release):
        for found in (False, True, False, True):
            source.coming.put(found)
        assert passed.acquire(timeout=LONG)
        assert passed.acquire(timeout=LONG)
    assert not passed.acquire(blocking=False)


def test_a_source_that_does_not_answer_is_asked_again(source, passed, monkeypatch):
    monkeypatch.setattr(hints, "TIMEOUT", 0.01)
    with service_log() as log, HintRelay(source, passed.release):
        source.coming.put(StoreError("Pub/Sub is away"))
        source.coming.put(StoreError("Pub/Sub is away"))
        source.coming.put(True)
        assert passed.acquire(timeout=LONG)
    assert [line["error"] for line in log.problems] == ["Pub/Sub is away"] * 2


def test_it_ends_at_once_while_it_waits_for_a_hint(source, passed):
    with HintRelay(source, passed.release):
        assert source.asked.acquire(timeout=LONG)
    # It does not come here before its thread has ended, which a source that is closed lets go.
    assert source.closed
    assert "hints" not in {thread.name for thread in threading.enumerate()}


def test_it_ends_at_once_while_it_waits_after_an_error(source, passed, monkeypatch):
    monkeypatch.setattr(hints, "TIMEOUT", 10 * LONG)
    failed = threading.Event()
    monkeypatch.setattr(hints._LOG, "warning", lambda *_, **__: failed.set(), raising=False)
    relay = HintRelay(source, passed.release)
    source.coming.put(StoreError("away"))
    with relay:
        assert failed.wait(LONG)
    assert "hints" not in {thread.name for thread in threading.enumerate()}
    assert source.asked.acquire(blocking=False)
    assert not source.asked.acquire(blocking=False)


def test_an_error_inside_the_context_comes_out_of_it(source, passed):
    with pytest.raises(KeyError), HintRelay(source, passed.release):
        raise KeyError("x")
    assert source.closed
