"""A night is played at its times; waiting is done by the test."""

import threading

import pytest
from astropy.time import Time

from prompt_processing.domain.errors import StoreError
from prompt_processing.domain.visit import parse_message
from prompt_processing.night.folder import read_night
from prompt_processing.night.landing import Landing
from prompt_processing.night.plan import Fault, Timing, plan
from prompt_processing.night.play import LONGEST_WAIT, NightPlayer, RealTime, Report
from prompt_processing.storage import object_store
from support.nights import contents

OPENS = 1773626400.0 - 37.0
"""2026-03-16T02:00:00 TAI in UTC seconds: the first shutter of the night opens."""


class Clock:
    """Shows what the one who waits has waited."""

    def __init__(self, seconds):
        self.seconds = seconds

    def now(self):
        return Time(self.seconds, format="unix", scale="utc")

    def wait(self, seconds):
        assert 0 < seconds <= LONGEST_WAIT
        self.seconds += seconds


class Recorder:
    """Queue and landing store that note when what came."""

    def __init__(self, clock, incoming):
        self._clock = clock
        self._lock = threading.Lock()
        self.noted = []
        self.fails = set()
        recorder = self

        class RecordingLanding(Landing):
            def put_sidecar(self, file):
                recorder.note("sidecar", file.raw.obs_id[-1])
                return super().put_sidecar(file)

            def put_image(self, file, keep=1.0):
                recorder.note("image", file.raw.obs_id[-1])
                return super().put_image(file, keep)

        self.landing = RecordingLanding(object_store.root(incoming))

    def announce(self, action):
        for body in action.bodies:
            self.note("message", parse_message(body).groupId[-5])

    def note(self, what, which):
        with self._lock:
            self.noted.append((what, int(which), round(self._clock.seconds - OPENS)))
        if what in self.fails:
            raise StoreError(f"{what} {which}: no answer")

    def of(self, what):
        return [entry for entry in self.noted if entry[0] == what]


class Stage:
    def __init__(self, night, incoming):
        self.night = night
        self.clock = Clock(OPENS - 100.0)
        self.recorder = Recorder(self.clock, incoming)
        self.progress, self.faults, self.errors = [], [], []

    def play(self, **faults):
        actions = plan(
            read_night(self.night.folder, self.errors.append),
            timing=Timing(jitter=0.0),
            faults={Fault(name.replace("_", "-")): fraction for name, fraction in faults.items()},
            seed=0,
            on_error=self.errors.append,
        )
        player = NightPlayer(
            folder=self.night.folder / "raw",
            landing=self.recorder.landing,
            announce=self.recorder.announce,
            pace=RealTime(self.clock, self.clock.wait),
            report=Report(
                progress=lambda *step: self.progress.append(step),
                fault=self.faults.append,
                error=self.errors.append,
            ),
            threads=3,
        )
        return player.play(actions)


@pytest.fixture
def incoming(tmp_path):
    return tmp_path / "incoming"


@pytest.fixture
def stage(make_night, incoming):
    return Stage(make_night(cadence=100.0), incoming)


def test_everything_appears(stage, incoming):
    played = stage.play()
    assert contents(incoming) == contents(stage.night.folder / "raw")
    assert (played.events, played.messages, played.images) == (3, 3, 3)
    assert (played.there, played.lost, played.failed) == (0, 0, 0)
    assert stage.progress[-1] == ("play", 9, 9)
    assert stage.errors == stage.faults == []


def test_nothing_happens_before_its_time(stage):
    stage.play()
    # An entry may be late, because the clock of this test does not wait for those who work.
    due = {"message": -20, "sidecar": 3, "image": 3}
    for what, offset in due.items():
        for number, (_, _, at) in enumerate(sorted(stage.recorder.of(what), key=lambda entry: entry[1])):
            assert at >= offset + 100 * number


def test_sidecars_come_first_and_events_in_order(stage):
    stage.play()
    assert [which for _, which, _ in stage.recorder.of("message")] == [0, 1, 2]
    order = [(what, which) for what, which, _ in stage.recorder.noted if what != "message"]
    for which in (1, 2, 3):
        assert order.index(("sidecar", which)) < order.index(("image", which))


def test_the_sidecar_of_an_image_out_of_order_comes_second(stage, incoming):
    stage.play(out_of_order=1.0)
    order = [(what, which) for what, which, _ in stage.recorder.noted if what != "message"]
    for which in (1, 2, 3):
        assert order.index(("image", which)) < order.index(("sidecar", which))
    assert contents(incoming) == contents(stage.night.folder / "raw")


def test_faults_are_told_when_they_happen(stage, incoming):
    played = stage.play(duplicate=1.0, truncated=1.0)
    assert (played.events, played.images, played.there, played.failed) == (6, 3, 3, 0)
    assert stage.faults.count(f"duplicate, truncated: {stage.night.keys[0]}") == 1
    assert stage.faults.count(f"duplicate, truncated: {stage.night.keys[0]} (there already)") == 1
    assert stage.faults.count(f"duplicate: event of group {stage.night.groups[0]}") == 2
    for key, raw in zip(stage.night.keys, stage.night.raws, strict=True):
        part, whole = (incoming / key).read_bytes(), raw.read_bytes()
        assert 0 < len(part) < len(whole)
        assert whole.startswith(part)


def test_lost_raws_do_not_appear(stage, incoming):
    played = stage.play(lost=1.0)
    assert (played.events, played.images, played.lost) == (3, 0, 3)
    assert not incoming.exists()
    assert sorted(stage.faults) == [f"lost: {key}" for key in stage.night.keys]


def test_playing_again_into_the_same_store_changes_nothing(stage, incoming):
    stage.play()
    before = contents(incoming)
    again = Stage(stage.night, incoming)
    played = again.play()
    assert (played.events, played.images, played.there) == (3, 0, 3)
    assert contents(incoming) == before


def test_one_failure_stops_nothing_else(stage, incoming):
    stage.recorder.fails = {"message", "sidecar"}
    played = stage.play()
    assert (played.events, played.images, played.failed) == (0, 3, 6)
    assert sorted(stage.errors) == sorted(
        [f"message {which}: no answer" for which in (0, 1, 2)]
        + [f"sidecar {which}: no answer" for which in (1, 2, 3)]
    )


def test_a_fault_of_ours_is_not_swallowed(stage, monkeypatch):
    def broken(file, keep=1.0):
        raise ZeroDivisionError

    monkeypatch.setattr(stage.recorder.landing, "put_image", broken)
    with pytest.raises(ZeroDivisionError):
        stage.play()


def test_what_is_past_is_done_at_once_and_told(stage):
    stage.clock.seconds = OPENS + 1000.0
    played = stage.play()
    assert stage.clock.seconds == OPENS + 1000.0
    assert played.behind == pytest.approx(1020.0)
    assert (played.events, played.images) == (3, 3)


def test_an_interruption_ends_it(stage, incoming):
    def interrupted(seconds):
        raise KeyboardInterrupt

    stage.clock.wait = interrupted
    with pytest.raises(KeyboardInterrupt):
        stage.play()
    assert stage.recorder.noted == []
