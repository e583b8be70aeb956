"""An engine: what its supervisor sees of it, whatever happens to the process."""

import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from functools import partial

import psutil
import pytest

from local_cloud.visits import EVENT
from prompt_processing.domain.clock import NightClock, from_tai_seconds
from prompt_processing.domain.errors import (
    AstrometryError,
    ConfigError,
    DrainedError,
    EngineLostError,
    InternalError,
    PromptError,
    StaleClaimError,
)
from prompt_processing.domain.outcome import Outcome, Stopwatch
from prompt_processing.ledger.memory import MemoryLedger
from prompt_processing.worker.engine import Engine
from support.engines import broken, claim, engine, scripted, settings, wait_for


@pytest.fixture
def ledger():
    return MemoryLedger()


@pytest.fixture
def made(tmp_path, ledger):
    """Make engines that are closed at the end."""
    engines = []

    def make(**changes):
        engines.append(engine(tmp_path, ledger, **changes))
        return engines[-1]

    yield make
    for each in engines:
        each.close()


def run(target, ledger, group, watch=None):
    return target.run(*claim(ledger, group), watch or Stopwatch())


@contextmanager
def running(target, visit, right, folder):
    """Run a visit in a thread, from its beginning in the engine to its end; provide how it ended."""
    ended = []

    def work():
        try:
            ended.append(target.run(visit, right, Stopwatch()))
        except PromptError as error:
            ended.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    wait_for((folder / f"begun {visit.groupId}").exists)
    yield ended
    thread.join()


def test_the_outcome_and_the_stages_come_back(made, ledger):
    watch = Stopwatch()
    assert run(made(), ledger, "easy", watch) == Outcome.processed()
    assert list(watch.times().seconds) == ["easy"]
    assert watch.times().latency == 1.5


def test_errors_come_back_as_what_they_are_with_their_stages(made, ledger):
    target, watch = made(), Stopwatch()
    with pytest.raises(AstrometryError, match="no stars"):
        run(target, ledger, "wrong", watch)
    assert list(watch.times().seconds) == ["wrong"]
    with pytest.raises(InternalError, match="KeyError"):
        run(target, ledger, "bug")


def test_an_engine_that_dies_costs_one_attempt(made, ledger):
    target = made()
    with pytest.raises(EngineLostError, match="signal 9, in stage crash"):
        run(target, ledger, "crash")
    assert run(target, ledger, "easy") == Outcome.processed()


@pytest.mark.parametrize(
    ("group", "changes", "match"),
    [
        ("hang", {"processing_limit_s": 3.0}, "after 3 s, in stage hang"),
        ("grow", {"memory_limit_mb": 256}, "limit 256 MB, in stage grow"),
    ],
)
def test_an_engine_beyond_its_limits_is_ended(made, ledger, group, changes, match):
    target = made(**changes)
    process = psutil.Process(target.pid)
    with pytest.raises(EngineLostError, match=match):
        run(target, ledger, group)
    assert not process.is_running()
    assert run(target, ledger, "easy") == Outcome.processed()


def test_a_worn_engine_works_until_the_next_one_can(made, ledger):
    target = made(restart_after=2)
    first = psutil.Process(target.pid)
    for number in range(2):
        run(target, ledger, f"easy {number}")
    assert target.pid == first.pid
    number = 2
    while target.pid == first.pid:
        assert first.is_running()
        assert run(target, ledger, f"easy {number}") == Outcome.processed()
        number += 1
    assert not first.is_running()


def test_a_claim_is_renewed_while_the_engine_works(made, ledger):
    target = made(lease_s=0.3)
    renewals = []
    renew = ledger.renew

    def counted(right, *, lease):
        renew(right, lease=lease)
        renewals.append(lease)
        if len(renewals) == 4:
            target.hint()

    ledger.renew = counted
    assert run(target, ledger, "hint") == Outcome.processed()
    assert set(renewals) == {0.3}


def test_an_engine_whose_visit_was_taken_over_is_ended(made, ledger):
    target = made(lease_s=0.3)
    process = psutil.Process(target.pid)
    renew = ledger.renew

    def taken_over(right, *, lease):
        claim(ledger, "hang")  # the same owner, in another life
        renew(right, lease=lease)

    ledger.renew = taken_over
    with pytest.raises(StaleClaimError):
        run(target, ledger, "hang")
    assert not process.is_running()


def test_whoever_stops_a_group_of_processes_does_not_stop_an_engine(made, ledger):
    target = made()
    target.wait_until_ready()
    os.kill(target.pid, signal.SIGTERM)
    os.kill(target.pid, signal.SIGINT)
    assert run(target, ledger, "easy") == Outcome.processed()


def test_an_engine_knows_the_time_of_the_night(tmp_path, ledger):
    clock = NightClock.starting_at(from_tai_seconds(EVENT["startTime"]))
    target = Engine(partial(scripted, tmp_path), ledger=ledger, clock=clock, settings=settings())
    try:
        assert run(target, ledger, "clock_of_the_night") == Outcome.processed()
    finally:
        target.close()


def test_an_engine_that_cannot_be_built_says_why(ledger):
    target = Engine(broken, ledger=ledger, clock=NightClock(0.0), settings=settings())
    try:
        with pytest.raises(ConfigError, match=r"prompt\.yaml: wrong"):
            target.wait_until_ready()
    finally:
        target.close()


def test_a_drained_engine_ends_at_once_before_effects(made, ledger, tmp_path):
    target = made(drain_s=600.0)
    with running(target, *claim(ledger, "hang"), tmp_path) as ended:
        target.drain()
    assert isinstance(ended[0], DrainedError)
    with pytest.raises(DrainedError):
        run(target, ledger, "easy")


def test_a_drained_engine_may_finish_effects_that_have_begun(made, ledger, tmp_path):
    target = made(drain_s=600.0)
    visit, right = claim(ledger, "hint")
    ledger.record_step(right, "decision")
    find, asked = ledger.find, threading.Event()
    ledger.find = lambda key: asked.set() or find(key)
    with running(target, visit, right, tmp_path) as ended:
        target.drain()
        asked.wait()
        target.hint()
    assert ended == [Outcome.processed()]


def test_a_drained_engine_does_not_get_more_time_than_agreed(made, ledger, tmp_path):
    target = made(drain_s=0.5)
    visit, right = claim(ledger, "hang")
    ledger.record_step(right, "decision")
    with running(target, visit, right, tmp_path) as ended:
        target.drain()
    assert isinstance(ended[0], DrainedError)


def test_engines_end_with_their_supervisor(tmp_path):
    script = (
        "import sys\nfrom pathlib import Path\n"
        "from prompt_processing.ledger.memory import MemoryLedger\n"
        "from support.engines import engine\n"
        "if __name__ == '__main__':\n"
        "    made = engine(Path(sys.argv[1]), MemoryLedger())\n"
        "    made.wait_until_ready()\n"
        "    print(made.pid, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    file = tmp_path / "parent.py"
    file.write_text(script)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, str(file), str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True,
    ) as parent:  # fmt: skip
        child = psutil.Process(int(parent.stdout.readline()))
        assert child.is_running()
        parent.kill()
    child.wait(timeout=60)
