"""Outcome of a detector-visit, its stage times, and the answer to its message."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum

from prompt_processing.domain.errors import PermanentError


class Status(StrEnum):
    """The three ways to end."""

    PROCESSED = "processed"
    SKIPPED = "skipped"
    FAILED = "failed"


class Disposition(StrEnum):
    """What the worker tells the queue about a delivery."""

    ACK = "ack"
    """Done with: never deliver it again."""
    RETRY = "retry"
    """Deliver it again later."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message as it was delivered."""

    message_id: str
    """The sender's identifier, the same each time that the message is delivered."""
    body: str
    """JSON text of the message."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a visit on a detector ended."""

    status: Status
    reason: str | None = None
    """Reason code, such as ``no-image``, ``cancelled``, ``expired``, ``no-pipeline`` or the code of an error;
    `None` only for a visit that was processed in full."""
    detail: str = ""
    """What exactly, in words."""
    flags: tuple[str, ...] = field(default=())
    """Remarks such as ``late``, ``fallback`` or ``missing-snap``, sorted."""

    def __post_init__(self) -> None:
        if (self.reason is None) != (self.status is Status.PROCESSED):
            raise ValueError(f"an outcome is processed, or has a reason: {self.status}, {self.reason}")
        object.__setattr__(self, "flags", tuple(sorted(set(self.flags))))

    @classmethod
    def processed(cls, *flags: str) -> "Outcome":
        """Return the outcome of a visit that was processed."""
        return cls(Status.PROCESSED, flags=flags)

    @classmethod
    def skipped(cls, reason: str, detail: str = "", *flags: str) -> "Outcome":
        """Return the outcome of a visit that was not processed, for a reason."""
        return cls(Status.SKIPPED, reason, detail, flags)

    @classmethod
    def failed(cls, error: PermanentError, *flags: str) -> "Outcome":
        """Return the outcome of a visit that ended with an error."""
        return cls(Status.FAILED, error.code, str(error), flags)

    def __str__(self) -> str:
        text = self.status if self.reason is None else f"{self.status}:{self.reason}"
        return f"{text} ({', '.join(self.flags)})" if self.flags else str(text)


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Where the time of an attempt went."""

    seconds: Mapping[str, float] = field(default_factory=dict)
    """Wall time of each stage [s], in the order they ran."""
    latency: float | None = None
    """From shutter close to the alerts being out, or to the end of an attempt that sent none [s]; negative if
    that was before, `None` if it is not known."""


class Stopwatch:
    """Measures the stages of one attempt on the monotonic clock; a repeated stage adds up.

    Attributes
    ----------
    latency
        As in `StageTimes`; set when the alerts are sent.
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self.latency: float | None = None

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure what happens inside, also when it ends with an error."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.add(name, time.monotonic() - start)

    def add(self, name: str, seconds: float) -> None:
        """Add time that was measured elsewhere [s]."""
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    def times(self) -> StageTimes:
        """Return what was measured so far."""
        return StageTimes(dict(self._seconds), self.latency)
