"""The flow of a record, with neighbours that fail: nothing is lost, whatever happens."""

import threading
import time
from collections import Counter
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local_cloud.visits import EVENT
from prompt_processing.bridge import bridge as module
from prompt_processing.bridge.bridge import Handled
from prompt_processing.bridge.dead_letters import error_of, unwrap
from prompt_processing.bridge.metrics import BridgeMetrics
from prompt_processing.bridge.records import Record
from prompt_processing.domain.clock import utc_seconds
from prompt_processing.domain.errors import RefusedMessageError, StoreError
from prompt_processing.domain.visit import NextVisitCanceled, parse_event, parse_message
from support.bridge import VISITS, Letters, Log, LogSource, Observatory, Sink, make_bridge
from support.points import TestClock


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.0)
    monkeypatch.setattr(module, "LONGEST_PAUSE", 0.0)


@pytest.fixture
def log():
    return Log()


@pytest.fixture
def observatory(log):
    return Observatory(log)


def visit(group, **changes):
    return parse_event({**EVENT, "groupId": group, "instrument": "LSSTCam", "salIndex": 1, **changes})


def keys(sink):
    return Counter((message.groupId, message.detector) for message in map(parse_message, sink.bodies))


def expected(*groups):
    return {(group, detector) for group in groups for detector in (93, 94, 95)}


def test_each_message_tells_where_it_comes_from(log, observatory):
    observatory.announce(visit("a"))
    observatory.announce(NextVisitCanceled(salIndex=1, scriptSalIndex=3, groupId="b", private_efdStamp=1.0))
    sink = Sink()
    make_bridge(LogSource(log), observatory, sink, Letters()).run(threading.Event())
    assert [parse_message(body).kind for body in sink.bodies] == ["visit"] * 3 + ["cancel"]
    assert log.committed == 2
    first, *_, last = sink.origins
    assert (first["source_topic"], first["source_partition"], first["source_offset"]) == (VISITS, "0", "0")
    assert (last["source_topic"], last["source_offset"]) == ("cancellations", "1")
    assert first["traceparent"] != last["traceparent"]


def test_a_trace_goes_on_and_is_else_the_same_whoever_sends(log, observatory):
    observatory.announce(visit("a"))
    (record,) = log.records
    given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    traces = []
    for headers in ({}, {}, {"traceparent": given.encode()}, {"traceparent": b"\xff"}):
        log.records = [Record(record.topic, 0, 0, record.value, 0.0, headers)]
        log.committed = 0
        sink = Sink()
        make_bridge(LogSource(log), observatory, sink, Letters()).run(threading.Event())
        traces += {origin["traceparent"] for origin in sink.origins}
    assert traces[0] == traces[1] == traces[3] != given
    assert traces[2] == given


def test_events_that_nobody_gets_are_counted_by_their_reason(log, observatory):
    for changes in ({"instrument": ""}, {"instrument": ""}, {"instrument": "HSC"}, {"salIndex": 999}):
        observatory.announce(visit("x", **changes))
    observatory.announce(visit("a"))
    sink, metrics = Sink(), BridgeMetrics()
    make_bridge(LogSource(log), observatory, sink, Letters(), metrics=metrics).run(threading.Event())
    assert keys(sink).keys() == expected("a")
    assert log.committed == 5
    page = metrics.page().decode()
    assert 'bridge_skipped_total{reason="no-instrument"} 2.0' in page
    assert 'bridge_skipped_total{reason="unknown-instrument"} 1.0' in page
    assert 'bridge_skipped_total{reason="test-queue"} 1.0' in page
    assert 'bridge_fanout_messages_total{kind="visit"} 3.0' in page


def test_what_cannot_be_read_is_kept_and_the_next_visit_goes_on(log, observatory):
    log.append(VISITS, b"junk")
    log.append(VISITS, None)
    observatory.announce(visit("a", position=[0.0, 99.0]))
    observatory.announce(visit("b"))
    sink, letters = Sink(), Letters()
    make_bridge(LogSource(log), observatory, sink, letters).run(threading.Event())
    assert keys(sink).keys() == expected("b")
    assert log.committed == 4
    values = [record.value for record in log.records[:3]]
    assert [letter.value for letter in letters.written] == values
    read = [Record("letters", 0, n, each.value, 9.0, each.headers) for n, each in enumerate(letters.written)]
    assert [unwrap(letter) for letter in read] == log.records[:3]
    assert "declination 99" in error_of(read[2])


def test_it_is_told_what_became_of_each_record(log, observatory):
    log.append(VISITS, b"junk")
    observatory.announce(visit("x", salIndex=999))
    observatory.announce(visit("a"))
    observatory.announce(visit("b"))
    stop, told = threading.Event(), []

    def away_in_the_end(number):
        if told[-1] is Handled.SENT:
            stop.set()
            raise StoreError("away")

    sink = Sink(away_in_the_end)
    make_bridge(LogSource(log), observatory, sink, Letters()).run(stop, told.append)
    assert told == [Handled.UNSENDABLE, Handled.SKIPPED, Handled.SENT, Handled.LEFT]
    assert log.committed == 3


def test_what_the_sink_will_never_take_is_kept(log, observatory):
    def refuse(number):
        if number == 1:
            raise RefusedMessageError("too large")

    observatory.announce(visit("a"))
    letters = Letters()
    make_bridge(LogSource(log), observatory, Sink(refuse), letters).run(threading.Event())
    assert log.committed == 1
    assert len(letters.written) == 1


def test_a_letter_that_is_too_large_keeps_its_place(log, observatory):
    class Small(Letters):
        def write(self, records):
            if any(record.value for record in records):
                raise RefusedMessageError("too large")
            super().write(records)

    log.append(VISITS, b"x" * 100)
    letters = Small()
    make_bridge(LogSource(log), observatory, Sink(), letters).run(threading.Event())
    (letter,) = letters.written
    place = unwrap(Record("letters", 0, 0, letter.value, 9.0, letter.headers))
    assert (place.topic, place.offset, place.value) == (VISITS, 0, None)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_nothing_is_lost_and_nothing_committed_early_whatever_fails(data):
    """Any neighbour may fail at any call, and the bridge may be killed at any call."""
    log = Log()
    observatory = Observatory(log)
    kinds = data.draw(st.lists(st.sampled_from(["visit", "junk", "skip"]), min_size=1, max_size=6))
    for number, kind in enumerate(kinds):
        if kind == "junk":
            log.append(VISITS, b"junk")
        else:
            observatory.announce(visit(str(number), **({"salIndex": 999} if kind == "skip" else {})))
    wanted = [str(number) for number, kind in enumerate(kinds) if kind == "visit"]
    faults = iter(data.draw(st.lists(st.sampled_from(["fail", "kill", "", "", ""]), max_size=30)))

    def maybe_fail(*_):
        match next(faults, ""):
            case "fail":
                raise StoreError("away")
            case "kill":
                raise Killed

    letters, sink, early = Letters(maybe_fail), Sink(maybe_fail), []

    class Watched(LogSource):
        def done(self, record):
            super().done(record)
            group = str(record.offset)
            if kinds[record.offset] == "visit" and not expected(group) <= keys(sink).keys():
                early.append(record)

    while log.committed < len(log.records):
        with suppress(Killed):
            make_bridge(Watched(log, maybe_fail), observatory, sink, letters).run(threading.Event())
    assert not early
    assert keys(sink).keys() == expected(*wanted)
    assert {unwrap_offset(letter) for letter in letters.written} == {
        number for number, kind in enumerate(kinds) if kind == "junk"
    }


class Killed(BaseException):
    """The process is gone."""


def unwrap_offset(letter):
    return unwrap(Record("letters", 0, 0, letter.value, 9.0, letter.headers)).offset


def test_an_event_does_not_become_too_old_while_it_is_in_hand(log, observatory):
    clock = TestClock()
    observatory.announce(visit("a", private_efdStamp=utc_seconds(clock.now())))
    failing = iter([True, True])

    def away(number):
        if number == 1 and next(failing, False):
            clock.advance(100.0)
            raise StoreError("away")

    sink = Sink(away)
    bridge = make_bridge(LogSource(log), observatory, sink, Letters(), expiry=50.0, clock=clock)
    bridge.run(threading.Event())
    assert keys(sink).keys() == expected("a")


def test_a_letter_whose_headers_are_too_large_keeps_its_place(log, observatory):
    class Small(Letters):
        def write(self, records):
            if any("big" in record.headers for record in records):
                raise RefusedMessageError("too large")
            super().write(records)

    log.records.append(Record(VISITS, 0, 0, b"junk", 0.0, {"big": b"x" * 100}))
    letters = Small()
    make_bridge(LogSource(log), observatory, Sink(), letters).run(threading.Event())
    assert unwrap_offset(letters.written[0]) == 0


def test_time_is_up_once_for_all_that_a_record_asks_for(log, observatory, monkeypatch):
    """A sink that ends at the last moment does not give the commit the same time again."""
    observatory.announce(visit("a"))
    stop = threading.Event()

    def away(method):
        if method == "done":
            raise StoreError("away")

    sink = Sink(lambda _: stop.set())
    began = time.monotonic()
    make_bridge(LogSource(log, away), observatory, sink, Letters(), drain=60.0).run(stop)
    assert time.monotonic() - began < 30.0
    assert log.committed == 0


def test_the_group_hears_of_a_bridge_whose_sink_is_slow(log, observatory, monkeypatch):
    monkeypatch.setattr(module, "KEEP", 0.01)
    observatory.announce(visit("a"))
    source = LogSource(log)
    sink = Sink(lambda _: source.kept.wait(10.0) or pytest.fail("not kept"))
    make_bridge(source, observatory, sink, Letters()).run(threading.Event())
    assert log.committed == 1


def test_a_record_that_is_anothers_by_now_is_left_to_it(log, observatory, monkeypatch):
    monkeypatch.setattr(module, "KEEP", 0.01)
    observatory.announce(visit("a"))
    observatory.announce(visit("b"))
    source, calls = LogSource(log), []

    def slow(number):
        calls.append(number)
        if len(calls) == 1:
            source.ours = False
            source.kept.clear()
            assert source.kept.wait(10.0)

    sink = Sink(slow)
    make_bridge(source, observatory, sink, Letters()).run(threading.Event())
    # It was given the same record again, as nobody else was there to take it.
    assert log.committed == 2
    assert keys(sink).keys() == expected("a", "b")


def test_a_stopped_bridge_finishes_the_record_in_hand_and_no_other(log, observatory):
    for group in ("a", "b"):
        observatory.announce(visit(group))
    stop = threading.Event()
    sink, source = Sink(lambda _: stop.set()), LogSource(log)
    make_bridge(source, observatory, sink, Letters(), drain=10.0).run(stop)
    assert keys(sink).keys() == expected("a")
    assert log.committed == 1
    assert source.closed


def test_a_stopped_bridge_does_not_wait_for_a_sink_that_hangs(log, observatory, monkeypatch):
    monkeypatch.setattr(module, "KEEP", 0.05)
    observatory.announce(visit("a"))
    stop, never = threading.Event(), threading.Event()
    sink = Sink(lambda _: stop.set() or never.wait(60.0))
    make_bridge(LogSource(log), observatory, sink, Letters(), drain=0.1).run(stop)
    assert log.committed == 0
    never.set()


def test_a_stopped_bridge_does_not_wait_for_a_sink_that_is_away(log, observatory, monkeypatch):
    monkeypatch.setattr(module, "FIRST_PAUSE", 60.0)
    monkeypatch.setattr(module, "LONGEST_PAUSE", 60.0)
    observatory.announce(visit("a"))
    stop = threading.Event()

    def away(number):
        threading.Timer(0.05, stop.set).start()
        raise StoreError("away")

    make_bridge(LogSource(log), observatory, Sink(away), Letters()).run(stop)
    assert log.committed == 0


def test_the_pauses_between_attempts_double_up_to_a_limit(log, observatory, monkeypatch):
    monkeypatch.setattr(module, "FIRST_PAUSE", 1.0)
    monkeypatch.setattr(module, "LONGEST_PAUSE", 10.0)
    spans = []
    monkeypatch.setattr(module.random, "uniform", lambda *span: spans.append(span) or 0.0)
    failures = iter(range(6))

    def away(number):
        if next(failures, None) is not None:
            raise StoreError("away")

    observatory.announce(visit("a"))
    make_bridge(LogSource(log), observatory, Sink(away), Letters()).run(threading.Event())
    assert spans == [(0.5, 1.0), (1.0, 2.0), (2.0, 4.0), (4.0, 8.0), (5.0, 10.0), (5.0, 10.0)]


def test_a_fault_of_ours_is_tried_again_and_loses_nothing(log, observatory):
    faults = iter([ZeroDivisionError("ours"), None])

    def ours(number):
        if error := next(faults, None):
            raise error

    observatory.announce(visit("a"))
    sink, metrics = Sink(ours), BridgeMetrics()
    make_bridge(LogSource(log), observatory, sink, Letters(), metrics=metrics).run(threading.Event())
    assert keys(sink).keys() == expected("a")
    assert "bridge_retries_total 1.0" in metrics.page().decode()
