"""Waiting for the images of a visit: look, wait for a hint or a tick, look again."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import structlog
from astropy.time import Time, TimeDelta

from prompt_processing.arrivals.pointers import Arrivals, detector_number
from prompt_processing.config import WorkerSettings
from prompt_processing.domain.clock import Clock, seconds_between
from prompt_processing.domain.errors import PromptError
from prompt_processing.domain.outcome import Outcome
from prompt_processing.domain.raws import ArrivalPointer, parse_raw_key
from prompt_processing.domain.visit import DetectorVisit
from prompt_processing.ledger.port import Ledger
from prompt_processing.messaging.port import HintSource

_LOG: Final = structlog.get_logger(__name__)

FAST_BEFORE: Final = 5.0
"""A shutter may close before its time: looks are frequent from this long before the prediction [s] ..."""
FAST_AFTER: Final = 20.0
"""... until this long after it [s]."""
AFTER_HINT: Final = (0.05, 0.1, 0.2)
"""Times until the next looks after a hint, which may be there before the pointer is [s]."""


@dataclass(frozen=True, slots=True)
class Images:
    """Images of a visit that came."""

    pointers: tuple[ArrivalPointer, ...]
    """In order of the snaps; at least one."""
    flags: tuple[str, ...]
    """``late`` if one came after the deadline, ``missing-snap`` if one has not come by then."""


class ImageWaiter:
    """Waits for images.

    The arrival pointers are the truth; a hint saves time, a tick does without hints, and a listing of the
    landing store does without pointers.

    Parameters
    ----------
    arrivals
        Tells which raw arrived.
    note
        Notes a raw of the landing store that nobody has noted, given its key.
    hints
        Wakes when an image may have come.
    ledger
        Tells that a visit was cancelled.
    clock
        Clock of the night.
    settings
        How long to wait, and how often to look.
    monotonic
        Clock of the deadline [s].
    """

    def __init__(
        self,
        *,
        arrivals: Arrivals,
        note: Callable[[str], None],
        hints: HintSource,
        ledger: Ledger,
        clock: Clock,
        settings: WorkerSettings,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._arrivals = arrivals
        self._note = note
        self._hints = hints
        self._ledger = ledger
        self._clock = clock
        self._settings = settings
        self._monotonic = monotonic

    def wait(self, visit: DetectorVisit) -> Images | Outcome:
        """Return the images of a visit, or why there are none.

        All images that the event announced are waited for, one if it does not say how many. Those that have
        come by the deadline, or until the visit is cancelled, are taken.

        Raises
        ------
        RawError
            If a pointer cannot be understood.
        StoreError
            If a store does not answer.
        """
        close = self._monotonic() + seconds_between(self._clock.now(), visit.predicted_shutter_close)
        deadline = close + self._settings.image_timeout_s
        next_question = self._monotonic()
        soon: Iterator[float] = iter(())
        # Where somebody notes arrivals nobody has to list: it costs the more the more raws a night has.
        next_listing = max(next_question, close + self._settings.listing_interval_s)
        while True:
            pointers = self._expected(visit)
            now = self._monotonic()
            if len(pointers) >= max(visit.nimages, 1):
                return self._images(visit, pointers)
            # The pointers are looked at more often: all workers ask the one database.
            cancelled = False
            if now >= min(next_question, deadline):
                cancelled = self._ledger.is_cancelled(visit.instrument, visit.groupId)
                next_question = now + self._settings.tick_before_s
            if cancelled or now >= deadline:
                return self._what_came(visit, cancelled=cancelled)
            if now >= next_listing:
                self._note_new(visit)
                next_listing = now + self._settings.listing_interval_s
                continue
            pause = next(soon, self._tick(now - close))
            if self._hints.wait(min(pause, deadline - now, next_listing - now)):
                soon = iter(AFTER_HINT)

    def pause(self, seconds: float) -> None:
        """Wait for nothing but time, or a hint."""
        self._hints.wait(seconds)

    def find(self, visit: DetectorVisit) -> Images | None:
        """Return the images of a visit that are there now."""
        pointers = self._arrivals.find_all(visit)
        return self._images(visit, pointers) if pointers else None

    def _expected(self, visit: DetectorVisit) -> list[ArrivalPointer]:
        found = (self._arrivals.find(visit, snap) for snap in range(max(visit.nimages, 1)))
        return [pointer for pointer in found if pointer is not None]

    def _what_came(self, visit: DetectorVisit, *, cancelled: bool) -> Images | Outcome:
        self._note_new(visit)
        images = self.find(visit)
        if images is not None:
            return images
        if cancelled:
            return Outcome.skipped("cancelled", "the observatory has cancelled the visit")
        limit = self._settings.image_timeout_s
        return Outcome.skipped("no-image", f"none within {limit:.0f} s of the predicted shutter close")

    def _images(self, visit: DetectorVisit, pointers: list[ArrivalPointer]) -> Images:
        used = pointers[: max(visit.nimages, 1)]
        deadline = visit.predicted_shutter_close + TimeDelta(self._settings.image_timeout_s, format="sec")
        flags = []
        if any(Time(pointer.arrived_at, scale="utc") > deadline for pointer in used):
            flags.append("late")
        if len(used) < visit.nimages:
            flags.append("missing-snap")
        return Images(tuple(used), tuple(flags))

    def _note_new(self, visit: DetectorVisit) -> None:
        """Note raws of the visit's night and detector that nobody has noted, until its own are among them.

        The newest come first: a worker that has just begun knows none of the night.
        """
        night = f"{visit.instrument}/{visit.day_obs}"
        for key in reversed(self._arrivals.list_new(night)):
            try:
                raw = parse_raw_key(key)
                if raw is None or detector_number(raw) != visit.detector:
                    continue
                self._note(key)
            except PromptError as error:
                # Not this visit's image, or it cannot be told whose it is.
                _LOG.warning("raw not noted", key=key, error=str(error))
            if len(self._expected(visit)) >= max(visit.nimages, 1):
                return

    def _tick(self, since_close: float) -> float:
        """Return how long to wait for a hint before the next look [s]."""
        if since_close < -FAST_BEFORE:
            return min(self._settings.tick_before_s, -since_close - FAST_BEFORE + self._settings.tick_s)
        return self._settings.tick_s if since_close < FAST_AFTER else self._settings.tick_late_s
