"""What a queue sees of a worker: ACK or RETRY, and what the ledger says afterwards."""

import json

import pytest

from local_cloud.visits import detector_visit
from prompt_processing.config import WorkerSettings
from prompt_processing.domain.errors import AstrometryError, EngineLostError, NoCalibError, StoreError
from prompt_processing.domain.outcome import Delivery, Disposition, Outcome, Status
from prompt_processing.ledger.memory import MemoryLedger
from prompt_processing.worker.worker import Worker

SETTINGS = WorkerSettings(max_crashes=2)


class Scripted:
    """Does what it is told, in place of the real steps."""

    def __init__(self, *results):
        self.results = list(results)
        self.runs = 0

    def run(self, visit, claim, watch):
        self.runs += 1
        result = self.results.pop(0)
        if isinstance(result, Exception):
            raise result
        with watch.stage("wait"):
            return result


def make(*results):
    ledger = MemoryLedger()
    process = Scripted(*results)
    return ledger, process, Worker(ledger=ledger, runner=process, owner="w1", settings=SETTINGS)


def delivery(message_id="m1", **changes):
    return Delivery(message_id, detector_visit(**changes).model_dump_json())


def test_a_processed_visit_is_acknowledged_and_recorded_with_its_stage_times():
    ledger, _, worker = make(Outcome.processed("fallback"))
    assert worker.handle(delivery()) is Disposition.ACK
    record = ledger.find(detector_visit().key)
    assert record.outcome == Outcome.processed("fallback")
    assert list(record.times.seconds) == ["wait"]


def test_a_second_delivery_of_a_finished_visit_does_nothing():
    _, process, worker = make(Outcome.processed())
    assert worker.handle(delivery("m1")) is Disposition.ACK
    assert worker.handle(delivery("m1")) is Disposition.ACK
    assert worker.handle(delivery("other")) is Disposition.ACK
    assert process.runs == 1


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (AstrometryError("no match"), Status.FAILED, "astrometry"),
        (NoCalibError("no bias"), Status.SKIPPED, "no-calibs"),
        (ZeroDivisionError("oops"), Status.FAILED, "internal"),
    ],
)
def test_an_error_that_would_come_again_is_an_outcome(error, status, reason):
    ledger, _, worker = make(error)
    assert worker.handle(delivery()) is Disposition.ACK
    outcome = ledger.find(detector_visit().key).outcome
    assert (outcome.status, outcome.reason) == (status, reason)
    assert str(error) in outcome.detail


def test_after_a_store_error_the_visit_is_tried_again():
    ledger, process, worker = make(StoreError("database is away"), Outcome.processed())
    assert worker.handle(delivery()) is Disposition.RETRY
    assert ledger.find(detector_visit().key).outcome is None
    assert worker.handle(delivery()) is Disposition.ACK
    assert process.runs == 2
    assert ledger.find(detector_visit().key).outcome == Outcome.processed()


def test_while_another_works_a_redelivery_waits_and_a_duplicate_is_dropped():
    ledger, process, worker = make()
    ledger.claim(detector_visit(), delivery("m1"), owner="w2")
    assert worker.handle(delivery("m1")) is Disposition.RETRY
    assert worker.handle(delivery("m2")) is Disposition.ACK
    assert process.runs == 0


@pytest.mark.parametrize("body", ["", "not json", "{}", '{"kind": "visit"}', '{"kind": "dance"}', "[1]"])
def test_a_message_that_nobody_can_read_is_not_delivered_again(body):
    ledger, process, worker = make()
    assert worker.handle(Delivery("m1", body)) is Disposition.ACK
    assert process.runs == 0
    assert not ledger.detector_visits()


def test_a_warm_up_is_acknowledged_without_work():
    _, process, worker = make()
    body = json.dumps({"kind": "warmup", "instrument": "LATISS"})
    assert worker.handle(Delivery("m1", body)) is Disposition.ACK
    assert process.runs == 0


def test_a_visit_that_kills_its_engine_each_time_is_given_up():
    ledger, process, worker = make(EngineLostError("segmentation fault"), EngineLostError("again"))
    said = [worker.handle(delivery()) for _ in range(3)]
    assert said == [Disposition.RETRY, Disposition.RETRY, Disposition.ACK]
    assert process.runs == 2
    record = ledger.find(detector_visit().key)
    assert (record.outcome.status, record.outcome.reason) == (Status.FAILED, "given-up")
    assert [attempt.error for attempt in record.attempts[:2]] == [
        "engine-lost: segmentation fault",
        "engine-lost: again",
    ]


def test_a_cancellation_is_noted_even_before_its_visit_is_known():
    ledger, process, worker = make()
    body = json.dumps({"kind": "cancel", "instrument": "LATISS", "groupId": "g", "scriptSalIndex": 1})
    assert worker.handle(Delivery("m1", body)) is Disposition.ACK
    assert ledger.is_cancelled("LATISS", "g")
    assert process.runs == 0
