"""Playing a night at speed, with a worker of its own: a visit begins when the one before it is finished.

Only the wait before a shutter closes is shortened, and only while no visit is under way.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import structlog
from astropy.time import Time

from prompt_processing.delivery.port import Decisions
from prompt_processing.domain.clock import utc_seconds
from prompt_processing.domain.errors import EventError, PromptError
from prompt_processing.domain.outcome import Disposition, Outcome
from prompt_processing.domain.visit import DetectorVisit, DetectorVisitKey, parse_message
from prompt_processing.ledger.port import Ledger
from prompt_processing.messaging.port import Publisher, Received
from prompt_processing.night.clock import SkippingClock
from prompt_processing.night.files import LocalRaw
from prompt_processing.night.landing import WHOLE, Landing
from prompt_processing.night.plan import Action, Publish

_LOG: Final = structlog.get_logger(__name__)

LEAD: Final = 10.0
"""Longest wait before a shutter closes [s]: a telescope announces a visit earlier, a player need not wait."""
MAX_DELIVERIES: Final = 5
"""How often a message is delivered before the night goes on without its visit."""
LOOK_INTERVAL: Final = 5.0
"""Longest time between two looks at what is under way [s]."""


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


class NotedLanding:
    """A landing store that notes each image for its worker at once.

    Parameters
    ----------
    landing
        The landing store.
    note_arrival
        Notes a raw, given its key.
    hint
        Tells the worker that an image may have arrived.
    """

    def __init__(
        self, landing: Landing, note_arrival: Callable[[str], None], hint: Callable[[], None]
    ) -> None:
        self._landing = landing
        self._note_arrival = note_arrival
        self._hint = hint

    def put_sidecar(self, file: LocalRaw) -> bool:
        """Put the sidecar of a raw; see `~prompt_processing.night.landing.Landing.put_sidecar`."""
        return self._landing.put_sidecar(file)

    def put_image(self, file: LocalRaw, keep: float = WHOLE) -> bool:
        """Put the image of a raw; see `~prompt_processing.night.landing.Landing.put_image`."""
        new = self._landing.put_image(file, keep)
        if new:
            try:
                self._note_arrival(str(file.raw))
            except PromptError as error:
                _LOG.warning("raw not recorded", key=str(file.raw), error=str(error))
            self._hint()
        return new


class AtSpeed:
    """The pace of a night whose visits are processed one after the other.

    Parameters
    ----------
    clock
        Clock of the night, the same that the worker reads.
    publisher
        Sends messages to the worker.
    ledger, decisions
        Where the worker leaves what became of a visit.
    on_visit
        Called for each detector-visit when the worker is done with it.
    """

    def __init__(
        self,
        *,
        clock: SkippingClock,
        publisher: Publisher,
        ledger: Ledger,
        decisions: Decisions,
        on_visit: Callable[[PlayedVisit], None],
    ) -> None:
        self._clock = clock
        self._publisher = publisher
        self._ledger = ledger
        self._decisions = decisions
        self._on_visit = on_visit
        self._changed = threading.Condition()
        self._given_up: set[DetectorVisitKey] = set()
        self._answered: set[DetectorVisitKey] = set()
        self._announced: list[DetectorVisitKey] = []
        self._under_way: list[DetectorVisitKey] = []

    def now(self) -> float:
        """Return the time on the clock of the night [UTC s since 1970]."""
        return utc_seconds(self._clock.now())

    def begin(self, action: Action) -> None:
        """Count the visits of an event as under way."""
        if isinstance(action, Publish):
            keys = [_key(body) for body in action.bodies]
            self._under_way += keys
            self._announced += keys

    def announce(self, action: Publish) -> None:
        """Send the messages of an event to the worker.

        Raises
        ------
        StoreError
            If the queue does not answer; the night goes on without the visit.
        """
        try:
            self._publisher.publish(action.bodies)
        except Exception:  # whatever it is, the night must not wait for a message that was never sent
            with self._changed:
                self._given_up.update(map(_key, action.bodies))
                self._changed.notify_all()
            raise

    def may_publish(self) -> bool:
        """Return whether every visit so far is finished; those that are finished since are reported."""
        with self._changed:
            finished = [key for key in self._under_way if self._is_finished(key)]
            self._under_way = [key for key in self._under_way if key not in finished]
        for key in finished:
            self._on_visit(self._result(key))
        return not self._under_way

    def wait_until(self, moment: float) -> None:
        """Skip to a moment [UTC s since 1970] if no visit is under way; otherwise wait for a change."""
        if not self._under_way:
            self._clock.skip_to(Time(moment, format="unix", scale="utc"))
            return
        with self._changed:
            if not any(map(self._is_finished, self._under_way)):
                self._changed.wait(min(max(moment - self.now(), 0.0), LOOK_INTERVAL))

    def finish(self) -> None:
        """Wait until every visit is finished; an image that came late has reopened its visit."""
        while not self.may_publish():
            self.wait_until(self.now() + LOOK_INTERVAL)
        with self._changed:
            while not all(map(self._is_finished, self._announced)):
                self._changed.wait(LOOK_INTERVAL)

    def on_handled(self, received: Received, said: Disposition) -> None:
        """Take note that the worker has handled a message; to be called by its supervisor."""
        try:
            message = parse_message(received.delivery.body)
        except EventError:
            return  # nothing of this night
        with self._changed:
            if isinstance(message, DetectorVisit):
                if said is Disposition.RETRY and received.count >= MAX_DELIVERIES:
                    self._given_up.add(message.key)
                elif said is Disposition.ACK:
                    self._given_up.discard(message.key)
                    self._answered.add(message.key)
            self._changed.notify_all()

    def _is_finished(self, visit: DetectorVisitKey) -> bool:
        """Return whether a visit has an outcome and its message is out of the queue, or came too often."""
        if visit in self._given_up:
            return True
        if visit not in self._answered:
            return False
        record = self._ledger.find(visit)
        if record is None or record.outcome is None:
            self._answered.discard(visit)  # reopened: there is another message
        return visit in self._answered

    def _result(self, visit: DetectorVisitKey) -> PlayedVisit:
        record = self._ledger.find(visit)
        decision = self._decisions.find(record.visit) if record else None
        return PlayedVisit(
            group=visit.group,
            detector=visit.detector,
            outcome=record.outcome if record else None,
            n_alerts=len(decision.packets) if decision else 0,
            stage_times=record.times.seconds if record else {},
            latency_s=record.times.latency if record else None,
        )


def _key(body: str) -> DetectorVisitKey:
    message = parse_message(body)
    if not isinstance(message, DetectorVisit):
        raise EventError(f"not the message of a detector-visit: {body}")
    return message.key
