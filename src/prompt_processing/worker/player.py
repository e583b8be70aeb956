"""Playing a night: events and images come as they came from the telescope, on the night's own clock."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
from astropy.time import TimeDelta

from prompt_processing.delivery.decisions import DecisionStore
from prompt_processing.domain.errors import EventError, PromptError, RepositoryError
from prompt_processing.domain.outcome import Delivery, Disposition, Outcome
from prompt_processing.domain.visit import DetectorVisit, NextVisit, parse_event
from prompt_processing.instruments.fan_out import detector_visits
from prompt_processing.ledger.port import Ledger
from prompt_processing.messaging.port import VisitQueue
from prompt_processing.worker.camera import Camera, SkippingClock, find_shots
from prompt_processing.worker.worker import Worker

_LOG: Final = structlog.get_logger(__name__)

LEAD: Final = TimeDelta(10.0, format="sec")
"""Longest wait before a shutter closes: a telescope announces a visit earlier, a player need not wait."""
MAX_DELIVERIES: Final = 5
"""How often a message is delivered to a worker that asks for it again."""


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
    """From shutter close to the alerts being out [s]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What a night is played on."""

    worker: Worker
    hint: Callable[[], None]
    """Tells the worker that an image may have arrived."""
    note_arrival: Callable[[str], None]
    """Notes a raw in the landing store, given its key."""
    queue: VisitQueue
    """Brings the messages of visits that an image has reopened."""
    ledger: Ledger
    decisions: DecisionStore
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
    """

    def __init__(self, *, night: Path, events: list[NextVisit], clock: SkippingClock, stage: Stage) -> None:
        self._folder = night / "raw"
        self._events = events
        self._clock = clock
        self._stage = stage

    def play(self, *, on_visit: Callable[[PlayedVisit], None], on_error: Callable[[str], None]) -> None:
        """Deliver every event to the worker and every raw to the landing store, each at its time.

        Only the wait before a shutter closes is shortened, and only while nothing else is going on. A visit
        that is finished already is not waited for.

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
        with camera:
            for event in self._events:
                for visit in _detector_visits(event, on_error):
                    self._clock.skip_to(max(event.published, closes[event.groupId] - LEAD))
                    self._deliver(visit)
                    on_visit(self._result(visit))
            camera.finish()
        self._handle_reopened()

    def _deliver(self, visit: DetectorVisit) -> None:
        delivery = Delivery(f"night/{visit.groupId}/{visit.detector}", visit.model_dump_json())
        for _ in range(MAX_DELIVERIES):
            if self._stage.worker.handle(delivery) is Disposition.ACK:
                return
            time.sleep(1.0)
        _LOG.error("visit given up", group=visit.groupId, detector=visit.detector)

    def _handle_reopened(self) -> None:
        """Handle the messages of visits that were given up before their image came."""
        while (received := self._stage.queue.receive(0.0)) is not None:
            if self._stage.worker.handle(received.delivery) is Disposition.ACK:
                self._stage.queue.ack(received)
            else:
                self._stage.queue.retry(received)
                time.sleep(1.0)

    def _result(self, visit: DetectorVisit) -> PlayedVisit:
        record = self._stage.ledger.find(visit.key)
        decision = self._stage.decisions.find(visit.key)
        return PlayedVisit(
            group=visit.groupId,
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


def _detector_visits(event: NextVisit, on_error: Callable[[str], None]) -> list[DetectorVisit]:
    """Return the messages of an event; none for an event that cannot be observed."""
    try:
        return detector_visits(event)
    except PromptError as error:
        on_error(f"event of group {event.groupId}: {error}")
        return []
