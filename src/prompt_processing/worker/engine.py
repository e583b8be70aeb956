"""The engine: a process of its own that does the work, and that can be ended at any moment.

A hang, a crash or memory without end costs one attempt, never the worker. Engines are forked from a server
that can have imported everything already (`preload`), so a new one is ready at once.
"""

import threading
import time
from collections.abc import Callable
from typing import Any, Final

import psutil
import structlog

from prompt_processing.config import WorkerSettings
from prompt_processing.domain.clock import Clock, WallClock, seconds_between
from prompt_processing.domain.errors import DrainedError, EngineLostError, PromptError, StoreError
from prompt_processing.domain.outcome import Outcome, Stopwatch
from prompt_processing.domain.visit import DetectorVisit
from prompt_processing.ledger.port import Claim, Ledger
from prompt_processing.runtime.fork_server import CONTEXT
from prompt_processing.worker.engine_process import Build, Hint, Job, NotBuilt, Reply, Stage, serve

_LOG: Final = structlog.get_logger(__name__)

START_TIMEOUT: Final = 120.0
"""Longest time until a new engine is ready [s]; the first one waits for all imports."""
TICK: Final = 0.25
"""Time between two looks at an engine that works [s]."""


class EngineProcess:
    """One process, from its start to its end.

    Parameters
    ----------
    build
        Builds what does the work.
    """

    def __init__(self, build: Build) -> None:
        self._connection, theirs = CONTEXT.Pipe()
        self._process = CONTEXT.Process(target=serve, args=(theirs, build), name="engine", daemon=True)
        self._process.start()
        theirs.close()
        self._sending = threading.Lock()
        self._first = threading.Lock()
        self._ready = False
        self.visits = 0
        """How many visits it has done."""

    @property
    def pid(self) -> int:
        """Number of the process."""
        return int(self._process.pid or 0)

    def is_ready(self, timeout: float = 0.0) -> bool:
        """Tell whether it can work, waiting for that for some time [s].

        Raises
        ------
        PromptError
            If it could not be built.
        EngineLostError
            If it has ended.
        """
        if self._ready or not self._first.acquire(blocking=timeout > 0):
            return self._ready
        try:
            if not self._ready and self._connection.poll(timeout):
                message = self.receive()
                if isinstance(message, NotBuilt):
                    raise message.error
                self._ready = True
        finally:
            self._first.release()
        return self._ready

    def send(self, message: Job | Hint) -> None:
        """Send a message; a process that has ended is found out by whoever receives."""
        with self._sending:
            try:
                self._connection.send(message)
            except OSError as error:
                _LOG.debug("engine is gone", pid=self.pid, error=str(error))

    def poll(self, timeout: float) -> bool:
        """Tell whether there is something to receive, waiting for that for some time [s]."""
        return self._connection.poll(timeout)

    def receive(self) -> Any:
        """Return the next message.

        Raises
        ------
        EngineLostError
            If the process has ended.
        """
        try:
            return self._connection.recv()
        except (EOFError, OSError) as error:
            self._process.join(TICK)
            code = self._process.exitcode
            how = f"signal {-code}" if code is not None and code < 0 else f"status {code}"
            raise EngineLostError(f"engine {self.pid} has ended with {how}") from error

    def memory(self) -> float:
        """Return its resident set [MB]; 0 if it has ended."""
        try:
            return float(psutil.Process(self.pid).memory_info().rss) / 1e6
        except psutil.Error:
            return 0.0

    def end(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.join()
        self._connection.close()


class Engine:
    """A `~prompt_processing.worker.worker.Runner` that works in another process, one visit at a time.

    Parameters
    ----------
    build
        Builds what does the work inside the process.
    ledger
        Where signs of life are given for the claim.
    clock
        Clock of the night.
    settings
        Limits of an engine and of a visit.
    """

    def __init__(self, build: Build, *, ledger: Ledger, clock: Clock, settings: WorkerSettings) -> None:
        self._build = build
        self._ledger = ledger
        self._clock = clock
        self._settings = settings
        self._process = EngineProcess(build)
        self._next: EngineProcess | None = None
        self._draining = threading.Event()

    @property
    def pid(self) -> int:
        """Number of the present process."""
        return self._process.pid

    def wait_until_ready(self) -> None:
        """Wait until the process can work.

        Raises
        ------
        PromptError
            If it cannot be built.
        StoreError
            If it is not ready in time.
        """
        if not self._process.is_ready(START_TIMEOUT):
            raise StoreError(f"engine {self.pid} was not ready within {START_TIMEOUT:.0f} s")

    def is_ready(self) -> bool:
        """Tell whether the process can work, without waiting for it; it may be asked from any thread."""
        try:
            return self._process.is_ready()
        except PromptError as error:
            _LOG.error("engine cannot work", error=str(error))
            return False

    def run(self, visit: DetectorVisit, claim: Claim, watch: Stopwatch) -> Outcome:
        """Process a detector-visit in the process, and keep its claim alive.

        Parameters
        ----------
        visit
            The unit of work.
        claim
            The right to do it.
        watch
            Takes the stage times, also of an attempt that is ended.

        Raises
        ------
        PromptError
            As `prompt_processing.worker.process.VisitProcessor.run` does.
        EngineLostError
            If the process has ended, has taken too long or too much memory.
        StaleClaimError
            If somebody else has taken over.
        DrainedError
            If the worker is being stopped.
        """
        if self._draining.is_set():
            raise DrainedError("the worker is being stopped")
        self._replace_worn()
        try:
            self._make_ready()
            attempt = _Attempt(self._process, self._ledger, self._clock, self._settings, self._draining)
            reply = attempt.run(visit, claim, watch)
        except BaseException:
            self._process.end()
            if not self._draining.is_set():
                self._process = EngineProcess(self._build)
            raise
        self._process.visits += 1
        if self._process.visits >= self._settings.restart_after and self._next is None:
            self._next = EngineProcess(self._build)
        watch.latency = reply.latency
        if isinstance(reply.result, PromptError):
            raise reply.result
        return reply.result

    def hint(self) -> None:
        """Tell that an image may have come."""
        self._process.send(Hint())

    def drain(self) -> None:
        """Let the present visit end soon: see `DrainedError`. No other visit is worked on after that."""
        self._draining.set()

    def close(self) -> None:
        """End the process."""
        self.drain()
        self._process.end()
        if self._next is not None:
            self._next.end()

    def _make_ready(self) -> None:
        """Wait until the process can work; that it cannot is not the fault of any visit."""
        try:
            self.wait_until_ready()
        except PromptError as error:
            raise StoreError(f"no engine: {error}") from error

    def _replace_worn(self) -> None:
        """Change over to the next process as soon as that can work."""
        if self._next is None:
            return
        try:
            ready = self._next.is_ready()
        except PromptError as error:
            _LOG.error("no new engine, the old one goes on", error=str(error))
            self._next.end()
            self._next = None
            return
        if ready:
            _LOG.info("engine replaced", visits=self._process.visits, old=self.pid, new=self._next.pid)
            self._process.end()
            self._process, self._next = self._next, None


class _Attempt:
    """The supervisor's part of one attempt."""

    def __init__(
        self,
        process: EngineProcess,
        ledger: Ledger,
        clock: Clock,
        settings: WorkerSettings,
        draining: threading.Event,
    ) -> None:
        self._process = process
        self._ledger = ledger
        self._clock = clock
        self._settings = settings
        self._draining = draining
        self._stage = "start"

    def run(self, visit: DetectorVisit, claim: Claim, watch: Stopwatch) -> Reply:
        """Send the job, and look after the process until it replies."""
        now = self._clock.now()
        self._process.send(Job(visit, claim, seconds_between(WallClock().now(), now)))
        to_image = seconds_between(now, visit.predicted_shutter_close) + self._settings.image_timeout_s
        limit = max(to_image, 0.0) + self._settings.processing_limit_s
        deadline = time.monotonic() + limit
        renew = self._periodic(self._settings.lease_s / 3, lambda: self._renew(claim))
        look = self._periodic(1.0, self._check_memory)
        drain_until: float | None = None
        while True:
            if self._process.poll(TICK):
                reply = self._take_in(watch)
                if reply is not None:
                    return reply
            renew()
            look()
            if time.monotonic() > deadline:
                raise EngineLostError(f"ended after {limit:.0f} s, in stage {self._stage}")
            if self._draining.is_set():
                drain_until = drain_until or time.monotonic() + self._time_to_drain(claim)
                if time.monotonic() >= drain_until:
                    raise DrainedError(f"the worker is being stopped, in stage {self._stage}")

    def _take_in(self, watch: Stopwatch) -> Reply | None:
        """Take in one message of the process; return it if it is the last one."""
        try:
            message = self._process.receive()
        except EngineLostError as error:
            raise EngineLostError(f"{error}, in stage {self._stage}") from error
        if isinstance(message, Reply):
            return message
        if isinstance(message, Stage):
            if message.seconds is None:
                self._stage = message.name
            else:
                watch.add(message.name, message.seconds)
        return None

    def _renew(self, claim: Claim) -> None:
        try:
            self._ledger.renew(claim, lease=self._settings.lease_s)
        except StoreError as error:
            # The next time may be better; and no effect is done without the ledger's consent.
            _LOG.warning("no sign of life given", error=str(error))

    def _check_memory(self) -> None:
        memory = self._process.memory()
        if memory > self._settings.memory_limit_mb:
            limit = self._settings.memory_limit_mb
            raise EngineLostError(f"ended with {memory:.0f} MB, limit {limit} MB, in stage {self._stage}")

    def _time_to_drain(self, claim: Claim) -> float:
        """Return how long a visit may go on [s]: effects that have begun may be finished."""
        try:
            record = self._ledger.find(claim.visit)
        except StoreError:
            return 0.0
        return self._settings.drain_s if record is not None and record.steps else 0.0

    @staticmethod
    def _periodic(interval: float, action: Callable[[], None]) -> Callable[[], None]:
        """Return a function that does something if the last time is long enough ago."""
        due = time.monotonic() + interval

        def act() -> None:
            nonlocal due
            if time.monotonic() >= due:
                due = time.monotonic() + interval
                action()

        return act
