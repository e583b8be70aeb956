"""The visits of a night, each with its events and raws, and the times at which things happened."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Final

import numpy as np

from prompt_processing.domain.clock import from_tai_seconds, utc_seconds
from prompt_processing.domain.raws import RawKey
from prompt_processing.domain.visit import NextVisit
from prompt_processing.instruments.cameras import get_camera
from prompt_processing.night.shots import Shot

EXPOSURE: Final = 30.0
"""Exposure of a visit of the survey [s]."""
SLEW: Final = 1.6
"""Median of what a slew takes longer than the read-out during which it begins [s]."""
SLEW_SPREAD: Final = 1.0
"""Standard deviation of its natural logarithm: of a hundred slews one takes longer than 16 s."""


@dataclass(frozen=True, slots=True)
class ReadOut:
    """A raw of a visit."""

    raw: RawKey
    at: float
    """When it is read out [UTC s since 1970]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """A visit of a night; times are in UTC seconds since 1970."""

    instrument: str
    group: str
    """Group of the raws, or the name of their exposure if they have none."""
    events: tuple[NextVisit, ...]
    """Usually one; none for raws that were not announced."""
    read_outs: tuple[ReadOut, ...]
    opens: float
    """When the shutter opens for the first time, as the headers say, or else the event."""
    closes: float
    """When it is closed for the last time, as the event predicts or the headers say, whichever is later."""

    def shifted(self, seconds: float) -> "Visit":
        """Return this visit at another time; what the headers of its raws say is left as it is."""
        events = (
            event.model_copy(
                update={
                    name: getattr(event, name) + seconds
                    for name in ("startTime", "private_sndStamp", "private_efdStamp")
                }
            )
            for event in self.events
        )
        return replace(
            self,
            events=tuple(events),
            read_outs=tuple(ReadOut(each.raw, each.at + seconds) for each in self.read_outs),
            opens=self.opens + seconds,
            closes=self.closes + seconds,
        )


def gather_visits(events: Iterable[NextVisit], shots: Iterable[Shot]) -> list[Visit]:
    """Return the visits of a night in the order in which their shutters open.

    Parameters
    ----------
    events
        Events of the night. Those that are no observation are left out.
    shots
        Raws of the night. Those that no event announces are visits of their own.
    """
    found: dict[tuple[str, str], tuple[list[NextVisit], list[Shot]]] = defaultdict(lambda: ([], []))
    for event in events:
        if event.instrument:
            found[event.instrument, event.groupId][0].append(event)
    for shot in shots:
        found[shot.raw.instrument, shot.group or shot.raw.obs_id][1].append(shot)
    visits = [_visit(*name, announced, taken) for name, (announced, taken) in found.items()]
    return sorted(visits, key=lambda visit: (visit.opens, visit.instrument, visit.group))


def _visit(instrument: str, group: str, events: list[NextVisit], shots: list[Shot]) -> Visit:
    closes = [utc_seconds(shot.close) for shot in shots]
    starts = [utc_seconds(from_tai_seconds(event.startTime)) for event in events]
    opened = [utc_seconds(shot.open) for shot in shots if shot.open is not None]
    return Visit(
        instrument=instrument,
        group=group,
        events=tuple(events),
        read_outs=tuple(ReadOut(shot.raw, utc_seconds(shot.at)) for shot in shots),
        opens=min(opened or starts or closes),
        closes=max(closes + [utc_seconds(event.predicted_shutter_close) for event in events]),
    )


def respace(visits: Sequence[Visit], intervals: Iterator[float]) -> list[Visit]:
    """Move visits so that they follow each other at other intervals; the first stays where it is.

    Parameters
    ----------
    visits
        Visits from `gather_visits`, at least one.
    intervals
        From the opening of a shutter to that of the next visit [s].
    """
    opens = visits[0].opens
    moved = [visits[0]]
    for visit, interval in zip(visits[1:], intervals, strict=False):
        opens += interval
        moved.append(visit.shifted(opens - visit.opens))
    return moved


def regular_cadence(seconds: float) -> Iterator[float]:
    """Return intervals that are all the same [s]."""
    return repeat(seconds)


def lsstcam_cadence(seed: int) -> Iterator[float]:
    """Yield intervals as of the survey with LSSTCam [s].

    Half of them are shorter than its nominal 34 s. None is shorter than exposure and read-out, which is
    about the 32 s of the operations rehearsal in DMTN-313. Slews have the long tail of a lognormal
    distribution.
    """
    rng = np.random.default_rng(seed)
    readout = get_camera("LSSTCam").readout
    while True:
        yield EXPOSURE + readout + SLEW * float(rng.lognormal(0.0, SLEW_SPREAD))
