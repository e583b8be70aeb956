"""What a detector-visit goes through, in memory: images, cancellation, lost time, lost workers."""

import contextlib
import itertools

import pytest

from prompt_processing.domain.errors import StoreError
from prompt_processing.domain.outcome import Disposition, Outcome
from prompt_processing.ledger.memory import MemoryLedger
from support.flow import Paused, World, crash, raw_key, store_error
from support.points import Crash
from support.two_sources import EXPOSURE

LEAD = 100.0
"""From the start of the clock to the start of visit 0 [s]."""
CLOSE = LEAD + EXPOSURE
DEADLINE = CLOSE + 60.0


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def outcome(world, number=0):
    return world.ledger.find(world.visit(number).key).outcome


def test_an_image_that_is_there_already_is_not_waited_for(world):
    world.announce(0)
    world.put_image(0)
    assert world.work("w") is Disposition.ACK
    assert outcome(world) == Outcome.processed()
    assert world.clock.seconds == 0.0


def test_an_image_whose_notification_is_lost_is_found_by_the_next_listing(world):
    world.announce(0)
    world.image_later(CLOSE + 3.0, 0, noted=False)
    world.work("w")
    assert outcome(world) == Outcome.processed()
    assert world.clock.seconds - (CLOSE + 3.0) <= world.settings.listing_interval_s


def test_a_pointer_without_a_hint_is_found_by_the_next_tick(world):
    world.announce(0)
    world.image_later(CLOSE + 1.23, 0)
    world.work("w")
    assert outcome(world) == Outcome.processed()
    assert world.clock.seconds - (CLOSE + 1.23) <= world.settings.tick_s


def test_without_an_image_the_visit_is_skipped_at_the_deadline(world):
    world.announce(0)
    assert world.work("w") is Disposition.ACK
    assert (outcome(world).status, outcome(world).reason) == ("skipped", "no-image")
    assert world.clock.seconds == pytest.approx(DEADLINE, abs=0.01)


@pytest.mark.parametrize("noted", [True, False])
def test_a_late_image_is_processed_and_flagged(world, noted):
    world.announce(0)
    world.announce(1)
    world.work("w")
    world.put_image(0, noted=noted)
    # Where the notification is lost, whoever waits for another image finds it.
    world.work("w")
    while world.work("w") is not None:
        pass
    assert outcome(world) == Outcome.processed("late")
    history = world.ledger.history(world.visit(0).key)
    assert [str(item) for item in history] == ["skipped:no-image", "processed (late)"]


def test_an_image_at_the_last_moment_is_not_lost(world):
    """It comes after the worker's last look, and before the outcome is stored."""
    world.announce(0)
    waiting = Paused(world, points_before(world, "ledger.record_times"), "w")
    assert waiting.waits
    world.put_image(0)
    waiting.resume()
    world.advance(2.0)
    assert world.work("w") is Disposition.ACK
    assert outcome(world).status == "processed"


def points_before(world, name):
    """Return how many points a worker passes until it gets to a call, found by trying in another world."""
    trial = World(world.folder / "trial")
    trial.announce(0)
    trial.work("w")
    return trial.faults.passed.index(f"before {name}") + 1


def test_both_snaps_are_waited_for(world):
    world.announce(0, nimages=2)
    world.image_later(CLOSE - 10.0, 0, snap=0)
    world.image_later(CLOSE + 2.0, 0, snap=1)
    world.work("w")
    assert outcome(world) == Outcome.processed()
    assert world.decisions.find(world.visit(0)).info.raws == (raw_key(0, 0), raw_key(0, 1))


@pytest.mark.parametrize("snap", [0, 1])
def test_a_missing_snap_is_flagged_and_what_came_is_processed(world, snap):
    world.announce(0, nimages=2)
    world.put_image(0, snap=snap)
    world.work("w")
    assert outcome(world) == Outcome.processed("missing-snap")
    assert world.decisions.find(world.visit(0)).info.raws == (raw_key(0, snap),)


def test_where_the_number_of_images_is_unknown_the_first_is_processed_at_once(world):
    world.announce(0, nimages=0)
    world.image_later(CLOSE, 0)
    world.image_later(CLOSE + 1.0, 0, snap=1)
    world.work("w")
    assert outcome(world) == Outcome.processed()
    assert world.decisions.find(world.visit(0)).info.raws == (raw_key(0),)


def test_a_cancelled_visit_frees_its_worker_at_the_next_look(world):
    world.announce(0)
    world._due.append((50.0, lambda: world.ledger.cancel("LATISS", "group#0")))
    world.work("w")
    assert (outcome(world).status, outcome(world).reason) == ("skipped", "cancelled")
    assert world.clock.seconds <= 50.0 + world.settings.tick_before_s


def test_a_cancellation_before_its_visit_is_kept(world):
    world.cancel(0)
    world.work("w")
    world.announce(0)
    world.work("w")
    assert outcome(world).reason == "cancelled"
    assert world.clock.seconds == 0.0


def test_an_image_of_a_cancelled_visit_is_processed_after_all(world):
    world.cancel(0)
    world.announce(0)
    world.work("w")
    world.work("w")
    world.put_image(0)
    world.work("w")
    assert outcome(world) == Outcome.processed()


def test_an_old_event_is_expired_unless_its_image_is_there(world):
    world.announce(0)
    world.announce(1)
    world.put_image(1)
    world.advance(4000.0)
    world.work("w")
    world.work("w")
    assert outcome(world, 0).reason == "expired"
    assert outcome(world, 1).status == "processed"


def test_a_visit_of_another_day_does_not_hold_its_worker(world):
    world.announce(100)  # it is to begin in 4100 s
    world.work("w")
    assert str(outcome(world, 100)) == "failed:bad-event"
    assert world.clock.seconds == 0.0


def test_an_attempt_without_alerts_has_its_times_and_its_latency_too(world):
    world.announce(0)
    world.work("w")
    world.announce(1)
    (world.landing / world.put_image(1)).unlink()
    world.work("w")
    skipped, failed = (world.ledger.find(world.visit(number).key) for number in range(2))
    assert (skipped.outcome.reason, failed.outcome.reason) == ("no-image", "bad-raw")
    assert skipped.times.latency == pytest.approx(60.0, abs=1.0)
    assert "wait" in skipped.times.seconds
    assert "preload" in failed.times.seconds
    assert failed.times.latency is not None


def test_a_second_message_of_a_visit_does_nothing(world):
    world.announce(0)
    world.announce(0)
    world.put_image(0)
    world.work("w1")
    assert world.work("w2") is Disposition.ACK
    assert len(world.ledger.find(world.visit(0).key).attempts) == 1


def test_rows_that_no_decision_made_stop_the_visit_before_it_changes_anything(world):
    world.announce(0)
    world.put_image(0)
    world.work("w")
    decision = world.decisions.find(world.visit(0))
    other = World(world.folder / "other")
    other.apdb.store(
        decision.info.midpoint_mjd_tai,
        decision.dia_object,
        decision.dia_source,
        decision.dia_forced_source,
    )
    other.announce(0)
    other.put_image(0)
    assert other.work("w") is Disposition.ACK
    assert (outcome(other).status, outcome(other).reason) == ("failed", "conflict")
    assert f"rows of visit {decision.info.visit}, detector 0" in outcome(other).detail
    assert other.decisions.find(other.visit(0)) is None
    assert other.alerts.packets == {}


def all_points(folder):
    """Return the points that one visit passes."""
    trial = World(folder)
    trial.announce(0)
    trial.put_image(0)
    trial.faults.passed.clear()
    trial.work("w")
    return trial.faults.passed


def run_to_the_end(world):
    """Let leases end and workers work until nothing is left to do."""
    for turn in range(3):
        while world.work(f"later {turn}") is not None:
            pass
        world.advance(61.0)
        world.relay().relay_all()


@pytest.mark.slow
@pytest.mark.parametrize("fault", [crash, store_error])
def test_wherever_a_worker_dies_or_a_store_fails_the_visit_ends_as_if_nothing_had_happened(tmp_path, fault):
    names = all_points(tmp_path / "names")
    assert len(names) > 30
    for number, name in enumerate(names, start=1):
        world = World(tmp_path / str(number))
        world.announce(0)
        world.put_image(0)
        world.faults.arm(number, fault)
        # Only a death, and a failure beyond the worker's own work, is seen from outside.
        seen = (Crash, StoreError) if name == "before the acknowledgement" else (Crash,)
        with contextlib.suppress(*seen):
            world.work("first")
        run_to_the_end(world)
        assert str(outcome(world)) == "processed", name
        decision = world.decisions.find(world.visit(0))
        assert dict(decision.packets) == world.alerts.packets, name
        assert len(world.apdb.visit_sources(decision.info.visit, 0)) == 2, name
        assert list(world.products.written) == [("LATISS", "group#0", 0)], name
        assert len(world.metrics.metrics) == 1, name
        assert world.ledger.pending() == [], name
        assert len(world.ledger.history(world.visit(0).key)) == 1, name


def stop_everywhere(folder, **options):
    """Stop a worker at each point in turn, let another one take over, and then let the first one go on."""
    names = all_points(folder / "names")
    for number, name in enumerate(names, start=1):
        world = World(folder / str(number), **options)
        world.announce(0)
        world.put_image(0)
        first = Paused(world, number, "first")
        world.advance(61.0)
        run_to_the_end(world)
        attempts = len(world.ledger.find(world.visit(0).key).attempts)
        history = world.ledger.history(world.visit(0).key)
        alerts, rows = dict(world.alerts.packets), world.apdb.visit_sources(2026020100001, 0)
        first.resume()
        assert world.violations == [], name
        assert world.ledger.history(world.visit(0).key) == history == [Outcome.processed()], name
        assert world.alerts.packets == alerts, name
        assert world.apdb.visit_sources(2026020100001, 0).equals(rows), name
        assert len(world.ledger.find(world.visit(0).key).attempts) == attempts, name


@pytest.mark.slow
def test_wherever_a_worker_stops_another_takes_over_and_the_first_writes_nothing_more(tmp_path):
    stop_everywhere(tmp_path)


class StaleWriters(MemoryLedger):
    """Finds every claim good."""

    def check(self, claim):
        pass


def test_a_stale_writer_that_is_allowed_is_noticed(tmp_path):
    with pytest.raises(AssertionError, match=r"Memory.*store"):
        stop_everywhere(tmp_path, ledger_type=StaleWriters)


def test_visits_in_any_order_give_the_same_number_of_rows(tmp_path):
    for order in itertools.permutations(range(3)):
        world = World(tmp_path / "".join(map(str, order)))
        for number in order:
            world.announce(number)
            world.put_image(number)
            world.work("w")
        objects = {
            number for decision in world.decisions.all() for number in decision.dia_object["diaObjectId"]
        }
        curves = [world.apdb.light_curve(number).sources for number in objects]
        assert sum(map(len, curves)) == 6, order


def away(world, times):
    """Let a store be away for some preloads."""

    def fail(name):
        if times > 1:
            away(world, times - 1)
        raise StoreError(f"{name}: no answer")

    world.faults.arm("preload", fail)


def test_a_preload_that_fails_is_tried_again_before_the_shutter_closes(world):
    world.announce(0)
    world.put_image(0)
    away(world, 3)
    assert world.work("w") is Disposition.ACK
    assert outcome(world) == Outcome.processed()
    assert world.faults.passed.count("preload") == 4


def test_a_preload_that_fails_until_the_shutter_closes_gives_the_visit_back(world):
    world.announce(0)
    world.put_image(0)
    away(world, 1000)
    assert world.work("w") is Disposition.RETRY
    assert CLOSE - 2.0 <= world.clock.seconds <= CLOSE
    world.faults.disarm()
    world.advance(5.0)
    assert world.work("w") is Disposition.ACK
    assert outcome(world) == Outcome.processed()
