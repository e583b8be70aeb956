"""Ports for what comes in and goes out as messages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Protocol

from prompt_processing.domain.outcome import Delivery

NO_ORIGIN: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Received:
    """A message that was received and is neither acknowledged nor given back yet."""

    delivery: Delivery
    receipt: str
    """Names this delivery to the queue; a redelivery has another one."""
    count: int
    """How often the message was delivered, from 1."""


class VisitQueue(Protocol):
    """Delivers each message at least once. All methods raise `StoreError` if the queue does not answer."""

    hidden: float
    """How long a message that was received is hidden from others [s]."""

    def receive(self, timeout: float) -> Received | None:
        """Return the next message, or `None` if none came.

        The message is hidden from others until it is acknowledged, given back, or its time is over.

        Parameters
        ----------
        timeout
            How long to wait for one [s].
        """
        ...

    def extend(self, received: Received) -> None:
        """Hide a message for its full time again, because it is still being worked on.

        Nothing happens if it was delivered to somebody else meanwhile.
        """
        ...

    def ack(self, received: Received) -> None:
        """Say that a message is done with; nothing happens if it was delivered to somebody else meanwhile."""
        ...

    def retry(self, received: Received, delay: float = 0.0) -> None:
        """Give a message back, to be delivered again.

        Parameters
        ----------
        received
            The message; nothing happens if it was delivered to somebody else meanwhile.
        delay
            Not before this time is over [s].
        """
        ...

    def close(self) -> None:
        """Receive nothing any more."""
        ...


class Publisher(Protocol):
    """Sends messages."""

    def publish(self, bodies: Sequence[str], origin: Mapping[str, str] = NO_ORIGIN) -> None:
        """Send messages; when it returns they will be delivered.

        Parameters
        ----------
        bodies
            JSON texts, each as `prompt_processing.domain.visit.parse_message` reads it.
        origin
            Where all of them come from: attributes for those who search or measure.

        Raises
        ------
        StoreError
            If the other side does not take them all now; some may have been taken.
        RefusedMessageError
            If the other side will never take one of them; some may have been taken.
        """
        ...


class HintSource(Protocol):
    """Tells that images may have arrived. A hint may be lost, late, doubled or wrong: it only saves time."""

    def wait(self, timeout: float) -> bool:
        """Wait for a hint.

        Parameters
        ----------
        timeout
            Longest time to wait [s].

        Returns
        -------
        hinted
            `True` at once when there was a hint since the last call, `False` when the time is over.
        """
        ...

    def close(self) -> None:
        """Wait for no hint any more."""
        ...
