"""The player's view of a worker: when a night goes on."""

import threading

import pytest

from local_cloud.visits import EVENT, detector_visit
from prompt_processing.delivery.memory import MemoryDecisions
from prompt_processing.domain.clock import from_tai_seconds
from prompt_processing.domain.outcome import Delivery, Disposition, Outcome
from prompt_processing.domain.visit import NextVisit
from prompt_processing.ledger.memory import MemoryLedger
from prompt_processing.messaging.memory import MemoryQueue
from prompt_processing.messaging.port import Received
from prompt_processing.night.camera import SkippingClock
from prompt_processing.night.player import MAX_DELIVERIES, NightPlayer, Stage


class Night:
    """A night with two events and no image, and a worker that is played by the test."""

    def __init__(self, folder):
        (folder / "raw").mkdir()
        self.ledger, self.queue, self.played, self.problems = MemoryLedger(), MemoryQueue(), [], []
        events = [NextVisit(**{**EVENT, "groupId": f"group-{number}"}) for number in range(2)]
        stage = Stage(
            publisher=self.queue,
            hint=lambda: None,
            note_arrival=lambda _: None,
            ledger=self.ledger,
            decisions=MemoryDecisions(),
            incoming=folder / "incoming",
        )
        clock = SkippingClock(from_tai_seconds(EVENT["startTime"]))
        self.player = NightPlayer(night=folder, events=events, clock=clock, stage=stage)

    def play(self):
        self.player.play(on_visit=self.played.append, on_error=self.problems.append)

    def finish(self, number):
        """End a visit as a worker would."""
        visit = detector_visit(groupId=f"group-{number}")
        delivery = Delivery(f"m{number}", visit.model_dump_json())
        self.ledger.record_outcome(self.ledger.claim(visit, delivery, owner="w"), Outcome.skipped("no-image"))
        self.player.on_handled(Received(delivery, "r", 1), Disposition.ACK)

    def give_back(self, number, count):
        delivery = Delivery(f"m{number}", detector_visit(groupId=f"group-{number}").model_dump_json())
        self.player.on_handled(Received(delivery, "r", count), Disposition.RETRY)


@pytest.fixture
def night(tmp_path):
    return Night(tmp_path)


@pytest.fixture
def playing(night):
    thread = threading.Thread(target=night.play, daemon=True)
    thread.start()
    yield thread
    assert not thread.is_alive()


def next_message(night):
    return night.queue.receive(60.0).delivery.body


def test_an_event_is_sent_when_the_one_before_is_finished(night, playing):
    assert "group-0" in next_message(night)
    assert night.queue.receive(0.0) is None
    night.finish(0)
    assert "group-1" in next_message(night)
    night.finish(1)
    playing.join()
    assert [str(visit.outcome) for visit in night.played] == ["skipped:no-image"] * 2


def test_a_visit_that_comes_back_too_often_does_not_hold_the_night_up(night, playing):
    next_message(night)
    night.give_back(0, MAX_DELIVERIES)
    assert "group-1" in next_message(night)
    night.finish(1)
    playing.join()
    assert [visit.outcome is None for visit in night.played] == [True, False]


def test_messages_of_others_are_no_concern_of_the_player(night, playing):
    next_message(night)
    night.player.on_handled(Received(Delivery("x", "not a message"), "r", 1), Disposition.ACK)
    night.finish(0)
    night.finish(1)
    playing.join()
    assert len(night.played) == 2
