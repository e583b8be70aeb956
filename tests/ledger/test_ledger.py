"""What every ledger promises, on each of them."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import pytest

from local_cloud.visits import detector_visit
from prompt_processing.domain.errors import (
    DrainedError,
    EngineLostError,
    ImageArrivedError,
    NoTemplateError,
    StaleClaimError,
    StoreError,
)
from prompt_processing.domain.outcome import Delivery, Outcome, StageTimes
from prompt_processing.domain.raws import ArrivalPointer
from prompt_processing.domain.visit import DetectorVisitKey
from prompt_processing.ledger.memory import MemoryLedger
from prompt_processing.ledger.nights import every
from prompt_processing.ledger.port import Busy, Claim, DecisionSummary, Done, NightSummary, Page
from prompt_processing.ledger.sql import SqlLedger
from prompt_processing.storage import database

DELIVERY = Delivery("m-1", "{}")
NO_IMAGE = Outcome.skipped("no-image", "nothing within 60 s")
OVER = -1.0
"""Lease of a claim that is over at once."""


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def ledger(request, tmp_path):
    if request.param == "memory":
        yield MemoryLedger()
        return
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/ledger.sqlite3"
    else:
        url = request.getfixturevalue("postgres_url")
    engine = database.engine(url)
    yield SqlLedger(engine)
    engine.dispose()


@pytest.fixture
def clock_off(monkeypatch):
    """A context in which the clock of this process is wrong by some seconds; that of the database is not."""

    @contextmanager
    def off(skew):
        right, right_ns = time.time, time.time_ns
        with monkeypatch.context() as patched:
            patched.setattr(time, "time", lambda: right() + skew)
            patched.setattr(time, "time_ns", lambda: right_ns() + int(skew * 1e9))
            yield

    return off


def visit(group="g#1", detector=0, instrument="LATISS"):
    return detector_visit(groupId=group, detector=detector, instrument=instrument)


def pointer(key="LATISS/x_0.fits", group="g#1"):
    return ArrivalPointer(
        key=key,
        generation=7,
        size=8,
        exposure_id=2026031500001,
        obs_id="AT_O_20260315_000001",
        group=group,
        snap=0,
        arrived_at="2026-03-16T02:00:00.000",
    )


def claim(ledger, subject=None, owner="w-1", **options):
    made = ledger.claim(subject or visit(), DELIVERY, owner=owner, **options)
    assert isinstance(made, Claim)
    return made


def test_a_visit_goes_from_claim_to_outcome(ledger):
    first = claim(ledger)
    assert (first.attempt, first.visit, first.message_id) == (1, visit().key, "m-1")
    assert ledger.find(visit().key).outcome is None
    assert ledger.counts() == {"queued": 1}
    ledger.check(first)
    times = StageTimes({"preload": 1.5, "isr": 0.25, "alerts": 0.1}, latency=21.5)
    ledger.record_times(first, StageTimes({"preload": 1.5}))
    ledger.record_times(first, times)
    ledger.record_outcome(first, Outcome.processed("late"))
    found = ledger.find(visit().key)
    assert found.visit == visit()
    assert found.outcome == Outcome.processed("late")
    assert found.times == times
    assert list(found.times.seconds) == ["preload", "isr", "alerts"]
    assert found.attempts[0].ended_at >= found.attempts[0].started_at
    assert ledger.counts() == {"processed": 1}


def test_what_is_finished_is_done(ledger):
    first = claim(ledger)
    outcome = Outcome.failed(NoTemplateError("nothing at (10, -20)"))
    ledger.record_outcome(first, outcome)
    assert ledger.claim(visit(), Delivery("m-2", "{}"), owner="w-2") == Done(outcome, 1)
    assert ledger.counts() == {"failed:no-template": 1}


def test_a_live_claim_is_respected(ledger):
    claim(ledger)
    assert ledger.claim(visit(), Delivery("m-2", "{}"), owner="w-2") == Busy("w-1", "m-1")
    # Another detector of the same visit is other work.
    assert claim(ledger, visit(detector=1), owner="w-2").attempt == 1


def test_a_claim_ends_with_its_lease_and_its_owner_can_write_nothing_more(ledger):
    first = claim(ledger, lease=OVER)
    second = claim(ledger, owner="w-2")
    assert second.attempt == 2
    for write in (
        lambda: ledger.check(first),
        lambda: ledger.renew(first),
        lambda: ledger.record_step(first, "decision"),
        lambda: ledger.record_times(first, StageTimes({"x": 1.0})),
        lambda: ledger.record_outcome(first, Outcome.processed()),
    ):
        with pytest.raises(StaleClaimError):
            write()
    ledger.release(first, StoreError("no answer"), StageTimes({"x": 1.0}))
    ledger.check(second)
    found = ledger.find(visit().key)
    assert (found.outcome, found.steps, found.working) == (None, (), "w-2")
    assert [attempt.owner for attempt in found.attempts] == ["w-1", "w-2"]
    assert [attempt.error for attempt in found.attempts] == [None, None]
    assert not found.times.seconds


def test_a_lease_that_is_renewed_goes_on(ledger):
    first = claim(ledger, lease=OVER)
    assert ledger.find(visit().key).working is None
    ledger.renew(first)
    assert ledger.find(visit().key).working == "w-1"
    assert ledger.claim(visit(), Delivery("m-2", "{}"), owner="w-2") == Busy("w-1", "m-1")


def test_steps_are_kept_for_the_next_attempt(ledger):
    first = claim(ledger, lease=OVER)
    assert first.steps == frozenset()
    for step in ("decision", "apdb", "decision"):
        ledger.record_step(first, step)
    second = claim(ledger, owner="w-2")
    assert second.steps == {"decision", "apdb"}
    ledger.record_step(second, "apdb")
    ledger.record_step(second, "alerts")
    assert ledger.find(visit().key).steps == ("decision", "apdb", "alerts")


def test_attempts_that_were_lost_are_counted_until_there_is_an_outcome(ledger):
    assert claim(ledger, lease=OVER).crashes == 0
    lost = claim(ledger, owner="w-2")
    assert lost.crashes == 1
    ledger.release(lost, EngineLostError("killed"), StageTimes())
    drained = claim(ledger)
    assert drained.crashes == 2
    ledger.release(drained, DrainedError("stopped"), StageTimes())
    last = claim(ledger)
    assert last.crashes == 2
    ledger.record_outcome(last, NO_IMAGE)
    ledger.reopen(visit().key)
    assert claim(ledger).crashes == 0


def test_an_owner_who_was_restarted_goes_on(ledger):
    first = claim(ledger)
    second = claim(ledger)
    assert second.attempt == 2
    with pytest.raises(StaleClaimError):
        ledger.check(first)


def test_a_claim_can_be_given_back_with_the_reason(ledger):
    first = claim(ledger)
    ledger.release(first, StoreError("APDB: no answer"), StageTimes({"preload": 1.5}))
    with pytest.raises(StaleClaimError):
        ledger.record_outcome(first, Outcome.processed())
    assert ledger.find(visit().key).working is None
    assert claim(ledger, owner="w-2").attempt == 2
    first_attempt = ledger.find(visit().key).attempts[0]
    assert first_attempt.ended_at is not None
    assert first_attempt.error == "store: APDB: no answer"
    assert first_attempt.times == StageTimes({"preload": 1.5})


def test_an_outcome_can_be_recorded_twice_but_not_changed(ledger):
    first = claim(ledger)
    ledger.record_outcome(first, Outcome.processed())
    ledger.record_outcome(first, Outcome.processed())
    assert ledger.history(visit().key) == [Outcome.processed()]
    with pytest.raises(StaleClaimError):
        ledger.record_outcome(first, Outcome.skipped("no-image"))
    assert ledger.find(visit().key).outcome == Outcome.processed()


def test_a_reopened_visit_keeps_its_history(ledger):
    assert not ledger.reopen(visit().key)
    first = claim(ledger)
    assert not ledger.reopen(visit().key)
    ledger.record_outcome(first, NO_IMAGE)
    assert ledger.reopen(visit().key)
    assert ledger.find(visit().key).outcome is None
    second = claim(ledger, owner="w-2")
    ledger.record_outcome(second, Outcome.processed("late"))
    found = ledger.find(visit().key)
    assert found.outcome == Outcome.processed("late")
    assert [attempt.outcome for attempt in found.attempts] == [NO_IMAGE, Outcome.processed("late")]
    assert ledger.history(visit().key) == [NO_IMAGE, Outcome.processed("late")]
    assert ledger.counts() == {"processed": 1}


def test_visits_are_listed_in_order(ledger):
    for subject in (visit("b"), visit("a"), visit("a", 1), visit("c", instrument="LSSTCam")):
        claim(ledger, subject, owner=f"w-{subject.groupId}{subject.detector}")
    keys = [record.visit.key for record in ledger.detector_visits()]
    assert keys == [("LATISS", "b", 0), ("LATISS", "a", 0), ("LATISS", "a", 1), ("LSSTCam", "c", 0)]
    assert len(ledger.detector_visits(group="a")) == 2
    assert [record.visit.groupId for record in ledger.detector_visits(instrument="LSSTCam")] == ["c"]
    assert ledger.find(DetectorVisitKey("LATISS", "z", 0)) is None
    assert ledger.history(DetectorVisitKey("LATISS", "z", 0)) == []


def test_only_one_of_many_workers_gets_a_visit(ledger):
    def attempt(number):
        return ledger.claim(visit(), Delivery(f"m-{number}", "{}"), owner=f"w-{number}")

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(attempt, range(16)))
    winners = [result for result in results if isinstance(result, Claim)]
    assert len(winners) == 1
    assert all(result.owner == winners[0].owner for result in results)


def test_a_cancelled_group_is_known_before_and_after_its_visit(ledger):
    claim(ledger, visit("a"))
    claim(ledger, visit("a", 1), owner="w-2")
    claim(ledger, visit("b"), owner="w-3")
    for group in ("a", "a", "c"):
        ledger.cancel("LATISS", group)
    assert [ledger.is_cancelled("LATISS", group) for group in ("a", "b", "c")] == [True, False, True]
    assert not ledger.is_cancelled("LSSTCam", "a")
    claim(ledger, visit("c"), owner="w-4")
    cancelled = {record.visit.key for record in ledger.detector_visits() if record.cancelled}
    assert cancelled == {("LATISS", "a", 0), ("LATISS", "a", 1), ("LATISS", "c", 0)}


def test_visits_that_nobody_works_on_are_found(ledger):
    claim(ledger, visit("alive"), owner="w-1")
    claim(ledger, visit("crashed"), owner="w-2", lease=-100.0)
    ledger.release(claim(ledger, visit("released"), owner="w-3"), StoreError("x"), StageTimes())
    ledger.record_outcome(claim(ledger, visit("done"), owner="w-4"), Outcome.processed())
    ledger.record_outcome(claim(ledger, visit("reopened"), owner="w-5"), NO_IMAGE)
    ledger.reopen(visit("reopened").key)
    found = [record.visit.groupId for record in ledger.stale()]
    assert found == ["crashed", "released", "reopened"]
    assert [record.visit.groupId for record in ledger.stale(older_than=50.0)] == ["crashed"]
    assert ledger.stale(older_than=500.0) == []
    assert ledger.stale()[0].attempts[0].owner == "w-2"


def test_a_visit_that_was_given_back_and_claimed_again_is_not_stale(ledger):
    ledger.release(claim(ledger), StoreError("x"), StageTimes())
    again = claim(ledger, owner="w-2")
    assert ledger.stale() == []
    # Its present claim counts, not when it was free before.
    ledger.renew(again, lease=-100.0)
    assert [record.visit.groupId for record in ledger.stale(older_than=50.0)] == ["g#1"]


@pytest.mark.parametrize("skew", [-30.0, 30.0])
def test_leases_are_counted_by_the_database_whatever_the_clock_of_a_worker_says(ledger, clock_off, skew):
    with clock_off(skew):
        alive = claim(ledger, visit("alive"), lease=15.0)
        claim(ledger, visit("over"), lease=-15.0)
    with clock_off(-skew):
        assert ledger.claim(visit("alive"), Delivery("m-2", "{}"), owner="w-2") == Busy("w-1", "m-1")
        assert [record.visit.groupId for record in ledger.stale()] == ["over"]
        assert claim(ledger, visit("over"), owner="w-2").attempt == 2
        ledger.check(alive)
        ledger.renew(alive, lease=-15.0)
    with clock_off(skew):
        assert claim(ledger, visit("alive"), owner="w-2").attempt == 2


def test_a_night_is_read_in_pages(ledger):
    assert ledger.newest_night() is None
    night, day = visit().day_obs, 86400.0
    start = visit().startTime
    for number in range(5):
        claim(ledger, visit(f"g{number}"), owner=f"w-{number}")
        claim(ledger, detector_visit(groupId=f"old{number}", startTime=start - day), owner=f"v-{number}")
    assert ledger.newest_night() == night
    first = ledger.night(night, limit=3)
    second = ledger.night(night, after=first.next, limit=3)
    assert [[item.visit.groupId for item in page.records] for page in (first, second)] == [
        ["g0", "g1", "g2"],
        ["g3", "g4"],
    ]
    assert second.next is None
    assert [item.visit.groupId for item in every(ledger, 20260131)] == [f"old{n}" for n in range(5)]
    assert ledger.night(night + 1, limit=3) == Page((), None)


def test_a_night_is_counted_by_outcome_with_its_alerts(ledger):
    night = visit().day_obs
    known, unknown, reopened, other = (visit(group) for group in ("known", "unknown", "reopened", "queued"))
    first = claim(ledger, known, owner="w-1")
    ledger.record_step(first, "decision", DecisionSummary(2026020100001, 7))
    ledger.record_step(first, "alerts")
    ledger.record_outcome(first, Outcome.processed())
    ledger.record_outcome(claim(ledger, unknown, owner="w-2"), Outcome.processed())
    ledger.record_outcome(claim(ledger, reopened, owner="w-3"), NO_IMAGE)
    claim(ledger, other, owner="w-4")
    counts = {"processed": 2, "queued": 1, "skipped:no-image": 1}
    assert ledger.summary(night) == NightSummary(counts, n_alerts=7, unknown=1)
    assert ledger.counts(night) == counts
    ledger.reopen(reopened.key)
    assert ledger.summary(night).counts == ledger.counts(night) == {"processed": 2, "queued": 2}
    assert ledger.find(known.key).decision == DecisionSummary(2026020100001, 7)
    assert ledger.find(unknown.key).decision is None
    assert ledger.summary(night + 1) == NightSummary({}, 0, 0)
    assert ledger.counts(night + 1) == {}


def test_a_stale_claim_stores_no_decision(ledger):
    first = claim(ledger, lease=OVER)
    claim(ledger, owner="w-2")
    with pytest.raises(StaleClaimError):
        ledger.record_step(first, "decision", DecisionSummary(1, 2))
    assert ledger.find(visit().key).decision is None


def test_images_without_a_visit_are_known(ledger):
    other = DetectorVisitKey("LATISS", "unknown", 0)
    for key, subject in (("x", visit().key), ("x", visit().key), ("y", other)):
        assert not ledger.record_arrival(subject, pointer(f"LATISS/{key}_0.fits", subject.group))
    claim(ledger)
    assert [record.pointer.key for record in ledger.arrivals()] == ["LATISS/x_0.fits", "LATISS/y_0.fits"]
    assert ledger.arrivals()[0].pointer == pointer()
    assert [record.pointer.key for record in ledger.arrivals(other)] == ["LATISS/y_0.fits"]
    lonely = ledger.arrivals(without_visit=True)
    assert [(record.visit, record.pointer.key) for record in lonely] == [(other, "LATISS/y_0.fits")]


@pytest.mark.parametrize("outcome", [NO_IMAGE, Outcome.skipped("cancelled")], ids=str)
def test_a_visit_that_was_given_up_is_reopened_by_each_image_once(ledger, outcome):
    ledger.record_outcome(claim(ledger), outcome)
    assert ledger.record_arrival(visit().key, pointer())
    assert ledger.find(visit().key).outcome is None
    assert not ledger.record_arrival(visit().key, pointer())
    ledger.record_outcome(claim(ledger), Outcome.processed("late"))
    assert not ledger.record_arrival(visit().key, pointer())
    assert not ledger.record_arrival(visit().key, pointer("LATISS/another_0.fits"))
    assert ledger.history(visit().key) == [outcome, Outcome.processed("late")]


@pytest.mark.parametrize(
    "outcome", [Outcome.skipped("expired"), Outcome.failed(NoTemplateError("x"))], ids=str
)
def test_other_outcomes_are_not_reopened_by_an_image(ledger, outcome):
    ledger.record_outcome(claim(ledger), outcome)
    assert not ledger.record_arrival(visit().key, pointer())
    assert ledger.find(visit().key).outcome == outcome


def test_a_visit_whose_image_is_there_is_not_given_up(ledger):
    first = claim(ledger)
    ledger.record_arrival(visit().key, pointer())
    with pytest.raises(ImageArrivedError):
        ledger.record_outcome(first, NO_IMAGE)
    assert ledger.find(visit().key).outcome is None
    ledger.check(first)
    ledger.record_outcome(first, Outcome.processed())


@pytest.mark.parametrize("known", [True, False], ids=["known", "new"])
def test_an_image_at_the_last_moment_is_seen_by_exactly_one(ledger, known):
    barrier = threading.Barrier(2)

    def give_up(subject, held):
        barrier.wait()
        try:
            ledger.record_outcome(held or claim(ledger, subject, owner=subject.groupId), NO_IMAGE)
        except ImageArrivedError:
            return True
        return False

    def arrive(subject):
        barrier.wait()
        return ledger.record_arrival(subject.key, pointer(f"LATISS/{subject.groupId}.fits", subject.groupId))

    with ThreadPoolExecutor(2) as pool:
        for number in range(40):
            subject = visit(f"g{number}")
            held = claim(ledger, subject, owner=subject.groupId) if known else None
            seen = pool.submit(give_up, subject, held), pool.submit(arrive, subject)
            assert sum(future.result() for future in seen) == 1
            assert ledger.find(subject.key).outcome is None


def test_the_ledger_outlives_its_process(tmp_path):
    url = f"sqlite:///{tmp_path}/ledger.sqlite3"
    ledger = SqlLedger(database.engine(url))
    ledger.record_outcome(claim(ledger), Outcome.processed())
    again = SqlLedger(database.engine(url))
    assert again.claim(visit(), DELIVERY, owner="w-1") == Done(Outcome.processed(), 1)
    assert again.find(visit().key).message_id == "m-1"


def leave(ledger, group="a", effect="alerts", payload=""):
    """Process a visit whose effect is left to the relay, and return its claim."""
    claim = ledger.claim(detector_visit(groupId=group), DELIVERY, owner="w")
    ledger.record_pending(claim, effect, error="store: away", payload=payload)
    ledger.record_pending(claim, effect, error="again")
    ledger.record_times(claim, StageTimes({"isr": 1.0}))
    ledger.record_outcome(claim, Outcome.processed())
    return claim


def test_what_is_pending_is_known_until_it_is_settled(ledger):
    claim = leave(ledger, payload="text")
    (pending,) = ledger.pending()
    assert (pending.visit, pending.effect, pending.attempt) == (claim.visit, "alerts", 1)
    assert (pending.error, pending.payload, pending.tries) == ("store: away", "text", 0)
    assert ledger.find(claim.visit).pending == ("alerts",)
    assert ledger.backlog()["alerts"].count == 1
    ledger.settle(pending, latency=77.0)
    ledger.settle(pending, latency=78.0)
    assert (ledger.pending(), dict(ledger.backlog())) == ([], {})
    record = ledger.find(claim.visit)
    assert (record.pending, record.steps) == ((), ("alerts",))
    assert record.times == StageTimes({"isr": 1.0}, latency=77.0)


def test_each_pending_effect_is_taken_by_one_relay_the_oldest_first(ledger):
    for group in "abc":
        leave(ledger, group)
    taken = [ledger.take_pending(lease=60.0) for _ in range(4)]
    assert [found and found.visit.group for found in taken] == ["a", "b", "c", None]
    assert ledger.take_pending(lease=60.0, only=taken[1]) is None
    assert [pending.tries for pending in ledger.pending(limit=2)] == [1, 1]


def test_an_effect_of_a_relay_that_died_is_taken_by_another_which_the_first_cannot_disturb(ledger):
    leave(ledger)
    first = ledger.take_pending(lease=OVER)
    second = ledger.take_pending(lease=60.0)
    assert (first.tries, second.tries) == (1, 2)
    ledger.postpone(first, "late", delay=0.0)
    assert ledger.take_pending(lease=60.0) is None
    ledger.postpone(second, "store: away again", delay=60.0)
    assert ledger.take_pending(lease=60.0) is None
    (pending,) = ledger.pending()
    assert (pending.error, pending.due_in) == ("store: away again", pytest.approx(60.0, abs=5.0))
    assert ledger.take_pending(lease=60.0, only=pending).tries == 3


def test_the_next_attempt_knows_what_is_pending(ledger):
    visit = detector_visit()
    claim = ledger.claim(visit, DELIVERY, owner="w")
    ledger.record_pending(claim, "alerts", error="away")
    ledger.release(claim, StoreError("products"), StageTimes())
    assert ledger.claim(visit, DELIVERY, owner="w").pending == {"alerts"}
    with pytest.raises(StaleClaimError):
        ledger.record_pending(claim, "metrics", error="away")


def test_times_without_a_latency_keep_that_of_the_relay(ledger):
    claim = ledger.claim(detector_visit(), DELIVERY, owner="w")
    ledger.record_pending(claim, "alerts", error="away")
    ledger.settle(ledger.take_pending(lease=60.0), latency=5.0)
    ledger.record_times(claim, StageTimes({"products": 1.0}))
    assert ledger.find(claim.visit).times == StageTimes({"products": 1.0}, latency=5.0)


def test_a_report_is_stored_with_its_outcome_and_replaced_by_that_of_the_next(ledger):
    visit = detector_visit()
    for text in ("first", "second"):
        claim = ledger.claim(visit, DELIVERY, owner="w")
        ledger.record_outcome(claim, NO_IMAGE, report=text)
        ledger.reopen(visit.key)
    (report,) = ledger.pending()
    assert (report.effect, report.payload, report.attempt) == ("report", "second", 2)
    assert ledger.take_pending(lease=60.0) is None
    older = replace(report, attempt=1)
    ledger.settle(older)
    assert len(ledger.pending()) == 1
    ledger.settle(report)
    assert (ledger.pending(), ledger.find(visit.key).steps) == ([], ())
