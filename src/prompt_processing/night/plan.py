"""What camera and scheduler will do in a night, and when, with the faults that they are to have.

A plan depends on its arguments alone. Whether a fault strikes is drawn from the seed and the name of what it
strikes: a fault of one raw changes nothing for another, and a higher fraction only adds to a lower one.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from prompt_processing.domain.clock import utc_seconds
from prompt_processing.domain.errors import PromptError
from prompt_processing.domain.raws import RawKey
from prompt_processing.domain.visit import NextVisit
from prompt_processing.instruments.fan_out import Active, detector_visits
from prompt_processing.night.landing import WHOLE
from prompt_processing.night.visits import ReadOut, Visit

LATE_BY: Final = 10.0
"""From the end of the wait for an image until a late one appears [s]."""
AGAIN_AFTER: Final = 1.0
"""Until a message or an upload is repeated, or a sidecar follows that should have come first [s]."""


class Fault(StrEnum):
    """What may go wrong between a telescope and us."""

    LATE = "late"
    """A raw appears after the worker has stopped waiting for it."""
    LOST = "lost"
    """A raw never appears."""
    DUPLICATE = "duplicate"
    """The messages of an event are published, or an image is uploaded, twice."""
    OUT_OF_ORDER = "out-of-order"
    """An image appears before its sidecar; the messages of an event are published in reversed order."""
    TRUNCATED = "truncated"
    """Only the first part of an image appears."""


@dataclass(frozen=True, slots=True)
class Timing:
    """When things happen [s]."""

    lead: float = 20.0
    """Shortest time from the publication of an event to the opening of the shutter; with minus infinity an
    event that was late is late again."""
    longest_wait: float = math.inf
    """Longest time from the publication of an event to the shutter's close: an earlier event is delayed."""
    jitter: float = 1.0
    """Longest additional time after the read-out until a raw appears; it differs from raw to raw."""
    image_timeout: float = 60.0
    """How long after the predicted shutter close workers wait for an image."""


@dataclass(frozen=True, slots=True)
class Publish:
    """An event is announced."""

    at: float
    """When [UTC s since 1970, on the clock of the night]; of the other actions too."""
    group: str
    event: NextVisit
    bodies: tuple[str, ...]
    """Messages, one per detector."""
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True, slots=True)
class PutSidecar:
    """The sidecar of a raw appears, if it has one."""

    at: float
    raw: RawKey


@dataclass(frozen=True, slots=True)
class PutImage:
    """A raw appears."""

    at: float
    raw: RawKey
    keep: float = WHOLE
    """Fraction of its bytes that arrive, from the first on."""
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True, slots=True)
class Lose:
    """A raw does not appear."""

    at: float
    raw: RawKey


type Action = Publish | PutSidecar | PutImage | Lose


def plan(
    visits: Sequence[Visit],
    *,
    timing: Timing,
    faults: Mapping[Fault, float],
    seed: int,
    active: Active | None = None,
    on_error: Callable[[str], None],
) -> list[Action]:
    """Return what is done in a night, in the order of time.

    Parameters
    ----------
    visits
        Visits of the night.
    timing
        When things happen.
    faults
        How many of the events and raws each fault strikes, from 0 to 1; none that are not named.
    seed
        Decides which, and how long after its read-out a raw appears.
    active
        Detectors that are processed, by instrument, as in `~prompt_processing.instruments.fan_out`.
    on_error
        Called with what is wrong with an event that cannot be observed; its raws appear all the same.
    """
    planner = _Planner(timing, faults, seed)
    actions: list[Action] = []
    for visit in visits:
        for event in visit.events:
            actions += planner.messages(visit, event, _bodies(event, active, on_error))
        for read_out in visit.read_outs:
            actions += planner.raw(visit, read_out)
    # Of what happens at the same time the order is kept: a sidecar comes before its image.
    return sorted(actions, key=lambda action: action.at)


def _bodies(event: NextVisit, active: Active | None, on_error: Callable[[str], None]) -> tuple[str, ...]:
    try:
        return tuple(visit.model_dump_json() for visit in detector_visits(event, active))
    except PromptError as error:
        on_error(f"event of group {event.groupId}: {error}")
        return ()


class _Planner:
    """Turns events and raws into actions."""

    def __init__(self, timing: Timing, faults: Mapping[Fault, float], seed: int) -> None:
        self._timing = timing
        self._faults = faults
        self._seed = seed

    def messages(self, visit: Visit, event: NextVisit, bodies: tuple[str, ...]) -> Iterator[Action]:
        """Yield the publication of an event."""
        if not bodies:
            return
        at = min(utc_seconds(event.published), visit.opens - self._timing.lead)
        at = max(at, visit.closes - self._timing.longest_wait)
        reversible = (Fault.OUT_OF_ORDER,) if len(bodies) > 1 else ()
        struck = self._struck(f"{visit.instrument} {visit.group}", Fault.DUPLICATE, *reversible)
        if Fault.OUT_OF_ORDER in struck:
            bodies = bodies[::-1]
        yield Publish(at, visit.group, event, bodies, struck)
        if Fault.DUPLICATE in struck:
            yield Publish(at + AGAIN_AFTER, visit.group, event, bodies, struck)

    def raw(self, visit: Visit, read_out: ReadOut) -> Iterator[Action]:
        """Yield what becomes of a raw."""
        name = str(read_out.raw)
        jitter = self._timing.jitter * self._draw("jitter", name)
        struck = self._struck(name, *Fault)
        if Fault.LOST in struck:
            yield Lose(read_out.at + jitter, read_out.raw)
            return
        due = visit.closes + self._timing.image_timeout + LATE_BY if Fault.LATE in struck else read_out.at
        at = due + jitter
        keep = 0.1 + 0.8 * self._draw("keep", name) if Fault.TRUNCATED in struck else WHOLE
        yield PutSidecar(at + AGAIN_AFTER if Fault.OUT_OF_ORDER in struck else at, read_out.raw)
        yield PutImage(at, read_out.raw, keep, struck)
        if Fault.DUPLICATE in struck:
            yield PutImage(at + AGAIN_AFTER, read_out.raw, keep, struck)

    def _struck(self, name: str, *faults: Fault) -> tuple[Fault, ...]:
        return tuple(fault for fault in faults if self._draw(fault, name) < self._faults.get(fault, 0.0))

    def _draw(self, what: str, name: str) -> float:
        """Return a number from 0 to below 1 that is evenly distributed over names."""
        digest = hashlib.sha256(f"{self._seed} {what} {name}".encode()).digest()
        return int.from_bytes(digest[:6]) / 2**48
