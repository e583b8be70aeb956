"""Whatever happens, in whatever order: nothing is lost, nothing is done twice, and no stale worker writes.

The flow runs in memory on a clock of its own. The same machine is then let loose on flows with one promise
taken away, and has to notice each of them. (That stale writers are noticed is tested in `test_process`, where
a worker is stopped at each point in turn.)
"""

import contextlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from prompt_processing.audit.judge import judge
from prompt_processing.delivery.decision import Decision
from prompt_processing.delivery.memory import MemoryDecisions
from prompt_processing.domain.errors import StoreError
from prompt_processing.domain.outcome import Status
from prompt_processing.domain.visit import DetectorVisit, parse_message
from prompt_processing.ledger.memory import MemoryLedger
from prompt_processing.ledger.port import REOPENED_BY_IMAGE, Done
from prompt_processing.worker.sweep import sweep
from support.flow import Paused, World, crash, store_error
from support.flow_audit import evidence
from support.points import Crash

pytestmark = pytest.mark.slow

N_VISITS = 4
VISITS = st.integers(0, N_VISITS - 1)
POINTS = st.sampled_from(
    [
        *("before ledger.claim", "after ledger.claim", "preload", "before ledger.is_cancelled", "pixels"),
        *(
            f"{when} {effect}"
            for effect in (
                "decisions.store",
                "apdb.store",
                "alerts.send",
                "metrics.send",
                "products.store",
            )
            for when in ("before", "after")
        ),
        *("between alerts", "persist", "before ledger.record_step", "after ledger.record_step"),
        *("before ledger.record_outcome", "after ledger.record_outcome", "before the acknowledgement"),
        *("before ledger.record_arrival", "after ledger.record_arrival", "before queue.publish"),
    ]
)
"""Where a worker may die, stop or meet a store that does not answer."""
RELAY_POINTS = st.sampled_from(
    [
        f"{when} relay.{call}"
        for call in ("ledger.pending", "ledger.take_pending", "decisions.find", "alerts.send", "metrics.send")
        for when in ("before", "after")
    ]
    + ["between alerts", "before relay.ledger.settle", "after relay.ledger.settle"]
    + ["before relay.ledger.postpone", "after relay.ledger.postpone"]
)
"""Where a relay may die or meet a store that does not answer."""
SKEWS = st.sampled_from([0.0, -30.0, 30.0])
MOMENTS = st.sampled_from([1.0, 15.0, 61.0, 150.0])


class Flow(RuleBasedStateMachine):
    """An observatory, workers that die, stop and meet stores that do not answer, and the time."""

    world_type = World

    def __init__(self):
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.world = self.world_type(Path(self._folder.name))
        self.paused = []

    @rule(number=VISITS)
    def announce(self, number):
        """Visit 2 has two snaps."""
        self.world.announce(number, nimages=2 if number == 2 else 1)

    @rule(number=VISITS)
    def cancel(self, number):
        self.world.cancel(number)

    @rule(number=VISITS, snap=st.integers(0, 1), noted=st.booleans())
    def put_image(self, number, snap, noted):
        self.world.put_image(number, snap=snap if number == 2 else 0, noted=noted)

    @rule(number=VISITS, seconds=MOMENTS, noted=st.booleans())
    def put_image_later(self, number, seconds, noted):
        self.world.image_later(seconds, number, noted=noted)

    @precondition(lambda self: self.given_up())
    @rule()
    def put_a_late_image(self):
        self.world.put_image(self.given_up()[0])

    @precondition(lambda self: self.world.queued())
    @rule(skew=SKEWS)
    def work(self, skew):
        self.world.work("one", skew)

    @rule(number=VISITS, point=POINTS, skew=SKEWS)
    def die(self, number, point, skew):
        self.announce_with_image(number)
        self.world.faults.arm(point, crash)
        with contextlib.suppress(Crash):
            self.world.work("two", skew)

    @rule(number=VISITS, point=POINTS)
    def meet_a_store_that_does_not_answer(self, number, point):
        self.announce_with_image(number)
        self.world.faults.arm(point, store_error)
        # Where the worker itself does not see it, its queue delivers the message again.
        with contextlib.suppress(StoreError):
            self.world.work("three")

    @precondition(lambda self: len(self.paused) < 2)
    @rule(number=VISITS, point=POINTS, skew=SKEWS)
    def stop_a_worker(self, number, point, skew):
        self.announce_with_image(number)
        self.paused.append(Paused(self.world, point, f"stopped {len(self.paused)}", skew))

    @precondition(lambda self: self.paused)
    @rule(last=st.booleans())
    def let_it_go_on(self, last):
        self.paused.pop(-1 if last else 0).resume()

    @precondition(lambda self: self.paused)
    @rule()
    def let_it_go_on_after_another_took_over(self):
        self.world.advance(61.0)
        while self.world.work("four") is not None:
            pass
        self.paused.pop().resume()

    @rule(seconds=MOMENTS)
    def let_time_pass(self, seconds):
        self.world.advance(seconds)

    @rule()
    def sweep(self):
        sweep(self.world.ledger, self.world.queue, 60.0)

    @rule(away=st.booleans())
    def the_alert_sink_goes_or_comes_back(self, away):
        self.world.alerts_away = away

    @rule(number=VISITS)
    def work_without_the_alert_sink(self, number):
        self.announce_with_image(number)
        self.world.alerts_away = True
        self.world.work("five")

    @rule()
    def relay(self):
        self.world.relay().relay_all()

    @precondition(lambda self: self.world.ledger.pending())
    @rule(point=RELAY_POINTS, fault=st.sampled_from([crash, store_error]))
    def let_a_relay_fail(self, point, fault):
        self.world.faults.arm(point, fault)
        # A ledger that does not answer ends `relay_all`; the service goes round again.
        with contextlib.suppress(Crash, StoreError):
            self.world.relay().relay_all()
        self.world.faults.disarm()

    @rule()
    def list_the_landing_store(self):
        self.world.list_landing()

    def announce_with_image(self, number):
        """Make it likely that there is something to do."""
        self.announce(number)
        if number % 2 == 0:
            self.world.put_image(number)

    def given_up(self):
        """Return the numbers of the visits that would be taken up again with an image."""
        records = (
            (number, self.world.ledger.find(self.world.visit(number).key)) for number in range(N_VISITS)
        )
        return [
            number
            for number, record in records
            if record is not None
            and record.outcome is not None
            and record.outcome.reason in REOPENED_BY_IMAGE
        ]

    @invariant()
    def every_visit_is_waiting_or_known(self):
        queued = {
            message.key
            for message in map(parse_message, self.world.queued())
            if isinstance(message, DetectorVisit)
        }
        for key in self.world.announced:
            assert key in queued or self.world.ledger.find(key) is not None, f"{key} is lost"

    @invariant()
    def no_stale_worker_writes(self):
        assert self.world.violations == []

    @invariant()
    def every_visit_has_at_most_one_outcome(self):
        for key in self.world.announced:
            *before, last = self.world.ledger.history(key) or [None]
            assert all(outcome.reason in REOPENED_BY_IMAGE for outcome in before), before
            assert last is None or last.status is not Status.FAILED, last

    def teardown(self):
        """Let everything come to its end, and ask the auditor."""
        try:
            for paused in self.paused:
                paused.resume()
            self.world.alerts_away = False
            for _ in range(4):
                self.world.advance(200.0)
                self.world.list_landing()
                sweep(self.world.ledger, self.world.queue, 60.0)
                while self.world.work("last") is not None:
                    pass
                self.world.relay().relay_all()
            assert self.world.ledger.pending() == []
            self.every_visit_has_at_most_one_outcome()
            self.no_stale_worker_writes()
            if self.world.announced:
                found = judge(evidence(self.world))
                assert found.passed, found.findings
        finally:
            self._folder.cleanup()


SETTINGS = settings(
    max_examples=60,
    stateful_step_count=15,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def test_nothing_is_lost_and_nothing_happens_twice():
    run_state_machine_as_test(Flow, settings=SETTINGS)


class NoDeduplication(MemoryLedger):
    """Gives everybody a claim, also on a visit that is finished."""

    def claim(self, visit, delivery, **options):
        found = super().claim(visit, delivery, **options)
        if isinstance(found, Done):
            self.reopen(visit.key)
            return super().claim(visit, delivery, **options)
        return found


class ForgetsDecisions(MemoryDecisions):
    """Takes each decision in place of the one before, and tells nobody."""

    def store(self, decision):
        self._decisions[decision.path] = decision.to_bytes()
        return Decision.from_bytes(self._decisions[decision.path])

    def find(self, visit):
        return None


class ForgetsWhatIsPending(MemoryLedger):
    """Lets visits end whose alerts are not sent, and tells nobody."""

    def record_pending(self, claim, effect, **options):
        self.record_step(claim, effect)


class EarlyAcknowledgement(World):
    """Acknowledges a message before it is worked on."""

    def work(self, owner, skew=0.0):
        received = self.queue.receive(0.0)
        if received is None:
            self.faults.disarm()
            return None
        self.queue.ack(received)
        try:
            said = self.worker(owner, skew).handle(received.delivery)
        finally:
            self.faults.disarm()
        return said


def note_for_those_who_wait(key, arrivals, ledger, publisher):
    """Write the pointer and tell nobody else: an image that comes late is dropped."""
    arrivals.record(key)


MUTANTS = {
    "no de-duplication": lambda folder: World(folder, ledger_type=NoDeduplication),
    "a decision is not honoured": lambda folder: World(folder, decisions_type=ForgetsDecisions),
    "what is pending is forgotten": lambda folder: World(folder, ledger_type=ForgetsWhatIsPending),
    "acknowledged before the outcome": EarlyAcknowledgement,
    "late images are dropped": lambda folder: World(folder, note=note_for_those_who_wait),
}


@pytest.mark.parametrize("make", MUTANTS.values(), ids=MUTANTS)
def test_a_broken_promise_is_noticed(make):
    class Mutant(Flow):
        world_type = staticmethod(make)

    quick = settings(SETTINGS, max_examples=200, phases=[Phase.generate], report_multiple_bugs=False)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Mutant, settings=quick)
