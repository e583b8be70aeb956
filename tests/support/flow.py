"""The flow from event to alert in memory, on a clock that moves only when it is told to.

Everything outlives a worker except the worker. Each call of a port is a *point* at which a test can let the
worker die, stop or meet a store that does not answer.
"""

import threading
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from astropy.io import fits

from local_cloud.visits import EVENT
from prompt_processing.apdb.memory import MemoryApdb
from prompt_processing.arrivals.note import note_arrival
from prompt_processing.arrivals.pointers import Arrivals
from prompt_processing.config import WorkerSettings
from prompt_processing.delivery.memory import MemoryAlerts, MemoryDecisions, MemoryMetrics
from prompt_processing.delivery.metrics import VisitMetrics
from prompt_processing.delivery.relay import Relay
from prompt_processing.domain.errors import StoreError
from prompt_processing.domain.outcome import Disposition
from prompt_processing.domain.visit import CancelVisit, DetectorVisit
from prompt_processing.ledger.memory import MemoryLedger
from prompt_processing.messaging.memory import MemoryQueue
from prompt_processing.storage import object_store
from prompt_processing.worker.effects import list_effects
from prompt_processing.worker.process import VisitProcessor
from prompt_processing.worker.report import Reporter
from prompt_processing.worker.wait import ImageWaiter
from prompt_processing.worker.worker import Worker
from support.points import Crash, Faults, Guard, Guarded, OneByOne, Skewed, TestClock, Watched
from support.two_sources import EXPOSURE, MemoryProducts, TestPixels

HIDDEN = 60.0
"""How long a message is hidden while somebody works on it [s]."""
SETTINGS = WorkerSettings(lease_s=60.0, max_crashes=1000)


class TestHints:
    """Nobody gives hints: waiting only lets time pass, and what is due happens."""

    __test__ = False

    def __init__(self, world: "World") -> None:
        self._world = world

    def wait(self, timeout: float) -> bool:
        self._world.advance(timeout)
        return False


class Metrics:
    """Sorts metrics by what they are of, as they are kept apart in a `World`."""

    def __init__(self, processed: MemoryMetrics, others: MemoryMetrics) -> None:
        self._processed, self._others = processed, others

    def send(self, metrics: VisitMetrics) -> None:
        (self._processed if metrics.status == "processed" else self._others).send(metrics)


class MayBeAway:
    """The sink of the alerts, which does not answer while the world says so."""

    def __init__(self, sink: Any, world: "World") -> None:
        self._sink, self._world = sink, world

    def send(self, packets: Any) -> None:
        if self._world.alerts_away:
            raise StoreError("alerts: no answer")
        self._sink.send(packets)


@dataclass
class World:
    """All that outlives a worker."""

    folder: Path
    ledger_type: Any = MemoryLedger
    decisions_type: Any = MemoryDecisions
    note: Any = note_arrival
    settings: WorkerSettings = SETTINGS
    clock: TestClock = field(default_factory=TestClock)
    faults: Faults = field(default_factory=Faults)

    def __post_init__(self) -> None:
        self.landing = self.folder / "incoming"
        self.ledger = self.ledger_type(now=self.clock.monotonic)
        self.queue = MemoryQueue(now=self.clock.monotonic, hidden=HIDDEN)
        self.decisions: Any = self.decisions_type()
        self.apdb = MemoryApdb()
        self.alerts = MemoryAlerts()
        self.metrics = MemoryMetrics()
        self.alerts_away = False
        """Whether the sink of the alerts does not answer."""
        self.reports = MemoryMetrics()
        """Metrics of what was skipped or has failed."""
        self.products = MemoryProducts()
        self.announced: dict[Any, DetectorVisit] = {}
        self.landed: dict[str, Any] = {}
        """Detector-visit of each raw in the landing store."""
        self.violations: list[str] = []
        """Effects that were done without a claim that holds."""
        self._due: list[tuple[float, Any]] = []

    # What the observatory does.

    def announce(self, number: int, *, nimages: int = 1) -> DetectorVisit:
        """Send the message of a visit; sending it twice makes a duplicate."""
        visit = self.visit(number, nimages=nimages)
        self.announced[visit.key] = visit
        self.queue.publish([visit.model_dump_json()])
        return visit

    @staticmethod
    def visit(number: int, *, nimages: int = 1) -> DetectorVisit:
        """Return the message of the n-th visit of the night; each takes 40 s."""
        start = EVENT["startTime"] + 40.0 * number
        fields = {name: value for name, value in EVENT.items() if name != "private_efdStamp"}
        times = {"startTime": start, "private_sndStamp": start - 25.0, "duration": EXPOSURE}
        return DetectorVisit(
            **fields | times | {"groupId": f"group#{number}", "nimages": nimages}, detector=0
        )

    def cancel(self, number: int) -> None:
        """Send word that a visit will not happen."""
        message = CancelVisit(instrument="LATISS", groupId=f"group#{number}", scriptSalIndex=1)
        self.queue.publish([message.model_dump_json()])

    def put_image(self, number: int, *, snap: int = 0, noted: bool = True) -> str:
        """Write a raw into the landing store; its notification may be lost."""
        key = raw_key(number, snap)
        path = self.landing / key
        path.parent.mkdir(parents=True, exist_ok=True)
        header = fits.Header({"GROUPID": f"group#{number}", "CURINDEX": snap + 1})
        path.write_bytes(fits.PrimaryHDU(header=header).header.tostring().encode())
        self.landed[key] = self.visit(number).key
        if noted:
            self._note(key, self._arrivals(self.clock))
        return key

    def list_landing(self) -> None:
        """Note what is in the landing store, as its listing does now and then."""
        arrivals = self._arrivals(self.clock)
        for key in arrivals.list_new():
            self._note(key, arrivals)

    def _note(self, key: str, arrivals: Arrivals) -> None:
        ledger = Watched(self.ledger, "ledger", self.faults)
        self.note(key, arrivals, ledger, Watched(self.queue, "queue", self.faults))

    def image_later(self, seconds: float, number: int, *, snap: int = 0, noted: bool = True) -> None:
        """Write a raw when the clock gets there, also in the middle of a worker's wait."""
        self._due.append(
            (self.clock.seconds + seconds, partial(self.put_image, number, snap=snap, noted=noted))
        )

    def advance(self, seconds: float) -> None:
        """Let time pass, and let happen what is due."""
        end = self.clock.seconds + seconds
        for moment, action in sorted(self._due, key=lambda item: item[0]):
            if moment <= end:
                self.clock.seconds = max(self.clock.seconds, moment)
                self._due.remove((moment, action))
                action()
        self.clock.seconds = max(self.clock.seconds, end)

    def queued(self) -> list[str]:
        """Return the bodies of the messages that are not acknowledged."""
        return [message.delivery.body for message in self.queue._messages.values()]

    # What workers do.

    def worker(self, owner: str, skew: float = 0.0) -> Worker:
        """Return a worker that has just started."""
        clock = Skewed(self.clock, skew)
        guard = Guard(self.ledger, self.violations.append)
        ledger = Watched(guard, "ledger", self.faults)
        apdb = Watched(Guarded(self.apdb, "store", guard), "apdb", self.faults)
        queue = Watched(self.queue, "queue", self.faults)
        arrivals = self._arrivals(clock)
        waiter = ImageWaiter(
            arrivals=arrivals,
            note=lambda key: self.note(key, arrivals, ledger, queue),
            hints=TestHints(self),
            ledger=ledger,
            clock=clock,
            settings=self.settings,
            monotonic=self.clock.monotonic,
        )
        effects = list_effects(
            apdb=apdb,
            alerts=Watched(Guarded(self._alert_sink(), "send", guard), "alerts", self.faults),
            metrics=Watched(Guarded(self.metrics, "send", guard), "metrics", self.faults),
            products=Watched(Guarded(self.products, "store", guard), "products", self.faults),
        )
        process = VisitProcessor(
            pixels=TestPixels(apdb, self.landing, self.faults),
            waiter=waiter,
            ledger=ledger,
            decisions=Watched(Guarded(self.decisions, "store", guard), "decisions", self.faults),
            apdb=apdb,
            effects=effects,
            clock=clock,
            settings=self.settings,
        )
        reporter = Reporter(Watched(self.reports, "reports", self.faults), ledger, clock)
        return Worker(ledger=ledger, runner=process, owner=owner, settings=self.settings, reporter=reporter)

    def work(self, owner: str, skew: float = 0.0) -> Disposition | None:
        """Let a worker handle the next message; return what it said, or `None` if there was none."""
        received = self.queue.receive(0.0)
        if received is None:
            self.faults.disarm()
            return None
        try:
            said = self.worker(owner, skew).handle(received.delivery)
            self.faults.point("before the acknowledgement")
            if said is Disposition.ACK:
                self.queue.ack(received)
            else:
                self.queue.retry(received, delay=1.0)
        finally:
            self.faults.disarm()
        return said

    def relay(self) -> Relay:
        """Return a relay that has just started."""
        return Relay(
            ledger=Watched(self.ledger, "relay.ledger", self.faults),
            decisions=Watched(self.decisions, "relay.decisions", self.faults),
            alerts=Watched(self._alert_sink(), "relay.alerts", self.faults),
            metrics=Watched(Metrics(self.metrics, self.reports), "relay.metrics", self.faults),
            clock=self.clock,
        )

    def _alert_sink(self) -> Any:
        return MayBeAway(OneByOne(self.alerts, self.faults), self)

    def _arrivals(self, clock: Any) -> Arrivals:
        return Arrivals(object_store.root(self.landing), object_store.root(self.folder / "arrivals"), clock)


def raw_key(number: int, snap: int = 0) -> str:
    """Return the key of a raw of the n-th visit."""
    obs_id = f"AT_O_20260201_{10 * number + snap + 1:06d}"
    return f"LATISS/20260201/{obs_id}/{obs_id}_R00_S00.fits"


def crash(name: str) -> None:
    """Let the worker die."""
    raise Crash(name)


def store_error(name: str) -> None:
    """Let a store not answer."""
    raise StoreError(f"no answer {name}")


class Paused:
    """A worker in a thread that stops at a point, and goes on when it is told to."""

    def __init__(self, world: World, where: int | str, owner: str, skew: float = 0.0) -> None:
        self._halted = threading.Event()
        self._go = threading.Event()
        self.at = ""
        world.faults.arm(where, self._halt)
        self._thread = threading.Thread(target=self._run, args=(world, owner, skew), daemon=True)
        self._thread.start()
        self._halted.wait()

    @property
    def waits(self) -> bool:
        """Whether it stands at its point, and has not ended before it got there."""
        return bool(self.at) and self._thread.is_alive()

    def resume(self) -> None:
        """Let it go on to its end."""
        self._go.set()
        self._thread.join()

    def _halt(self, name: str) -> None:
        self.at = name
        self._halted.set()
        self._go.wait()

    def _run(self, world: World, owner: str, skew: float) -> None:
        try:
            world.work(owner, skew)
        finally:
            self._halted.set()
