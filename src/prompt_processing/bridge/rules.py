"""Which events concern whom."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from prompt_processing.config import BridgeSettings
from prompt_processing.domain.clock import Clock, utc_seconds
from prompt_processing.domain.visit import (
    CancelVisit,
    CoordinateSystem,
    DetectorVisit,
    NextVisit,
    NextVisitCanceled,
)
from prompt_processing.instruments.cameras import CAMERAS
from prompt_processing.instruments.detector_map import DetectorMap
from prompt_processing.instruments.fan_out import detector_visits


@dataclass(frozen=True, slots=True)
class Skipped:
    """An event without messages."""

    reason: str


class Rules:
    """Say who gets an event.

    Parameters
    ----------
    settings
        Section ``bridge`` of the settings.
    detectors
        Which detectors are switched on.
    expiry
        Age at which an event is too old [s].
    clock
        Clock of the night.
    """

    def __init__(
        self, settings: BridgeSettings, detectors: DetectorMap, *, expiry: float, clock: Clock
    ) -> None:
        self._settings = settings
        self._detectors = detectors
        self._expiry = expiry
        self._clock = clock

    def now(self) -> float:
        """Return the time on the clock of the night [UTC s since 1970]."""
        return utc_seconds(self._clock.now())

    def messages(
        self, event: NextVisit | NextVisitCanceled, seen: float
    ) -> Sequence[DetectorVisit | CancelVisit] | Skipped:
        """Return the messages of an event: one per detector, or one per instrument if it is cancelled.

        Parameters
        ----------
        event
            The event.
        seen
            When it came to the bridge, as `now` tells it: what is older then is too old.

        Raises
        ------
        EventError
            If the event makes no sense: a position outside the sky.
        """
        if event.salIndex in self._settings.skip_queues:
            return Skipped("test-queue")
        if seen - event.private_efdStamp > self._expiry:
            return Skipped("expired")
        return self._cancellations(event) if isinstance(event, NextVisitCanceled) else self._visits(event)

    def _visits(self, event: NextVisit) -> Sequence[DetectorVisit] | Skipped:
        if not event.instrument:
            return Skipped("no-instrument")
        if event.instrument not in CAMERAS:
            return Skipped("unknown-instrument")
        if any(fnmatchcase(event.survey, pattern) for pattern in self._settings.skip_surveys):
            return Skipped("survey")
        if event.coordinateSystem not in {CoordinateSystem.ICRS, CoordinateSystem.OBSERVED}:
            return Skipped("no-position")  # such as flats: it does not look at a place on the sky
        return detector_visits(event, self._detectors.active()) or Skipped("detectors-off")

    def _cancellations(self, event: NextVisitCanceled) -> Sequence[CancelVisit]:
        queues = self._settings.script_queues
        everybody = {name for names in queues.values() for name in names}
        return [
            CancelVisit(instrument=name, groupId=event.groupId, scriptSalIndex=event.scriptSalIndex)
            for name in sorted(queues.get(event.salIndex, everybody))
        ]
