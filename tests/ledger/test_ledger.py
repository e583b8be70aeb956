"""What every ledger promises, on each of them."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from prompt_processing import database
from prompt_processing.domain.errors import NoTemplateError, StaleClaimError
from prompt_processing.domain.outcome import Delivery, Outcome, StageTimes
from prompt_processing.domain.raws import ArrivalPointer
from prompt_processing.domain.visit import DetectorVisit, DetectorVisitKey
from prompt_processing.ledger.memory import MemoryLedger
from prompt_processing.ledger.port import Busy, Claim, Done
from prompt_processing.ledger.sql import SqlLedger

DELIVERY = Delivery("m-1", "{}")


@pytest.fixture(params=["memory", "sqlite"])
def ledger(request, tmp_path):
    if request.param == "memory":
        return MemoryLedger()
    return SqlLedger(database.engine(f"sqlite:///{tmp_path}/ledger.sqlite3"))


def visit(group="g#1", detector=0, instrument="LATISS"):
    return DetectorVisit(
        salIndex=2,
        scriptSalIndex=1,
        groupId=group,
        coordinateSystem=2,
        position=(10.0, -20.0),
        startTime=1.77e9,
        rotationSystem=2,
        cameraAngle=0.0,
        filters="SDSSr_65mm~empty",
        dome=2,
        duration=30.0,
        nimages=1,
        instrument=instrument,
        survey="BLOCK-1",
        totalCheckpoints=0,
        private_sndStamp=1.77e9,
        detector=detector,
    )


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
    first = claim(ledger, lease=0.05)
    time.sleep(0.1)
    second = claim(ledger, owner="w-2")
    assert second.attempt == 2
    for write in (
        lambda: ledger.check(first),
        lambda: ledger.record_times(first, StageTimes({"x": 1.0})),
        lambda: ledger.record_outcome(first, Outcome.processed()),
    ):
        with pytest.raises(StaleClaimError):
            write()
    ledger.release(first)
    ledger.check(second)
    assert ledger.find(visit().key).outcome is None
    assert [attempt.owner for attempt in ledger.find(visit().key).attempts] == ["w-1", "w-2"]


def test_an_owner_who_was_restarted_goes_on(ledger):
    first = claim(ledger)
    second = claim(ledger)
    assert second.attempt == 2
    with pytest.raises(StaleClaimError):
        ledger.check(first)


def test_a_claim_can_be_given_back(ledger):
    first = claim(ledger)
    ledger.release(first)
    with pytest.raises(StaleClaimError):
        ledger.record_outcome(first, Outcome.processed())
    assert claim(ledger, owner="w-2").attempt == 2
    assert ledger.find(visit().key).attempts[0].ended_at is not None


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
    no_image = Outcome.skipped("no-image", "nothing within 60 s")
    first = claim(ledger)
    assert not ledger.reopen(visit().key)
    ledger.record_outcome(first, no_image)
    assert ledger.reopen(visit().key)
    assert ledger.find(visit().key).outcome is None
    second = claim(ledger, owner="w-2")
    ledger.record_outcome(second, Outcome.processed("late"))
    found = ledger.find(visit().key)
    assert found.outcome == Outcome.processed("late")
    assert [attempt.outcome for attempt in found.attempts] == [no_image, Outcome.processed("late")]
    assert ledger.history(visit().key) == [no_image, Outcome.processed("late")]
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


def test_images_without_a_visit_are_known(ledger):
    assert ledger.record_arrival(visit().key, pointer())
    assert not ledger.record_arrival(visit().key, pointer())
    other = DetectorVisitKey("LATISS", "unknown", 0)
    assert ledger.record_arrival(other, pointer("LATISS/y_0.fits", "unknown"))
    claim(ledger)
    assert [record.pointer.key for record in ledger.arrivals()] == ["LATISS/x_0.fits", "LATISS/y_0.fits"]
    assert ledger.arrivals()[0].pointer == pointer()
    lonely = ledger.arrivals(without_visit=True)
    assert [(record.visit, record.pointer.key) for record in lonely] == [(other, "LATISS/y_0.fits")]


def test_the_ledger_outlives_its_process(tmp_path):
    url = f"sqlite:///{tmp_path}/ledger.sqlite3"
    ledger = SqlLedger(database.engine(url))
    ledger.record_outcome(claim(ledger), Outcome.processed())
    again = SqlLedger(database.engine(url))
    assert again.claim(visit(), DELIVERY, owner="w-1") == Done(Outcome.processed(), 1)
    assert again.find(visit().key).message_id == "m-1"
