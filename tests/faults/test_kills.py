"""Real workers on real stores with small images, killed at every step; the auditor is the judge."""

import os
import signal
import statistics
import time
from itertools import chain

import numpy as np
import psutil
import pytest

from prompt_processing.audit.findings import Kind
from support.engines import wait_for
from support.fault_night import N_VISITS
from support.fault_worker import EFFECTS, STEPS

pytestmark = pytest.mark.faults


@pytest.fixture
def tell(row):
    """A function that adds the row of a fault to the table in docs/guarantees.md."""

    def add(what, found, kills, delays):
        counts = (found.count(kind) for kind in (Kind.LOST, Kind.DUPLICATED, Kind.MISMATCHING))
        added = f"{statistics.median(delays):.1f} s, at most {max(delays):.1f} s"
        row(what, found.expected, kills, *counts, added)

    return add


def delays(world, times):
    """Return how long it took from each kill until the next attempt at its visit [s], if it needed one."""
    found = []
    for key, when in times:
        starts = [attempt.started_at for attempt in world.ledger.find(key).attempts]
        found += [start - when for start in starts if start > when][:1]
    return found


def test_engines_are_killed_at_every_step_of_every_visit(world, tell, monkeypatch):
    # The worker lives and gives the claim of a lost engine back at once, so that no lease has to end.
    monkeypatch.setenv("PROMPT_WORKER__LEASE_S", "60")
    keys = world.send()
    chosen = {}
    for number, key in enumerate(keys):
        # Each visit is killed once in each step, the visits at different points of it.
        chosen[key] = {points[number % len(points)] for points in STEPS.values()}
        world.skip(key, set(chain(*STEPS.values())) - chosen[key])
    with world.worker("w", engines=2, action=signal.SIGKILL, points="steps"):
        world.wait_until_finished(keys)
    kills = [(key, world.when_at(key, point)) for key in keys for point in chosen[key]]
    assert len(kills) == N_VISITS * len(STEPS)
    attempts = [world.ledger.find(key).attempts for key in keys]
    assert [len(found) for found in attempts] == [len(STEPS) + 1] * N_VISITS
    found = world.check(keys)
    assert found.done == {"processed": N_VISITS}
    tell("engine killed once in each step of each visit", found, len(kills), delays(world, kills))


def engines_of(worker):
    """Return the engines of a worker: what was forked from the process that has imported everything."""
    return [engine for child in psutil.Process(worker.pid).children() for engine in child.children()]


def in_work(world, keys):
    """Return the visits that somebody works on, with the time."""
    records = [world.ledger.find(key) for key in keys]
    return [(record.visit.key, time.time()) for record in records if record and record.working]


def test_engines_and_workers_are_killed_at_any_moment(world, tell):
    keys = world.send(n_visits=6)
    chance, kills = np.random.default_rng(5), []
    while not world.is_finished(keys):
        with world.worker("w", engines=2, action=signal.SIGKILL, points="none") as (worker, _):
            time.sleep(chance.uniform(0.5, 3.0))
            kills += in_work(world, keys)
            for engine in engines_of(worker):
                engine.kill()
            # A visit needs some 4 s; on a slow machine more, so that rounds grow longer.
            time.sleep(chance.uniform(2.0, 6.0 + len(kills) / 8))
            kills += in_work(world, keys)
            engines = engines_of(worker)
            worker.kill()
            # Without their worker they end by themselves.
            psutil.wait_procs(engines)
    found = world.check(keys)
    assert found.done == {"processed": len(keys)}
    tell("engines and whole workers killed at any moment", found, len(kills), delays(world, kills))


def test_a_worker_that_was_stopped_between_check_and_write_changes_nothing_after_another_took_over(world):
    keys = world.send(n_visits=len(EFFECTS))
    for key, effect in zip(keys, EFFECTS, strict=True):
        world.skip(key, set(EFFECTS) - {effect})
    with world.worker("first", engines=len(EFFECTS), action=signal.SIGSTOP, points="effects") as (
        first,
        engines,
    ):
        wait_for(lambda: all(world.was_at(*where) for where in zip(keys, EFFECTS, strict=True)))
        os.kill(first.pid, signal.SIGSTOP)
        with world.worker("second", engines=2, action=signal.SIGSTOP, points="none"):
            world.wait_until_finished(keys)
        for engine in engines:
            os.kill(engine, signal.SIGCONT)
        wait_for(lambda: all(world.was_at(key, "ended with StaleClaimError") for key in keys))
        os.kill(first.pid, signal.SIGCONT)
    world.check(keys)
    for key in keys:
        first, *others = (attempt.owner.partition("/")[0] for attempt in world.ledger.find(key).attempts)
        assert first == "first"
        assert set(others) == {"second"}
