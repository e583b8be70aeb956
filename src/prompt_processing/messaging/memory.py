"""Messages in memory: for one process, for tests and for trying things out."""

import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from prompt_processing.domain.outcome import Delivery
from prompt_processing.messaging.port import NO_ORIGIN, Received


@dataclass(slots=True)
class _Message:
    """A message that is not done with."""

    delivery: Delivery
    visible_at: float
    count: int = 0

    def deliver(self, visible_at: float) -> Received:
        """Return the next delivery, and hide the message for its time."""
        self.visible_at = visible_at
        self.count += 1
        return Received(self.delivery, f"{self.delivery.message_id}/{self.count}", self.count)


class MemoryQueue:
    """A `~prompt_processing.messaging.port.VisitQueue` and `~prompt_processing.messaging.port.Publisher`.

    Parameters
    ----------
    hidden
        How long a message that was received is hidden from others [s].
    now
        The clock of that time [s]. Timeouts are always real time.
    """

    def __init__(self, *, hidden: float = 60.0, now: Callable[[], float] = time.monotonic) -> None:
        self.hidden = hidden
        self._now = now
        self._changed = threading.Condition()
        self._messages: dict[str, _Message] = {}
        """In order of publication."""

    def publish(self, bodies: Sequence[str], origin: Mapping[str, str] = NO_ORIGIN) -> None:  # noqa: ARG002 (not kept)
        """Send messages; see the port."""
        with self._changed:
            for body in bodies:
                message_id = uuid.uuid4().hex
                self._messages[message_id] = _Message(Delivery(message_id, body), self._now())
            self._changed.notify_all()

    def receive(self, timeout: float) -> Received | None:
        """Return the next message; see the port."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                now = self._now()
                for message in self._messages.values():
                    if message.visible_at <= now:
                        return message.deliver(now + self.hidden)
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
                hidden = (message.visible_at - now for message in self._messages.values())
                self._changed.wait(min(left, min(hidden, default=left)))

    def extend(self, received: Received) -> None:
        """Hide a message for its full time again; see the port."""
        self._show_in(received, self.hidden)

    def ack(self, received: Received) -> None:
        """Say that a message is done with; see the port."""
        with self._changed:
            if self._find(received) is not None:
                del self._messages[received.delivery.message_id]

    def retry(self, received: Received, delay: float = 0.0) -> None:
        """Give a message back; see the port."""
        self._show_in(received, delay)

    def close(self) -> None:
        """Nothing to do; see the port."""

    def _show_in(self, received: Received, delay: float) -> None:
        with self._changed:
            message = self._find(received)
            if message is not None:
                message.visible_at = self._now() + delay
                self._changed.notify_all()

    def _find(self, received: Received) -> _Message | None:
        """Return the message, `None` if it is done with or was delivered to somebody else meanwhile."""
        message = self._messages.get(received.delivery.message_id)
        return message if message is not None and message.count == received.count else None


class MemoryHints:
    """A `~prompt_processing.messaging.port.HintSource` that hints when it is told to."""

    def __init__(self) -> None:
        self._hinted = threading.Event()

    def give(self) -> None:
        """Give a hint."""
        self._hinted.set()

    def wait(self, timeout: float) -> bool:
        """Wait for a hint; see the port."""
        if not self._hinted.wait(timeout):
            return False
        self._hinted.clear()
        return True

    def close(self) -> None:
        """Wake whoever waits; see the port."""
        self._hinted.set()
