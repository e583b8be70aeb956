"""Noting raws: by a watcher of the landing folder, and whatever stores do meanwhile."""

import json
import queue
import threading

import pytest

from local_cloud.visits import EVENT, detector_visit
from prompt_processing.arrivals.note import note_arrival
from prompt_processing.arrivals.pointers import Arrivals
from prompt_processing.arrivals.watch import ArrivalWatcher
from prompt_processing.domain.clock import WallClock
from prompt_processing.domain.errors import RawError, StoreError
from prompt_processing.domain.outcome import Delivery, Outcome
from prompt_processing.domain.visit import parse_message
from prompt_processing.ledger.memory import MemoryLedger
from prompt_processing.messaging.memory import MemoryQueue
from prompt_processing.storage import object_store

KEY = "LATISS/20260201/AT_O_20260201_000001/AT_O_20260201_000001_R00_S00.fits"
OTHER = KEY.replace("000001", "000002")


class Landing:
    """A landing store with all that notes what arrives in it."""

    def __init__(self, folder):
        self.folder = folder / "incoming"
        self.folder.mkdir()
        self.arrivals = Arrivals(
            object_store.root(self.folder), object_store.root(folder / "arrivals"), WallClock()
        )
        self.ledger, self.queue = MemoryLedger(), MemoryQueue()

    def put(self, key, group=EVENT["groupId"]):
        path = self.folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        if group is not None:
            path.with_suffix(".json").write_text(json.dumps({"GROUPID": group}))
        path.write_bytes(b"")

    def note(self, key=KEY):
        note_arrival(key, self.arrivals, self.ledger, self.queue)

    def give_up(self):
        visit = detector_visit()
        claim = self.ledger.claim(visit, Delivery("m", visit.model_dump_json()), owner="w")
        self.ledger.record_outcome(claim, Outcome.skipped("no-image"))

    @property
    def pointer(self):
        return self.arrivals.find(detector_visit(), 0)


@pytest.fixture
def landing(tmp_path):
    return Landing(tmp_path)


def test_a_raw_gets_a_pointer_and_is_known_to_the_ledger_once(landing):
    landing.put(KEY)
    landing.note()
    landing.note()
    assert landing.pointer.key == KEY
    assert [record.visit for record in landing.ledger.arrivals()] == [detector_visit().key]
    assert landing.queue.receive(0.0) is None


def test_what_is_no_raw_is_nobodys_business(landing):
    landing.put("notes.txt", group=None)
    landing.note("notes.txt")
    assert landing.ledger.arrivals() == []


def test_a_late_raw_brings_its_visit_back_once(landing):
    landing.give_up()
    landing.put(KEY)
    landing.note()
    landing.note()
    assert parse_message(landing.queue.receive(0.0).delivery.body).key == detector_visit().key
    assert landing.queue.receive(0.0) is None


def test_a_second_raw_of_a_snap_is_not_used(landing):
    landing.put(KEY)
    landing.note()
    landing.put(OTHER)
    landing.note(OTHER)
    assert landing.pointer.key == KEY


def test_a_ledger_that_does_not_answer_leaves_the_raw_for_the_next_listing(landing, monkeypatch):
    landing.put(KEY)
    record = landing.ledger.record_arrival
    monkeypatch.setattr(landing.ledger, "record_arrival", _away)
    with pytest.raises(StoreError):
        landing.note()
    assert landing.arrivals.list_new() == [KEY]
    monkeypatch.setattr(landing.ledger, "record_arrival", record)
    landing.note()
    assert landing.arrivals.list_new() == []
    assert len(landing.ledger.arrivals()) == 1


def _away(*_):
    raise StoreError("the ledger is away")


class Watching:
    """A watcher whose notes can be awaited."""

    def __init__(self, landing, **options):
        self.noted, self.hints = queue.Queue(), threading.Semaphore(0)
        self.problems = []
        self._landing = landing
        self.watcher = ArrivalWatcher(
            incoming=landing.folder,
            arrivals=landing.arrivals,
            note=self._note,
            hint=self.hints.release,
            **{"listing_interval": 600.0, **options},
        )

    def _note(self, key):
        if self.problems:
            raise self.problems.pop()
        self._landing.note(key)
        self.noted.put(key)


def test_what_is_there_at_the_start_and_what_comes_later_is_noted(landing):
    landing.put(KEY)
    watching = Watching(landing)
    with watching.watcher:
        assert watching.noted.get(timeout=60) == KEY
        assert watching.hints.acquire(timeout=60)
        landing.put(OTHER, group="another")
        assert watching.noted.get(timeout=60) == OTHER
        assert watching.hints.acquire(timeout=60)


def test_a_raw_whose_note_has_failed_is_found_by_the_listing(landing):
    watching = Watching(landing, listing_interval=0.1)
    watching.problems = [StoreError("away"), StoreError("away")]
    landing.put(KEY)
    with watching.watcher:
        assert watching.noted.get(timeout=60) == KEY


def test_a_raw_that_cannot_be_used_does_not_stop_the_next_one(landing):
    watching = Watching(landing)
    watching.problems = [RawError("no group")]
    landing.put(KEY)
    with watching.watcher:
        wait = threading.Event()
        while watching.problems:
            wait.wait(0.01)
        landing.put(OTHER)
        assert watching.noted.get(timeout=60) == OTHER
