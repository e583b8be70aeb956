"""Effects that are not required, what is pending, and the relay that makes up for it."""

import contextlib

import pytest

from prompt_processing.delivery.metrics import VisitMetrics
from prompt_processing.domain.errors import StoreError
from prompt_processing.domain.outcome import Disposition, Outcome
from support.flow import World, crash, store_error
from support.points import Crash

N = 3


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def process(world, *numbers):
    """Let a worker process visits, and return what it said."""
    said = []
    for number in numbers:
        world.announce(number)
        world.put_image(number)
        said.append(world.work("w"))
    return said


def find(world, number=0):
    return world.ledger.find(world.visit(number).key)


def left(world):
    return [(pending.visit.group, pending.effect) for pending in world.ledger.pending()]


def decided(world):
    return {number: data for made in world.decisions.all() for number, data in made.packets}


def test_with_the_alert_sink_away_every_visit_gets_its_outcome_and_the_relay_sends_later(world):
    world.alerts_away = True
    assert process(world, *range(N)) == [Disposition.ACK] * N
    assert world.queued() == []
    for number in range(N):
        record = find(world, number)
        assert record.outcome == Outcome.processed()
        assert (record.pending, len(record.attempts)) == (("alerts",), 1)
    assert world.alerts.packets == {}
    assert len(world.products.written) == len(world.metrics.metrics) == N
    assert world.relay().relay_all() == (0, N)
    assert {pending.error for pending in world.ledger.pending()} == {"store: alerts: no answer"}
    world.alerts_away = False
    assert world.relay().relay_all() == (N, 0)
    assert world.alerts.packets == decided(world)
    assert left(world) == []
    assert all("alerts" in find(world, number).steps for number in range(N))


def test_alerts_that_are_sent_late_have_the_latency_of_that_moment(world):
    world.alerts_away = True
    world.advance(200.0)
    process(world, 0)
    assert find(world).times.latency is None
    world.advance(1000.0)
    world.alerts_away = False
    world.relay().relay_all()
    assert find(world).times.latency == pytest.approx(200.0 + 1000.0 - 130.0, abs=3.0)


def test_latency_of_a_relay_that_was_faster_than_the_outcome_is_kept(world):
    world.alerts_away = True

    def relay(_):
        world.alerts_away = False
        world.relay().relay_all()

    world.announce(0)
    world.put_image(0)
    world.faults.arm("before products.store", relay)
    world.work("w")
    record = find(world)
    assert (record.outcome, record.pending) == (Outcome.processed(), ())
    assert record.times.latency is not None


@pytest.mark.parametrize("point", ["before apdb.store", "before products.store"])
def test_a_required_effect_holds_the_outcome(world, point):
    world.announce(0)
    world.put_image(0)
    world.faults.arm(point, store_error)
    assert world.work("w") is Disposition.RETRY
    assert (find(world).outcome, left(world)) == (None, [])


def test_an_unexpected_error_of_an_effect_that_is_not_required_is_pending_too(world):
    def fault(_):
        raise KeyError("topic")

    world.announce(0)
    world.put_image(0)
    world.faults.arm("before alerts.send", fault)
    assert world.work("w") is Disposition.ACK
    assert [pending.error for pending in world.ledger.pending()] == ["KeyError: 'topic'"]


def test_what_is_pending_is_not_tried_by_the_next_attempt(world):
    world.alerts_away = True
    world.announce(0)
    world.put_image(0)
    world.faults.arm("before products.store", store_error)
    assert world.work("w") is Disposition.RETRY
    world.advance(2.0)
    world.faults.passed.clear()
    assert world.work("w") is Disposition.ACK
    assert "before alerts.send" not in world.faults.passed
    assert left(world) == [("group#0", "alerts")]


def test_metrics_that_could_not_be_sent_are_sent_as_they_were(world):
    world.announce(0)
    world.put_image(0)
    world.faults.arm("before metrics.send", store_error)
    assert world.work("w") is Disposition.ACK
    (pending,) = world.ledger.pending()
    assert world.relay().relay_all() == (1, 0)
    assert list(world.metrics.metrics.values()) == [VisitMetrics.from_json(pending.payload)]


def test_the_relay_takes_the_oldest_first_and_what_failed_waits(world):
    world.alerts_away = True
    process(world, 0)
    world.advance(1.0)
    process(world, 1)
    relay = world.relay()
    assert (relay.relay_next(), relay.relay_next(), relay.relay_next()) == (False, False, None)
    world.alerts_away = False
    world.advance(5.0)
    assert relay.relay_all(limit=1) == (1, 0)
    assert left(world) == [("group#1", "alerts")]
    assert (relay.relay_next(), relay.relay_next()) == (True, None)


def test_a_second_relay_does_not_take_what_the_first_one_has(world):
    world.alerts_away = True
    process(world, 0)
    world.alerts_away = False
    tried = []
    world.faults.arm("before relay.alerts.send", lambda _: tried.append(world.relay().relay_all()))
    assert world.relay().relay_all() == (1, 0)
    assert tried == [(0, 0)]


@pytest.mark.parametrize("fault", [crash, store_error])
def test_wherever_a_relay_dies_or_a_store_fails_the_alerts_are_sent(tmp_path, fault):
    trial = World(tmp_path / "trial")
    trial.alerts_away = True
    process(trial, 0)
    trial.alerts_away = False
    trial.faults.passed.clear()
    trial.relay().relay_all()
    assert len(trial.faults.passed) > 8
    for number, name in enumerate(trial.faults.passed, start=1):
        world = World(tmp_path / str(number))
        world.alerts_away = True
        process(world, 0)
        world.alerts_away = False
        world.faults.arm(number, fault)
        with contextlib.suppress(Crash, StoreError):
            world.relay().relay_all()
        world.faults.disarm()
        world.advance(301.0)
        world.relay().relay_all()
        assert left(world) == [], name
        assert world.alerts.packets == decided(world), name


def test_skipped_and_failed_visits_have_metrics(world):
    world.announce(0)
    world.work("w")
    world.announce(1)
    (world.landing / world.put_image(1)).unlink()
    world.work("w")
    world.cancel(2)
    world.work("w")
    world.announce(2)
    world.work("w")
    found = {made.group: made for made in world.reports.metrics.values()}
    assert {group: (made.status, made.reason) for group, made in found.items()} == {
        "group#0": ("skipped", "no-image"),
        "group#1": ("failed", "bad-raw"),
        "group#2": ("skipped", "cancelled"),
    }
    values = {item.name: item.value for item in found["group#0"].measurements}
    assert values["outcome.time_since_shutter_close"] == pytest.approx(60.0, abs=1.0)
    assert "stage_times.wait" in values
    assert (found["group#0"].visit, found["group#0"].run) == (None, None)
    assert (left(world), find(world).steps) == ([], ())


@pytest.mark.parametrize(
    "point", ["before reports.send", "after reports.send", "after ledger.record_outcome"]
)
@pytest.mark.parametrize("fault", [crash, store_error])
def test_metrics_of_an_outcome_are_not_lost(world, point, fault):
    world.announce(0)
    world.faults.arm(point, fault)
    with contextlib.suppress(Crash):
        world.work("w")
    assert find(world).outcome.reason == "no-image"
    world.relay().relay_all()
    (made,) = world.reports.metrics.values()
    assert (made.group, made.reason, left(world)) == ("group#0", "no-image", [])


def test_metrics_of_a_given_up_visit_do_not_hold_up_the_image(world):
    world.announce(0)
    world.faults.arm("before reports.send", store_error)
    world.work("w")
    world.put_image(0)
    world.work("w")
    assert find(world).outcome == Outcome.processed("late")
    assert len(world.metrics.metrics) == 1
