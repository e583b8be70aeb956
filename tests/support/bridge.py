"""A bridge whose neighbours are in memory and fail as they are told."""

import threading
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from confluent_kafka.schema_registry import SchemaRegistryClient

from prompt_processing.bridge.bridge import Bridge
from prompt_processing.bridge.dead_letters import DeadLetters
from prompt_processing.bridge.decode import Decoder
from prompt_processing.bridge.metrics import BridgeMetrics
from prompt_processing.bridge.records import Record
from prompt_processing.bridge.rules import Rules
from prompt_processing.config import BridgeSettings, InstrumentSettings
from prompt_processing.domain.clock import Clock, WallClock
from prompt_processing.domain.visit import NextVisit, NextVisitCanceled
from prompt_processing.instruments.detector_map import DetectorMap
from prompt_processing.night.sal_events import SalEvents

VISITS = "visits"
CANCELLATIONS = "cancellations"


class Log:
    """The records of a partition of each topic, and what is committed of them.

    A source of it begins behind what is committed, as a member of a group does.
    """

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.committed = 0

    def append(self, topic: str, value: bytes | None) -> None:
        self.records.append(Record(topic, 0, len(self.records), value, 0.0, {}))


class LogSource:
    """Gives the records of a log; ``fails(method)`` is called before anything is done and may raise."""

    def __init__(self, log: Log, fails: Callable[[str], object] = lambda _: None) -> None:
        self._log = log
        self._fails = fails
        self._next = log.committed
        self.ours = True
        """Whether the record in hand is still this member's."""
        self.kept = threading.Event()
        self.closed = False

    @property
    def ended(self) -> bool:
        return self._next >= len(self._log.records)

    def receive(self, timeout: float) -> Record | None:
        self._fails("receive")
        if not self.ours:
            # As after a rebalance that gave the partition back.
            self.ours, self._next = True, self._log.committed
        self._next += 1
        return self._log.records[self._next - 1]

    def keep(self) -> bool:
        self._fails("keep")
        self.kept.set()
        return self.ours

    def done(self, record: Record) -> None:
        self._fails("done")
        self._log.committed = record.offset + 1

    def close(self) -> None:
        self.closed = True


class Sink:
    """Keeps messages; ``fails(bodies)`` is called before each and may raise, when some were taken."""

    def __init__(self, fails: Callable[[int], object] = lambda _: None) -> None:
        self.bodies: list[str] = []
        self.origins: list[dict[str, str]] = []
        self._fails = fails

    def publish(self, bodies: Sequence[str], origin: Any = None) -> None:
        for number, body in enumerate(bodies):
            self._fails(number)
            self.bodies.append(body)
            self.origins.append(dict(origin or {}))


class Observatory:
    """Writes events into a log."""

    def __init__(self, log: Log) -> None:
        self.registry = SchemaRegistryClient.new_client({"url": f"mock://{uuid.uuid4().hex}"})
        writers = {"visits": _Writer(VISITS, log), "cancellations": _Writer(CANCELLATIONS, log)}
        self._events = SalEvents(self.registry, **writers)  # type: ignore[arg-type]

    def announce(self, event: NextVisit | NextVisitCanceled) -> None:
        self._events.announce(event)


class _Writer:
    def __init__(self, topic: str, log: Log) -> None:
        self.topic = topic
        self._log = log

    def write(self, records: Sequence[Any]) -> None:
        for record in records:
            self._log.append(self.topic, record.value)


class Letters:
    """Keeps dead letters; ``fails()`` may raise."""

    def __init__(self, fails: Callable[[], object] = lambda: None) -> None:
        self.written: list[Any] = []
        self._fails = fails

    def write(self, records: Sequence[Any]) -> None:
        self._fails()
        self.written += records


def make_bridge(
    source: Any,
    observatory: Observatory,
    sink: Any,
    letters: Letters,
    *,
    metrics: BridgeMetrics | None = None,
    drain: float = 0.5,
    expiry: float = float("inf"),
    clock: Clock | None = None,
    **changes: Any,
) -> Bridge:
    """Return a bridge, by default one that takes events however old they are."""
    detectors = DetectorMap(InstrumentSettings(detectors={"LSSTCam": (93, 94, 95)}))
    rules = Rules(BridgeSettings(**changes), detectors, expiry=expiry, clock=clock or WallClock())
    return Bridge(
        source=source,
        decoder=Decoder(observatory.registry, visits_topic=VISITS, cancel_topic=CANCELLATIONS),
        rules=rules,
        sink=sink,
        dead_letters=DeadLetters(letters.write),
        metrics=metrics or BridgeMetrics(),
        drain=drain,
    )
