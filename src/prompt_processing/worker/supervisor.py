"""The supervisor: takes messages from the queue, gives them to engines, and says what became of them."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Self

import structlog

from prompt_processing.config import WorkerSettings
from prompt_processing.domain.errors import StoreError
from prompt_processing.domain.outcome import Disposition
from prompt_processing.messaging.port import Received, VisitQueue
from prompt_processing.worker.engine import Engine
from prompt_processing.worker.worker import Worker

_LOG: Final = structlog.get_logger(__name__)

RECEIVE_TIMEOUT: Final = 1.0
"""Longest wait for a message before looking whether to stop [s]."""
LONGEST_DELAY: Final = 20.0
"""Longest time until a message is delivered again [s]; shorter than the time until a sweep sends another."""
STOP_MARGIN: Final = 1.5
"""Time for giving messages back when the worker is stopped [s]."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One detector-visit at a time."""

    worker: Worker
    engine: Engine


class Supervisor:
    """Works while its context is open; at the exit it drains, and nothing is lost.

    Parameters
    ----------
    queue
        Where the messages come from.
    slots
        How many detector-visits can be worked on at the same time, and by whom.
    sweep
        Sends the messages of visits again that nobody works on.
    settings
        Times of draining and sweeping.

    Attributes
    ----------
    on_handled
        Called with each message and what was said about it, in the thread that has handled it.
    """

    def __init__(
        self,
        *,
        queue: VisitQueue,
        slots: Sequence[Slot],
        sweep: Callable[[], object],
        settings: WorkerSettings,
    ) -> None:
        self._queue = queue
        self._slots = slots
        self._sweep = sweep
        self._settings = settings
        self.on_handled: Callable[[Received, Disposition], None] = lambda *_: None
        self._stopping = threading.Event()
        # One slot polls at a time: the others would only ask the queue more often for nothing.
        self._polling = threading.Lock()
        self._in_work: dict[str, Received] = {}
        self._threads = [
            threading.Thread(target=self._serve, args=(slot,), name=f"slot {number}", daemon=True)
            for number, slot in enumerate(slots)
        ]
        self._threads.append(threading.Thread(target=self._extend, name="extend", daemon=True))
        self._threads.append(threading.Thread(target=self._sweep_now_and_then, name="sweep", daemon=True))

    def __enter__(self) -> Self:
        """Wait until all engines can work, and begin.

        Raises
        ------
        PromptError
            If an engine cannot be built.
        """
        try:
            for engine in self.engines:
                engine.wait_until_ready()
        except BaseException:
            self._close_engines()
            raise
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop: what has not changed anything yet is given back, what has may be finished."""
        self._stopping.set()
        self._queue.close()
        for engine in self.engines:
            engine.drain()
        deadline = time.monotonic() + self._settings.drain_s + STOP_MARGIN
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0.0))
        # Whoever is still busy then waits for a store: its lease ends by itself.
        self._close_engines()

    @property
    def engines(self) -> list[Engine]:
        """The engines of all slots."""
        return [slot.engine for slot in self._slots]

    def hint(self) -> None:
        """Tell all engines that an image may have come."""
        for engine in self.engines:
            engine.hint()

    def _close_engines(self) -> None:
        for engine in self.engines:
            engine.close()

    def _serve(self, slot: Slot) -> None:
        while not self._stopping.is_set():
            with self._polling:
                received = None if self._stopping.is_set() else self._receive()
            if received is not None:
                self._in_work[received.receipt] = received
                said = self._handle(slot, received)
                del self._in_work[received.receipt]
                self._answer(received, said)
                self.on_handled(received, said)

    def _receive(self) -> Received | None:
        try:
            return self._queue.receive(RECEIVE_TIMEOUT)
        except StoreError as error:
            _LOG.warning("no message received", error=str(error))
            self._stopping.wait(RECEIVE_TIMEOUT)
            return None

    def _handle(self, slot: Slot, received: Received) -> Disposition:
        try:
            return slot.worker.handle(received.delivery)
        except Exception:  # noqa: BLE001 (nothing may stop the night)
            _LOG.exception("message not handled", message_id=received.delivery.message_id)
            return Disposition.RETRY

    def _answer(self, received: Received, said: Disposition) -> None:
        """Tell the queue; if that fails, the message comes again by itself."""
        delay = 0.0 if self._stopping.is_set() else min(2.0 ** (received.count - 1), LONGEST_DELAY)
        try:
            if said is Disposition.ACK:
                self._queue.ack(received)
            else:
                self._queue.retry(received, delay)
        except StoreError as error:
            _LOG.warning("queue not told", said=str(said), error=str(error))

    def _extend(self) -> None:
        """Keep messages hidden that are being worked on."""
        while not self._stopping.wait(self._queue.hidden / 3):
            for received in list(self._in_work.values()):
                try:
                    self._queue.extend(received)
                except StoreError as error:
                    _LOG.warning("message not extended", error=str(error))

    def _sweep_now_and_then(self) -> None:
        while not self._stopping.wait(self._settings.sweep_interval_s):
            try:
                self._sweep()
            except StoreError as error:
                _LOG.warning("not swept", error=str(error))
