"""A night at speed: a visit begins when the one before it is finished."""

import threading

import pytest
from astropy.time import Time, TimeDelta

from local_cloud.visits import EVENT, detector_visit
from prompt_processing.delivery.memory import MemoryDecisions
from prompt_processing.domain.clock import seconds_between
from prompt_processing.domain.errors import RawError, StoreError
from prompt_processing.domain.outcome import Delivery, Disposition, Outcome
from prompt_processing.domain.raws import parse_raw_key
from prompt_processing.domain.visit import NextVisit
from prompt_processing.ledger.memory import MemoryLedger
from prompt_processing.messaging.memory import MemoryQueue
from prompt_processing.messaging.port import Received
from prompt_processing.night.at_speed import MAX_DELIVERIES, AtSpeed, NotedLanding
from prompt_processing.night.clock import SkippingClock
from prompt_processing.night.files import LocalRaw
from prompt_processing.night.landing import Landing
from prompt_processing.night.plan import Publish, PutImage
from prompt_processing.night.play import NightPlayer, Report
from prompt_processing.storage import object_store
from support.nights import contents

START = Time("2026-03-16T02:00:00", scale="tai")


def body(number):
    return detector_visit(groupId=f"group-{number}").model_dump_json()


class Night:
    """A night, and a worker that is played by the test."""

    def __init__(self, folder):
        self.ledger, self.queue, self.played, self.problems = MemoryLedger(), MemoryQueue(), [], []
        self.clock = SkippingClock(START)
        self.start = float(START.utc.unix)
        self.pace = AtSpeed(
            clock=self.clock,
            publisher=self.queue,
            ledger=self.ledger,
            decisions=MemoryDecisions(),
            on_visit=self.played.append,
        )
        self.noted, self.appeared = [], threading.Event()
        landing = NotedLanding(Landing(object_store.root(folder / "incoming")), self._note, self.appeared.set)
        self.player = NightPlayer(
            folder=folder / "raw",
            landing=landing,
            announce=self.pace.announce,
            pace=self.pace,
            report=Report(progress=lambda *_: None, fault=self.fail, error=self.problems.append),
            threads=1,
        )
        self.actions = [self.event(number, 3600.0 * number) for number in range(2)]

    def event(self, number, after):
        event = NextVisit(**{**EVENT, "groupId": f"group-{number}"})
        return Publish(self.start + after, event.groupId, event, (body(number),))

    def _note(self, key):
        self.noted.append(key)
        self.on_note(key)

    def on_note(self, key):
        """Do what a test wants when a raw is noted."""

    def fail(self, text):
        raise AssertionError(text)

    def play(self):
        self.player.play(self.actions)
        self.pace.finish()

    def finish(self, number):
        """End a visit as a worker would."""
        delivery = Delivery(f"m{number}", body(number))
        claim = self.ledger.claim(detector_visit(groupId=f"group-{number}"), delivery, owner="w")
        self.ledger.record_outcome(claim, Outcome.skipped("no-image"))
        self.pace.on_handled(Received(delivery, "r", 1), Disposition.ACK)

    def give_back(self, number, count):
        self.pace.on_handled(Received(Delivery(f"m{number}", body(number)), "r", count), Disposition.RETRY)

    def next_message(self):
        return self.queue.receive(60.0).delivery.body


@pytest.fixture
def night(tmp_path):
    return Night(tmp_path)


@pytest.fixture
def playing(night):
    thread = threading.Thread(target=night.play, daemon=True)
    thread.start()
    yield thread
    thread.join(timeout=60)
    assert not thread.is_alive()


def test_the_clock_goes_forward_only():
    clock = SkippingClock(START)
    for moment in (START + TimeDelta(3600, format="sec"), START):
        clock.skip_to(moment)
        assert seconds_between(START, clock.now()) == pytest.approx(3600, abs=5)


def test_an_event_is_sent_when_the_one_before_is_finished(night, playing):
    assert "group-0" in night.next_message()
    assert night.queue.receive(0.0) is None
    assert seconds_between(START, night.clock.now()) < 600
    night.finish(0)
    assert "group-1" in night.next_message()
    assert seconds_between(START, night.clock.now()) == pytest.approx(3600, abs=60)
    night.finish(1)
    playing.join()
    assert [str(visit.outcome) for visit in night.played] == ["skipped:no-image"] * 2


def test_a_visit_that_comes_back_too_often_does_not_hold_the_night_up(night, playing):
    night.next_message()
    night.give_back(0, MAX_DELIVERIES)
    assert "group-1" in night.next_message()
    night.finish(1)
    playing.join()
    assert [visit.outcome is None for visit in night.played] == [True, False]


def test_messages_of_others_are_no_concern_of_the_player(night, playing):
    night.next_message()
    night.pace.on_handled(Received(Delivery("x", "not a message"), "r", 1), Disposition.ACK)
    night.finish(0)
    night.finish(1)
    playing.join()
    assert len(night.played) == 2


def test_an_event_that_cannot_be_sent_is_told_and_the_night_goes_on(night, monkeypatch):
    def away(bodies):
        raise StoreError("queue: no answer")

    monkeypatch.setattr(night.queue, "publish", away)
    night.play()
    assert night.problems == ["queue: no answer"] * 2
    assert [visit.outcome for visit in night.played] == [None, None]


def test_a_fault_of_ours_ends_the_night(night, monkeypatch):
    def broken(bodies):
        raise ZeroDivisionError

    monkeypatch.setattr(night.queue, "publish", broken)
    with pytest.raises(ZeroDivisionError):
        night.play()


@pytest.fixture
def with_raws(make_night):
    """A night with one event, an image while its visit is under way, and one much later."""
    made = make_night(2)
    night = Night(made.folder)
    soon, late = map(parse_raw_key, made.keys)
    night.actions = [
        night.event(0, 0.0),
        PutImage(night.start + 0.2, soon),
        PutImage(night.start + 3600, late),
    ]
    night.keys = made.keys
    return night


def run(night):
    thread = threading.Thread(target=night.play, daemon=True)
    thread.start()
    return thread


def test_a_raw_appears_while_its_visit_waits_and_the_others_once_it_is_finished(with_raws):
    thread = run(with_raws)
    with_raws.next_message()
    assert with_raws.appeared.wait(60)
    assert with_raws.noted == with_raws.keys[:1]
    with_raws.finish(0)
    thread.join(60)
    assert with_raws.noted == with_raws.keys
    assert seconds_between(START, with_raws.clock.now()) == pytest.approx(3600, abs=60)


def test_a_late_image_reopens_its_visit_and_the_night_waits_for_that(with_raws):
    visit, reopened = detector_visit(groupId="group-0").key, threading.Event()

    def on_note(key):
        if key == with_raws.keys[1]:
            assert with_raws.ledger.reopen(visit)
            reopened.set()

    with_raws.on_note = on_note
    thread = run(with_raws)
    with_raws.next_message()
    with_raws.finish(0)
    assert reopened.wait(60)
    thread.join(0.3)
    assert thread.is_alive()
    with_raws.finish(0)
    thread.join(60)
    assert not thread.is_alive()
    assert len(with_raws.played) == 1


def test_an_image_is_noted_once_and_one_that_cannot_be_noted_is_there(make_night, tmp_path):
    made = make_night(1)
    noted, hints = [], []

    def note(key):
        noted.append(key)
        raise RawError("no group")

    landing = NotedLanding(Landing(object_store.root(tmp_path / "incoming")), note, lambda: hints.append(1))
    raw = LocalRaw(parse_raw_key(made.keys[0]), made.raws[0])
    assert landing.put_sidecar(raw)
    assert [landing.put_image(raw) for _ in range(2)] == [True, False]
    assert (noted, hints) == (made.keys, [1])
    assert contents(tmp_path / "incoming") == contents(made.folder / "raw")
