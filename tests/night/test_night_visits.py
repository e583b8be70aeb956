"""The visits of a night, and their cadence."""

from itertools import islice
from statistics import median

import pytest

from prompt_processing.domain.clock import WallClock, utc_seconds
from prompt_processing.domain.errors import RepositoryError
from prompt_processing.domain.visit import parse_event
from prompt_processing.night.clock import clock_for
from prompt_processing.night.folder import read_night
from prompt_processing.night.plan import Timing, plan
from prompt_processing.night.visits import gather_visits, lsstcam_cadence, regular_cadence, respace

TAI_UTC = 37.0
OPENS = 1773626400.0 - TAI_UTC
"""2026-03-16T02:00:00 TAI in UTC seconds: the first shutter of the night opens."""


def silent(text):
    raise AssertionError(text)


def test_times_come_from_the_headers(make_night):
    visits = read_night(make_night().folder, silent)
    assert [visit.opens - OPENS for visit in visits] == pytest.approx([0.0, 30.0, 60.0], abs=1e-5)
    # Predicted is the close for 1.6 s after the opening, the header says 1 s.
    assert [visit.closes - visit.opens for visit in visits] == pytest.approx([1.6] * 3)
    assert [visit.read_outs[0].at - visit.opens for visit in visits] == pytest.approx([3.0] * 3)


def test_without_a_readable_raw_times_come_from_the_event(make_night):
    night = make_night(2)
    night.raws[0].write_bytes(b"")
    night.raws[1].unlink()
    damaged, absent = read_night(night.folder, silent)
    assert (damaged.opens - OPENS, absent.opens - OPENS) == pytest.approx((-0.4, 29.6))
    assert [str(each.raw) for each in damaged.read_outs] == night.keys[:1]
    assert damaged.read_outs[0].at - OPENS == pytest.approx(1.6 + 2.0)
    assert absent.read_outs == ()


def test_a_raw_without_an_event_is_a_visit_of_its_own(make_night):
    night = make_night(2)
    events = (night.folder / "events.jsonl").read_text().splitlines()
    (night.folder / "events.jsonl").write_text(events[0])
    announced, unannounced = read_night(night.folder, silent)
    assert (len(announced.events), len(unannounced.events)) == (1, 0)
    assert unannounced.opens - OPENS == pytest.approx(30.0)


def test_an_event_that_is_no_observation_is_no_visit(make_night):
    line = (make_night(1).folder / "events.jsonl").read_text()
    event = parse_event(line)
    assert len(gather_visits([event], [])) == 1
    assert gather_visits([event.model_copy(update={"instrument": ""})], []) == []


def test_a_night_without_events_is_told(make_night):
    with pytest.raises(RepositoryError, match="no event"):
        read_night(make_night(events=False).folder, silent)


def test_a_cadence_moves_events_and_raws_alike(make_night):
    before = read_night(make_night().folder, silent)
    after = respace(before, regular_cadence(10.0))
    assert [visit.opens - OPENS for visit in after] == pytest.approx([0.0, 10.0, 20.0], abs=1e-5)
    for old, new, shift in zip(before, after, [0.0, -20.0, -40.0], strict=True):
        assert new.read_outs[0].at - old.read_outs[0].at == pytest.approx(shift)
        assert new.closes - old.closes == pytest.approx(shift)
        (event,), (moved,) = old.events, new.events
        for name in ("startTime", "private_sndStamp", "private_efdStamp"):
            assert getattr(moved, name) - getattr(event, name) == pytest.approx(shift)
        assert moved.groupId == event.groupId


def test_the_cadence_of_lsstcam():
    intervals = list(islice(lsstcam_cadence(0), 2000))
    assert min(intervals) > 32.4
    assert median(intervals) == pytest.approx(34.0, abs=0.2)
    assert max(intervals) > 45.0
    assert intervals[:5] == list(islice(lsstcam_cadence(0), 5)) != list(islice(lsstcam_cadence(1), 5))


def test_the_clock_shows_the_time_of_the_first_action_after_a_while(make_night):
    visits = read_night(make_night(1).folder, silent)
    actions = plan(visits, timing=Timing(), faults={}, seed=0, on_error=silent)
    clock = clock_for(actions, 5.0)
    assert actions[0].at - utc_seconds(clock.now()) == pytest.approx(5.0, abs=1.0)
    assert clock.offset == round(clock.offset, 3)
    assert clock.offset == pytest.approx(actions[0].at - 5.0 - utc_seconds(WallClock().now()), abs=1.0)
