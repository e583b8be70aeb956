"""What Pub/Sub is told of a message that was let in: done with, or to be delivered again."""

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from local_cloud.tokens import TokenIssuer
from local_cloud.visits import detector_visit
from prompt_processing.domain.clock import WallClock, seconds_between
from prompt_processing.domain.errors import (
    AstrometryError,
    DrainedError,
    EngineLostError,
    NoCalibError,
    StoreError,
)
from prompt_processing.domain.outcome import Delivery, Outcome
from prompt_processing.serving.activator import REQUEST_LIMIT, _on_termination
from support.border import LONG, ServedWorker, service_log, wrapped

VISIT = detector_visit()
GOOD = VISIT.model_dump_json()
OTHER = detector_visit(groupId="other")
WARM_UP = json.dumps({"kind": "warmup", "instrument": "LATISS"})
CANCEL = json.dumps({"kind": "cancel", "instrument": "LATISS", "groupId": "other", "scriptSalIndex": 1})


@pytest.fixture(scope="module")
def issuer():
    with TokenIssuer() as issuer:
        yield issuer


@pytest.fixture
def log():
    with service_log() as log:
        yield log


@pytest.fixture
def served(issuer, tmp_path):
    return ServedWorker(issuer, tmp_path)


def push(served, data, message_id="1"):
    return served.post(wrapped(data, message_id)).status_code


def probe(served, path):
    return served.call("GET", path).status_code


@contextmanager
def working(served, data=GOOD):
    """Push a visit, and hold it up in the middle of its work; provide the status that is still to come."""
    served.runner.begun.clear()
    served.runner.go_on.clear()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(push, served, data)
        try:
            assert served.runner.begun.wait(LONG)
            yield answer
        finally:
            served.runner.go_on.set()


def outcome(served, visit=VISIT):
    return str(served.ledger.find(visit.key).outcome)


def test_a_second_visit_waits_for_the_first_and_all_else_is_answered_meanwhile(served, log):
    served.engine.can_work = False  # it is busy
    with working(served) as first:
        assert push(served, OTHER.model_dump_json(), "2") == 429
        assert push(served, GOOD, "3") == 429
        assert [probe(served, path) for path in ("/live", "/ready")] == [200, 200]
        assert push(served, WARM_UP, "4") == 204
        assert push(served, "not json", "5") == 204
        assert push(served, CANCEL, "6") == 204
        assert served.ledger.is_cancelled("LATISS", "other")
        assert not first.done()
        assert served.ledger.find(OTHER.key) is None
    assert first.result() == 204
    assert push(served, OTHER.model_dump_json(), "2") == 204
    assert served.runner.visits == [VISIT.key, OTHER.key]


def test_a_visit_that_fails_lets_the_next_one_in(served, log):
    served.runner.results = [StoreError("away"), ZeroDivisionError("oops")]
    assert push(served, GOOD) == 503
    assert push(served, GOOD) == 204
    assert outcome(served) == "failed:internal"
    assert push(served, OTHER.model_dump_json(), "2") == 204
    assert outcome(served, OTHER) == "processed"


def test_a_service_that_stops_takes_no_visit_and_answers_all_else(served, log):
    served.activator.stop()
    assert served.engine.drained
    assert push(served, GOOD) == 503
    assert served.effects()["visits"] == []
    assert [probe(served, path) for path in ("/live", "/ready")] == [200, 503]
    assert push(served, WARM_UP) == 204
    assert push(served, CANCEL) == 204
    assert served.ledger.is_cancelled("LATISS", "other")
    served.activator.close()
    assert served.engine.closed


def test_a_visit_is_given_back_when_the_service_stops(served, log):
    served.engine.on_drain = served.runner.go_on.set
    served.runner.results = [DrainedError("the worker is being stopped")]
    with working(served) as first:
        served.activator.stop()
        assert first.result(LONG) == 503
    record = served.ledger.find(VISIT.key)
    assert (record.outcome, record.working) == (None, None)
    assert record.attempts[0].error == "drained: the worker is being stopped"
    assert log.problems == []


def test_termination_stops_the_service_and_then_does_what_it_did_before():
    done = []
    before = signal.signal(signal.SIGTERM, lambda *_: done.append("before"))
    try:
        _on_termination(lambda: done.append("stop"))
        os.kill(os.getpid(), signal.SIGTERM)
        assert done == ["stop", "before"]
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _on_termination(lambda: done.append("stop"))
        with pytest.raises(SystemExit):
            signal.raise_signal(signal.SIGTERM)
        assert done == ["stop", "before", "stop"]
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (Outcome.processed("late"), "processed (late)"),
        (Outcome.skipped("expired", "announced 4000 s ago"), "skipped:expired"),
        (Outcome.skipped("no-image"), "skipped:no-image"),
        (NoCalibError("no bias"), "skipped:no-calibs"),
        (AstrometryError("no stars"), "failed:astrometry"),
        (ZeroDivisionError("oops"), "failed:internal"),
    ],
)
def test_what_is_over_is_done_with_and_never_done_again(served, log, result, said):
    served.runner.results = [result]
    assert push(served, GOOD) == 204
    assert outcome(served) == said
    before = served.effects()
    assert push(served, GOOD) == 204
    assert push(served, GOOD, "another message") == 204
    assert served.effects() == before


@pytest.mark.parametrize("error", [StoreError("database is away"), EngineLostError("signal 9")])
def test_what_may_work_later_is_to_come_again(served, log, error):
    served.runner.results = [error]
    assert push(served, GOOD) == 503
    (line,) = log.problems
    assert line["error"] == str(error)
    assert outcome(served) == "None"
    assert push(served, GOOD) == 204
    assert outcome(served) == "processed"


def test_while_another_worker_has_the_visit_only_its_own_message_comes_again(served, log):
    served.ledger.claim(VISIT, Delivery("1", GOOD), owner="w2")
    assert push(served, GOOD, "a duplicate") == 204
    assert push(served, GOOD, "1") == 503
    assert served.runner.visits == []
    assert {line["owner"] for line in log.lines() if line["message"] == "visit is being worked on"} == {"w2"}


@pytest.mark.parametrize(("data", "method"), [(GOOD, "claim"), (CANCEL, "cancel")])
def test_a_ledger_that_is_away_puts_a_message_off(served, log, monkeypatch, data, method):
    def away(*_, **__):
        raise StoreError("the ledger is away")

    with monkeypatch.context() as patch:
        patch.setattr(served.ledger, method, away)
        assert push(served, data) == 503
    (line,) = log.problems
    assert line["error"] == "the ledger is away"
    assert push(served, data) == 204


def test_messages_of_instruments_that_are_not_served_are_ignored(issuer, tmp_path, log):
    served = ServedWorker(issuer, tmp_path, instruments=("LATISS",))
    foreign = {"instrument": "LSSTCam", "detector": 94}
    assert push(served, detector_visit(**foreign).model_dump_json()) == 204
    assert push(served, json.dumps(json.loads(CANCEL) | {"instrument": "LSSTCam"})) == 204
    assert push(served, json.dumps(json.loads(WARM_UP) | {"instrument": "LSSTCam"})) == 204
    assert [line["instrument"] for line in log.problems] == ["LSSTCam"] * 3
    assert not any(served.effects().values())
    assert push(served, GOOD) == 204
    assert served.runner.visits == [VISIT.key]


def test_a_visit_that_is_too_far_ahead_for_a_request_comes_again_later(issuer, tmp_path, log):
    longest = {VISIT.key: REQUEST_LIMIT + 1.0, OTHER.key: REQUEST_LIMIT}
    served = ServedWorker(issuer, tmp_path, lambda visit: longest[visit.key])
    assert push(served, GOOD) == 503
    (line,) = log.lines()
    assert (line["message"], line["group"]) == ("visit is too far ahead for a request", VISIT.groupId)
    assert served.effects()["visits"] == []
    assert push(served, OTHER.model_dump_json(), "2") == 204
    assert served.runner.visits == [OTHER.key]


@pytest.mark.parametrize("times", [{"startTime": 1.7e308, "duration": 1.7e308}, {"startTime": 1e300}])
def test_a_time_that_never_comes_is_no_reason_to_deliver_a_message_again(issuer, tmp_path, log, times):
    served = ServedWorker(
        issuer, tmp_path, lambda visit: seconds_between(WallClock().now(), visit.predicted_shutter_close)
    )
    body = json.dumps(json.loads(GOOD) | times)
    assert push(served, body) == 204
    assert len(log.problems) == 1
    assert push(served, GOOD, "2") == 204
    assert outcome(served) == "processed"


def test_it_is_ready_when_its_engine_is_or_works(served):
    served.engine.can_work = False
    assert not served.activator.is_ready()
    with working(served):
        assert served.activator.is_ready()
    assert not served.activator.is_ready()
    served.engine.can_work = True
    assert served.activator.is_ready()
    served.activator.stop()
    assert not served.activator.is_ready()
