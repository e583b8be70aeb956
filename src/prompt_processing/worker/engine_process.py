"""The process that does the work on detector-visits, and what it says to its supervisor.

It may be killed at any moment: whatever it changes in the world is safe to repeat. It ends by itself when its
supervisor is gone.
"""

import gc
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Final

import structlog
from astropy.time import Time

from prompt_processing.domain.clock import Clock, NightClock
from prompt_processing.domain.errors import InternalError, PromptError
from prompt_processing.domain.outcome import Outcome, Stopwatch
from prompt_processing.domain.visit import DetectorVisit
from prompt_processing.ledger.port import Claim
from prompt_processing.messaging.memory import MemoryHints
from prompt_processing.messaging.port import HintSource
from prompt_processing.worker.worker import Runner

_LOG: Final = structlog.get_logger(__name__)

GARBAGE: Final = (200_000, 20, 100)
"""Thresholds of the garbage collector: a visit makes many objects, and few that only it could free."""

type Build = Callable[[HintSource, Clock], Runner]
"""Builds what does the work inside the process; it must survive pickling."""


@dataclass(frozen=True, slots=True)
class Job:
    """To the process: work on this."""

    visit: DetectorVisit
    claim: Claim
    clock_offset: float
    """From the wall clock to the night's [s]."""


@dataclass(frozen=True, slots=True)
class Hint:
    """To the process: an image may have come."""


@dataclass(frozen=True, slots=True)
class Ready:
    """From the process: it can work."""


@dataclass(frozen=True, slots=True)
class NotBuilt:
    """From the process: it cannot work."""

    error: PromptError


@dataclass(frozen=True, slots=True)
class Stage:
    """From the process: a stage begins, or has ended."""

    name: str
    seconds: float | None = None
    """How long it took [s]; `None` at its beginning."""


@dataclass(frozen=True, slots=True)
class Reply:
    """From the process: it is done with a job."""

    result: Outcome | PromptError
    latency: float | None = None


def serve(connection: Connection, build: Build) -> None:
    """Work on whatever the supervisor sends, until it is gone.

    Parameters
    ----------
    connection
        To the supervisor.
    build
        Builds what does the work.
    """
    # Whoever stops a whole group of processes means the supervisor, which says what becomes of this one.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    hints, clock, jobs = MemoryHints(), _JobClock(), SimpleQueue[Job]()
    threading.Thread(target=_listen, args=(connection, hints, jobs), name="listener", daemon=True).start()
    try:
        runner = build(hints, clock)
    except PromptError as error:
        connection.send(NotBuilt(error))
        return
    # What is here now stays: it need not be searched for garbage, which is collected between visits.
    gc.freeze()
    gc.set_threshold(*GARBAGE)
    connection.send(Ready())
    while True:
        job = jobs.get()
        clock.offset = job.clock_offset
        connection.send(_work(runner, job, connection))
        gc.collect()


def _listen(connection: Connection, hints: MemoryHints, jobs: "SimpleQueue[Job]") -> None:
    """Pass on what the supervisor sends; without a supervisor, end at once and whatever is going on."""
    while True:
        try:
            message = connection.recv()
        except (EOFError, OSError):
            os._exit(0)
        if isinstance(message, Job):
            jobs.put(message)
        else:
            hints.give()


def _work(runner: Runner, job: Job, connection: Connection) -> Reply:
    watch = _ReportingStopwatch(connection)
    result: Outcome | PromptError
    with structlog.contextvars.bound_contextvars(**job.visit.key._asdict(), attempt=job.claim.attempt):
        try:
            result = runner.run(job.visit, job.claim, watch)
        except PromptError as error:
            result = error
        except Exception as error:  # noqa: BLE001 (nothing may stop the night)
            _LOG.exception("unexpected error")
            result = InternalError(f"{type(error).__name__}: {error}")
    return Reply(result, watch.latency)


class _JobClock:
    """The clock of the night that the present job belongs to."""

    def __init__(self) -> None:
        self.offset = 0.0

    def now(self) -> Time:
        """Return the present time of that night (UTC scale)."""
        return NightClock(self.offset).now()


class _ReportingStopwatch(Stopwatch):
    """Tells the supervisor of each stage, which is all that it knows of an attempt that it ends."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure what happens inside, also when it ends with an error."""
        self._connection.send(Stage(name))
        with super().stage(name):
            yield

    def add(self, name: str, seconds: float) -> None:
        """Add time that was measured elsewhere [s]."""
        super().add(name, seconds)
        self._connection.send(Stage(name, seconds))
