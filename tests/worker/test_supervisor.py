"""A supervisor with engines: messages in, outcomes out, whatever happens meanwhile."""

import threading
from functools import partial

import pytest

from local_cloud.visits import detector_visit
from prompt_processing.domain.errors import StoreError
from prompt_processing.domain.outcome import Disposition
from prompt_processing.domain.visit import DetectorVisitKey
from prompt_processing.ledger.memory import MemoryLedger
from prompt_processing.messaging.memory import MemoryQueue
from prompt_processing.worker.supervisor import LONGEST_DELAY, Slot, Supervisor
from prompt_processing.worker.worker import Worker
from support.engines import FOREVER, engine, settings, wait_for


class AfterDecision:
    """Notes the decision before the engine starts."""

    def __init__(self, ledger, target):
        self._ledger, self._target = ledger, target

    def run(self, visit, claim, watch):
        self._ledger.record_step(claim, "decision")
        return self._target.run(visit, claim, watch)


class World:
    """A queue and a ledger, and supervisors that work on them."""

    def __init__(self, folder):
        self.folder = folder
        self.ledger = MemoryLedger()
        self.queue = MemoryQueue()
        self.sweeps = threading.Semaphore(0)
        self.handled = []

    def supervisor(self, slots=1, runner=lambda target: target, **changes):
        made = settings(**changes)
        pairs = []
        for number in range(slots):
            target = engine(self.folder, self.ledger, **changes)
            worker = Worker(ledger=self.ledger, runner=runner(target), owner=f"w/{number}", settings=made)
            pairs.append(Slot(worker, target))
        supervisor = Supervisor(queue=self.queue, slots=pairs, sweep=self.sweeps.release, settings=made)
        supervisor.on_handled = lambda received, said: self.handled.append((received.count, said))
        return supervisor

    def send(self, *groups):
        self.queue.publish([detector_visit(groupId=group).model_dump_json() for group in groups])

    def record(self, group):
        return self.ledger.find(DetectorVisitKey("LATISS", group, 0))

    def outcome(self, group):
        record = self.record(group)
        return str(record.outcome) if record and record.outcome else None

    def wait_for_outcomes(self, *groups):
        wait_for(lambda: all(self.outcome(group) for group in groups))

    def begun(self, group):
        return (self.folder / f"begun {group}").exists()


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_each_visit_gets_its_outcome_and_its_message_is_gone(world):
    groups = ["easy 1", "wrong", "bug", "easy 2"]
    world.send(*groups)
    with world.supervisor():
        world.wait_for_outcomes(*groups)
    assert [world.outcome(group) for group in groups] == [
        "processed", "failed:astrometry", "failed:internal", "processed",
    ]  # fmt: skip
    assert world.queue.receive(0.0) is None
    assert list(world.record("easy 1").times.seconds) == ["easy"]
    assert list(world.record("wrong").times.seconds) == ["wrong"]


def test_engines_work_at_the_same_time(world):
    world.send("meet 2 a", "meet 2 b")
    with world.supervisor(slots=2):
        world.wait_for_outcomes("meet 2 a", "meet 2 b")
    assert world.outcome("meet 2 a") == world.outcome("meet 2 b") == "processed"


def test_a_visit_that_loses_every_engine_is_given_up_and_the_next_one_goes_on(world):
    world.send("crash", "easy")
    with world.supervisor(max_crashes=2):
        world.wait_for_outcomes("crash", "easy")
    assert world.outcome("crash") == "failed:given-up"
    assert world.outcome("easy") == "processed"
    attempts = world.record("crash").attempts
    assert [bool(attempt.error) for attempt in attempts] == [True, True, False]
    assert "in stage crash" in attempts[0].error


def test_engines_are_replaced_without_losing_a_message(world):
    groups = [f"easy {number}" for number in range(30)]
    world.send(*groups)
    with world.supervisor(slots=2, restart_after=3):
        world.wait_for_outcomes(*groups)
    assert {world.outcome(group) for group in groups} == {"processed"}
    assert all(len(world.record(group).attempts) == 1 for group in groups)


def test_a_stopped_worker_gives_back_what_has_changed_nothing(world):
    world.send("hang")
    with world.supervisor():
        wait_for(lambda: world.begun("hang"))
    assert world.queue.receive(0.0).count == 2
    record = world.record("hang")
    assert record.outcome is None
    assert record.working is None
    assert record.attempts[0].error.startswith("drained:")


def test_a_stopped_worker_may_finish_what_has_begun(world):
    world.send("hint")
    supervisor = world.supervisor(drain_s=600.0, runner=partial(AfterDecision, world.ledger))
    find = world.ledger.find
    # The engine is asked to come to an end when the ledger is asked how far it is.
    world.ledger.find = lambda key: supervisor.hint() or find(key)
    with supervisor:
        wait_for(lambda: world.begun("hint"))
    assert world.outcome("hint") == "processed"
    assert world.queue.receive(0.0) is None


def test_a_queue_that_does_not_answer_is_asked_again(world):
    receive, failures = world.queue.receive, [StoreError("away"), StoreError("away")]

    def unsteady(timeout):
        if failures:
            raise failures.pop()
        return receive(timeout)

    world.queue.receive = unsteady
    world.send("easy")
    with world.supervisor():
        world.wait_for_outcomes("easy")
    assert failures == []


def test_an_answer_that_gets_lost_brings_the_message_again_and_nothing_happens_twice(world):
    world.queue = MemoryQueue(hidden=0.2)
    ack, failures = world.queue.ack, [StoreError("away")]

    def unsteady(received):
        if failures:
            raise failures.pop()
        ack(received)

    world.queue.ack = unsteady
    world.send("easy")
    with world.supervisor():
        wait_for(lambda: len(world.handled) == 2)
    assert world.handled == [(1, Disposition.ACK), (2, Disposition.ACK)]
    assert len(world.record("easy").attempts) == 1


class Away:
    """Work that needs a store which does not answer."""

    def run(self, visit, claim, watch):
        raise StoreError("away")


def test_a_message_comes_again_later_and_later_up_to_a_limit(world):
    retry, delays, enough = world.queue.retry, [], threading.Event()

    def at_once(received, delay):
        delays.append(delay)
        if len(delays) == 7:
            enough.set()
        retry(received, 0.0)

    world.queue.retry = at_once
    world.send("easy")
    with world.supervisor(runner=lambda _: Away()):
        assert enough.wait(FOREVER)
    assert delays[:7] == [1.0, 2.0, 4.0, 8.0, 16.0, LONGEST_DELAY, LONGEST_DELAY]
    assert LONGEST_DELAY == 20.0


def test_a_message_stays_hidden_while_it_is_worked_on(world):
    world.queue = MemoryQueue(hidden=1.5)
    extend, extended = world.queue.extend, threading.Semaphore(0)

    def counted(received):
        extend(received)
        extended.release()

    world.queue.extend = counted
    world.send("hint")
    with world.supervisor(slots=2) as supervisor:
        # Longer than a message stays hidden by itself; the other slot would receive it.
        for _ in range(4):
            assert extended.acquire(timeout=FOREVER)
        wait_for(lambda: world.begun("hint"))
        wait_for(lambda: supervisor.hint() or world.outcome("hint"))
    assert world.handled == [(1, Disposition.ACK)]


def test_a_worker_sweeps_now_and_then(world):
    with world.supervisor(sweep_interval_s=0.1):
        assert world.sweeps.acquire(timeout=60)
        assert world.sweeps.acquire(timeout=60)
