"""Playing a night: events and images come as they came from the telescope, on the night's own clock."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
from astropy.time import TimeDelta

from prompt_processing.delivery.port import Decisions
from prompt_processing.domain.errors import EventError, PromptError, RepositoryError
from prompt_processing.domain.outcome import Disposition, Outcome
from prompt_processing.domain.visit import (
    DetectorVisit,
    DetectorVisitKey,
    NextVisit,
    parse_event,
    parse_message,
)
from prompt_processing.instruments.fan_out import Active, detector_visits
from prompt_processing.ledger.port import Ledger
from prompt_processing.messaging.port import Publisher, Received
from prompt_processing.night.camera import Camera, SkippingClock, find_shots

_LOG: Final = structlog.get_logger(__name__)

LEAD: Final = TimeDelta(10.0, format="sec")
"""Longest wait before a shutter closes: a telescope announces a visit earlier, a player need not wait."""
MAX_DELIVERIES: Final = 5
"""How often a message is delivered before the night goes on without its visit."""
LOOK_INTERVAL: Final = 5.0
"""Longest time between two looks whether a visit is finished [s]: another worker may have finished it."""


@dataclass(frozen=True, slots=True)
class PlayedVisit:
    """What became of one detector-visit."""

    group: str
    detector: int
    outcome: Outcome | None
    """`None` if the worker gave it back each time it was delivered."""
    n_alerts: int
    stage_times: Mapping[str, float]
    latency_s: float | None
    """From shutter close to the alerts being out, or to the end of a visit without alerts [s]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What a night is played on."""

    publisher: Publisher
    """Sends messages to the worker."""
    hint: Callable[[], None]
    """Tells the worker that an image may have arrived."""
    note_arrival: Callable[[str], None]
    """Notes a raw in the landing store, given its key."""
    ledger: Ledger
    decisions: Decisions
    incoming: Path


def read_events(file: Path, on_error: Callable[[str], None]) -> list[NextVisit]:
    """Read the events of a night in the order of their publication.

    Parameters
    ----------
    file
        ``events.jsonl``.
    on_error
        Called with what is wrong with a line that is no event; the others are still read.

    Raises
    ------
    RepositoryError
        If the file cannot be read.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RepositoryError(f"{file}: cannot be read: {error}") from error
    events = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                events.append(parse_event(line))
            except EventError as error:
                on_error(f"{file.name} line {number}: {error}")
    return sorted(events, key=lambda event: event.private_sndStamp)


class NightPlayer:
    """Plays one night.

    Parameters
    ----------
    night
        Folder of the night.
    events
        Its events, from `read_events`.
    clock
        Clock of the night, the same that the worker reads.
    stage
        What it is played on.
    active
        Detectors that are processed, by instrument, as in `~prompt_processing.instruments.fan_out`.
    """

    def __init__(
        self,
        *,
        night: Path,
        events: list[NextVisit],
        clock: SkippingClock,
        stage: Stage,
        active: Active | None = None,
    ) -> None:
        self._folder = night / "raw"
        self._events = events
        self._clock = clock
        self._stage = stage
        self._active = active
        self._handled = threading.Condition()
        self._given_up: set[DetectorVisitKey] = set()
        self._answered: set[DetectorVisitKey] = set()

    @property
    def n_visits(self) -> int:
        """How many detector-visits the events announce."""
        return sum(len(self._detector_visits(event, lambda _: None)) for event in self._events)

    def on_handled(self, received: Received, said: Disposition) -> None:
        """Take note that the worker has handled a message; to be called by its supervisor."""
        try:
            message = parse_message(received.delivery.body)
        except EventError:
            return  # nothing of this night
        with self._handled:
            if isinstance(message, DetectorVisit):
                if said is Disposition.RETRY and received.count >= MAX_DELIVERIES:
                    self._given_up.add(message.key)
                elif said is Disposition.ACK:
                    self._given_up.discard(message.key)
                    self._answered.add(message.key)
            self._handled.notify_all()

    def play(self, *, on_visit: Callable[[PlayedVisit], None], on_error: Callable[[str], None]) -> None:
        """Send every event to the queue and every raw to the landing store, each at its time.

        An event is sent when the one before it is finished. Only the wait before a shutter closes is
        shortened, and only while nothing else is going on.

        Parameters
        ----------
        on_visit
            Called for each detector-visit when the worker is done with it.
        on_error
            Called with what is wrong with an event that cannot be observed.

        Raises
        ------
        OSError
            If a raw cannot be copied.
        """
        predicted = {event.groupId: event.predicted_shutter_close for event in self._events}
        shots = find_shots(self._folder, predicted, self._clock.now())
        camera = Camera(
            folder=self._folder,
            incoming=self._stage.incoming,
            shots=shots,
            clock=self._clock,
            on_arrival=self._on_arrival,
        )
        closes = predicted | {shot.group: shot.close for shot in shots if shot.group is not None}
        announced: list[DetectorVisitKey] = []
        with camera:
            for event in self._events:
                visits = self._detector_visits(event, on_error)
                self._clock.skip_to(max(event.published, closes[event.groupId] - LEAD))
                self._stage.publisher.publish([visit.model_dump_json() for visit in visits])
                keys = [visit.key for visit in visits]
                self._wait_for(keys)
                for key in keys:
                    on_visit(self._result(key))
                announced += keys
            camera.finish()
        # An image that came too late has reopened its visit.
        self._wait_for(announced)

    def _wait_for(self, visits: list[DetectorVisitKey]) -> None:
        """Wait until each visit has an outcome and its message is out of the queue, or came too often."""
        with self._handled:
            while not all(key in self._given_up or self._is_finished(key) for key in visits):
                self._handled.wait(LOOK_INTERVAL)

    def _is_finished(self, visit: DetectorVisitKey) -> bool:
        record = self._stage.ledger.find(visit)
        if record is None or record.outcome is None:
            self._answered.discard(visit)  # reopened: there is another message
        return visit in self._answered

    def _result(self, visit: DetectorVisitKey) -> PlayedVisit:
        record = self._stage.ledger.find(visit)
        decision = self._stage.decisions.find(visit)
        return PlayedVisit(
            group=visit.group,
            detector=visit.detector,
            outcome=record.outcome if record else None,
            n_alerts=len(decision.packets) if decision else 0,
            stage_times=record.times.seconds if record else {},
            latency_s=record.times.latency if record else None,
        )

    def _on_arrival(self, key: str) -> None:
        """Note a raw that has appeared, and wake the worker."""
        try:
            self._stage.note_arrival(key)
        except PromptError as error:
            _LOG.warning("raw not recorded", key=key, error=str(error))
        self._stage.hint()

    def _detector_visits(self, event: NextVisit, on_error: Callable[[str], None]) -> list[DetectorVisit]:
        """Return the messages of an event; none for an event that cannot be observed."""
        try:
            return detector_visits(event, self._active)
        except PromptError as error:
            on_error(f"event of group {event.groupId}: {error}")
            return []
