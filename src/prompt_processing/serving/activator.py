"""The activator: a worker whose messages are pushed to it, one detector-visit at a time."""

import atexit
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import structlog

from prompt_processing.config import Settings
from prompt_processing.domain.clock import seconds_between
from prompt_processing.domain.errors import EventError
from prompt_processing.domain.outcome import Delivery, Disposition
from prompt_processing.domain.visit import DetectorVisit, parse_message
from prompt_processing.factory.worker import Factory, night_clock, unique_owner
from prompt_processing.serving.border import NO_CONTENT, UNAVAILABLE, Border
from prompt_processing.serving.envelope import Pushed
from prompt_processing.serving.identity import TokenVerifier
from prompt_processing.worker.engine import Engine
from prompt_processing.worker.worker import Worker

_LOG: Final = structlog.get_logger(__name__)

BUSY: Final = 429
"""Answer while another visit is being worked on; the platform sends the message elsewhere, or again later."""


REQUEST_LIMIT: Final = 570.0
"""Longest time for which a request may stay open [s]: Pub/Sub delivers its message again after 600 s."""


class Activator:
    """Handles pushed messages.

    Parameters
    ----------
    worker
        Handles a message.
    engine
        Its engine.
    longest
        Returns how long a visit may take from now on [s].
    """

    def __init__(
        self, worker: Worker, engine: Engine, longest: Callable[[DetectorVisit], float] = lambda _: 0.0
    ) -> None:
        self._worker = worker
        self._engine = engine
        self._longest = longest
        self._working = threading.Lock()
        self._stopping = threading.Event()

    def handle(self, pushed: Pushed) -> int:
        """Handle a message, and return the status that tells Pub/Sub what became of it.

        Returns
        -------
        status
            204 if it is done with, 429 or 503 if it is to be delivered again.
        """
        visit = _visit(pushed.data)
        if visit is None:
            return self._work(pushed)
        if self._longest(visit) > REQUEST_LIMIT:
            _LOG.info("visit is too far ahead for a request", **visit.key._asdict())
            return UNAVAILABLE
        if not self._working.acquire(blocking=False):
            return BUSY
        try:
            return UNAVAILABLE if self._stopping.is_set() else self._work(pushed)
        finally:
            self._working.release()

    def is_ready(self) -> bool:
        """Tell whether the engine can work, or does."""
        return not self._stopping.is_set() and (self._working.locked() or self._engine.is_ready())

    def stop(self) -> None:
        """Let the present visit end soon, and take no other one."""
        self._stopping.set()
        self._engine.drain()

    def close(self) -> None:
        """End the engine."""
        self._engine.close()

    def _work(self, pushed: Pushed) -> int:
        said = self._worker.handle(Delivery(pushed.message_id, pushed.data))
        return NO_CONTENT if said is Disposition.ACK else UNAVAILABLE


def start_activator(repo: Path, set_up_logging: Callable[[], None]) -> Border:
    """Start the worker of this process, and return what serves its requests.

    SIGTERM lets it drain, and then does what it did before.

    Parameters
    ----------
    repo
        Folder of the repository.
    set_up_logging
        Sets up logging inside an engine.

    Raises
    ------
    ConfigError
        If a setting is wrong.
    PromptError
        If the engine cannot be built.
    """
    settings = Settings.load(repo)
    verifier = TokenVerifier(settings.push, dict(os.environ))
    clock = night_clock(settings)
    slot = Factory(repo, clock).slot(unique_owner(), set_up_logging)
    limits = settings.worker.image_timeout_s + settings.worker.processing_limit_s

    def longest(visit: DetectorVisit) -> float:
        ahead = seconds_between(clock.now(), visit.predicted_shutter_close)
        # One that is too far ahead for any worker ends at once, with an outcome.
        return 0.0 if ahead > settings.worker.expiry_s else ahead + limits

    activator = Activator(slot.worker, slot.engine, longest)
    _on_termination(activator.stop)
    # At its end the interpreter waits for its children, and only `close` ends the engine.
    atexit.register(activator.close)
    return Border(settings.push, verifier, handle=activator.handle, is_ready=activator.is_ready)


def _visit(body: str) -> DetectorVisit | None:
    """Return the visit that a message is about; all others need no engine."""
    try:
        message = parse_message(body)
    except EventError:
        return None  # the worker says what is wrong with it
    return message if isinstance(message, DetectorVisit) else None


def _on_termination(action: Callable[[], None]) -> None:
    """Do something at SIGTERM, before what is done at it anyway."""
    before = signal.getsignal(signal.SIGTERM)

    def act(number: int, frame: Any) -> None:
        action()
        if callable(before):
            before(number, frame)
        else:
            raise SystemExit(0)

    signal.signal(signal.SIGTERM, act)
