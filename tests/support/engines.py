"""Work to try engines with: what a visit does depends on the name of its group."""

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from local_cloud.fork import CONTEXT  # noqa: F401 (before the first engine)
from local_cloud.visits import detector_visit
from prompt_processing.config import WorkerSettings
from prompt_processing.domain.clock import WallClock, utc_seconds
from prompt_processing.domain.errors import AstrometryError, ConfigError
from prompt_processing.domain.outcome import Delivery, Outcome
from prompt_processing.ledger.memory import MemoryLedger
from prompt_processing.worker.engine import Engine

FOREVER = 600.0


class Scripted:
    """Does what the first word of the group's name says."""

    def __init__(self, hints: Any, clock: Any, folder: Path) -> None:
        self._hints, self._clock, self._folder = hints, clock, folder

    def run(self, visit: Any, claim: Any, watch: Any) -> Outcome:
        what = visit.groupId.split()[0]
        (self._folder / f"begun {visit.groupId}").touch()
        with watch.stage(what):
            getattr(self, f"_{what}", lambda _: None)(visit)
        watch.latency = 1.5
        return Outcome.processed()

    def _crash(self, visit: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def _hang(self, visit: Any) -> None:
        time.sleep(FOREVER)

    def _grow(self, visit: Any) -> None:
        held = bytearray(600_000_000)
        time.sleep(FOREVER + len(held))

    def _wrong(self, visit: Any) -> None:
        raise AstrometryError("no stars")

    def _bug(self, visit: Any) -> None:
        raise KeyError("x")

    def _hint(self, visit: Any) -> None:
        assert self._hints.wait(FOREVER)

    def _clock_of_the_night(self, visit: Any) -> None:
        assert abs(utc_seconds(self._clock.now()) - visit.startTime) < 100.0

    def _meet(self, visit: Any) -> None:
        """Wait until as many visits as the number says are here at the same time."""
        while len(list(self._folder.glob("begun meet*"))) < int(visit.groupId.split()[1]):
            time.sleep(0.01)


def scripted(folder: Path, hints: Any, clock: Any) -> Scripted:
    """Build that work inside an engine."""
    return Scripted(hints, clock, folder)


def broken(hints: Any, clock: Any) -> Scripted:
    """Fail to build anything."""
    raise ConfigError("prompt.yaml: wrong")


def settings(**changes: Any) -> WorkerSettings:
    return WorkerSettings(**{"image_timeout_s": 0.1, "processing_limit_s": FOREVER, **changes})


def engine(folder: Path, ledger: MemoryLedger, **changes: Any) -> Engine:
    return Engine(partial(scripted, folder), ledger=ledger, clock=WallClock(), settings=settings(**changes))


def claim(ledger: MemoryLedger, group: str, owner: str = "w") -> tuple[Any, Any]:
    """Return a visit and a claim on it."""
    visit = detector_visit(groupId=group)
    return visit, ledger.claim(visit, Delivery(f"m {group}", visit.model_dump_json()), owner=owner)


def wait_for(condition: Callable[[], bool], every: float = 0.01, timeout: float = FOREVER) -> None:
    """Wait until something is so, looking at it now and then [s]."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end
        time.sleep(every)
