"""The flow from event to alert in memory, on a clock that moves only when it is told to.

Everything outlives a worker except the worker. Each call of a port is a *point* at which a test can let the
worker die, stop or meet a store that does not answer.
"""

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from astropy.io import fits
from astropy.time import Time, TimeDelta

from prompt_processing import objects
from prompt_processing.apdb.memory import MemoryApdb
from prompt_processing.apdb.tables import conform
from prompt_processing.arrivals.pointers import Arrivals
from prompt_processing.config import WorkerSettings
from prompt_processing.delivery.memory import MemoryAlerts, MemoryDecisions, MemoryMetrics
from prompt_processing.delivery.metrics import VisitMetrics
from prompt_processing.domain.clock import mjd_tai
from prompt_processing.domain.decision import Decision, DecisionInfo
from prompt_processing.domain.errors import RawError, StaleClaimError, StoreError
from prompt_processing.domain.ids import detector_exposure_id, exposure_id, parse_obs_id, source_id
from prompt_processing.domain.outcome import Disposition, Stopwatch
from prompt_processing.domain.raws import parse_raw_key
from prompt_processing.domain.visit import CancelVisit, DetectorVisit
from prompt_processing.ledger.memory import MemoryLedger
from prompt_processing.messaging.memory import MemoryQueue
from prompt_processing.preload.footprint import field_region
from prompt_processing.worker.arrival import note_arrival
from prompt_processing.worker.process import Process, Stores
from prompt_processing.worker.wait import ImageWaiter
from prompt_processing.worker.worker import Worker
from support.visits import EVENT

EXPOSURE = 30.0
"""Length of every visit of these tests [s]."""
HIDDEN = 60.0
"""How long a message is hidden while somebody works on it [s]."""
SETTINGS = WorkerSettings(lease_s=60.0, max_crashes=1000)


class Crash(BaseException):
    """The process ends here and now."""


class TestClock:
    """Moves only when told; the night's time and the monotonic one move together."""

    __test__ = False

    def __init__(self) -> None:
        self.seconds = 0.0
        self._start = Time(EVENT["startTime"] - 100.0, format="unix_tai", scale="tai")

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> Time:
        return (self._start + TimeDelta(self.seconds, format="sec")).utc

    def advance(self, seconds: float) -> None:
        self.seconds += seconds


@dataclass
class Skewed:
    """The clock of a machine that is wrong."""

    clock: TestClock
    skew: float

    def now(self) -> Time:
        return self.clock.now() + TimeDelta(self.skew, format="sec")


class Faults:
    """Makes something happen at the n-th point from now on, or at the next one of a name."""

    def __init__(self) -> None:
        self._where: int | str = 0
        self._action: Any = None
        self.passed: list[str] = []

    def arm(self, where: int | str, action: Any) -> None:
        self._where, self._action = where, action

    def disarm(self) -> None:
        self._action = None

    def point(self, name: str) -> None:
        self.passed.append(name)
        if self._action is None:
            return
        if isinstance(self._where, int):
            self._where -= 1
        if self._where in {0, name}:
            action = self._action
            self.disarm()
            action(name)


class Watched:
    """A port whose every call has a point before and one after it."""

    def __init__(self, port: Any, name: str, faults: Faults) -> None:
        self._port, self._name, self._faults = port, name, faults

    def __getattr__(self, method: str) -> Any:
        call = getattr(self._port, method)

        def watched(*args: Any, **kwargs: Any) -> Any:
            self._faults.point(f"before {self._name}.{method}")
            result = call(*args, **kwargs)
            self._faults.point(f"after {self._name}.{method}")
            return result

        return watched


class Guard:
    """Watches that one worker does each effect right after a check of a claim that did hold then."""

    def __init__(self, ledger: MemoryLedger, on_violation: Callable[[str], None]) -> None:
        self._ledger = ledger
        self._on_violation = on_violation
        self._holds = False

    def check(self, claim: Any) -> None:
        self._holds = False
        self._ledger.check(claim)
        # Whatever this ledger says, the truth is what a ledger should say.
        with contextlib.suppress(StaleClaimError):
            MemoryLedger.check(self._ledger, claim)
            self._holds = True

    def use(self, effect: str) -> None:
        if not self._holds:
            self._on_violation(effect)
        self._holds = False

    def __getattr__(self, method: str) -> Any:
        return getattr(self._ledger, method)


class Guarded:
    """A port with one method that is an effect."""

    def __init__(self, port: Any, effect: str, guard: Guard) -> None:
        self._port, self._effect, self._guard = port, effect, guard

    def __getattr__(self, method: str) -> Any:
        if method == self._effect:
            self._guard.use(f"{type(self._port).__name__}.{method}")
        return getattr(self._port, method)


class OneByOne:
    """Sends alerts one at a time, so that a worker can die between two of them."""

    def __init__(self, alerts: MemoryAlerts, faults: Faults) -> None:
        self._alerts, self._faults = alerts, faults

    def send(self, packets: Any) -> None:
        for packet in packets:
            self._alerts.send([packet])
            self._faults.point("between alerts")


class MemoryProducts:
    """Keeps names of products, and counts how often each was written anew."""

    def __init__(self) -> None:
        self.written: dict[tuple[str, str, int], list[str]] = {}

    def store(self, products: tuple[Any, list[str]]) -> int:
        visit, raws = products
        self.written.setdefault(visit, raws)
        return len(raws)


class TestHints:
    """Nobody gives hints: waiting only lets time pass, and what is due happens."""

    __test__ = False

    def __init__(self, world: "World") -> None:
        self._world = world

    def wait(self, timeout: float) -> bool:
        self._world.advance(timeout)
        return False


class TestPixels:
    """Finds two sources in every image and links them with what the APDB holds of the field."""

    __test__ = False

    def __init__(self, apdb: Any, landing: Path, faults: Faults) -> None:
        self._apdb, self._landing, self._faults = apdb, landing, faults

    def prepare(
        self, visit: DetectorVisit, watch: Stopwatch, decision: Decision | None = None
    ) -> "TestVisit":
        with watch.stage("preload"):
            self._faults.point("preload")
        region = field_region(visit.ra, visit.dec, (400, 400), 0.1, 60.0)
        history = self._apdb.history(region, mjd_tai(visit.predicted_shutter_close))
        return TestVisit(visit, history, self._landing, self._faults)


class TestVisit:
    """One visit of `TestPixels`."""

    __test__ = False

    def __init__(self, visit: DetectorVisit, history: Any, landing: Path, faults: Faults) -> None:
        self._visit, self._history, self._landing, self._faults = visit, history, landing, faults
        self._keys: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def process(self, keys: Any, watch: Any) -> None:
        for key in keys:
            if not (self._landing / key).exists():
                raise RawError(f"{key}: there is no such raw")
            self._faults.point("pixels")
        self._keys = tuple(keys)

    def decide(self, attempt: int, flags: tuple[str, ...], now: Time) -> Decision:
        visit, raw = self._visit, parse_raw_key(self._keys[0])
        exposure = exposure_id(parse_obs_id(raw.obs_id))
        close = mjd_tai(visit.predicted_shutter_close)
        midpoint = close - EXPOSURE / 2 / 86400
        ids = [source_id(detector_exposure_id(exposure, visit.detector), rank) for rank in range(2)]
        known = self._history.objects
        known = known[known["firstDiaSourceMjdTai"] < midpoint].reset_index(drop=True)
        places = [(visit.ra, visit.dec), (visit.ra, visit.dec + 0.001)]
        object_ids = [_nearest(known, place, default) for place, default in zip(places, ids, strict=True)]
        counts = [1 + int((self._history.sources["diaObjectId"] == number).sum()) for number in object_ids]
        measured = {
            "visit": exposure,
            "detector": visit.detector,
            "diaObjectId": pd.array(object_ids, dtype="Int64"),
            "midpointMjdTai": midpoint,
            "timeProcessedMjdTai": mjd_tai(now),
            "ra": [ra for ra, _ in places],
            "dec": [dec for _, dec in places],
            "band": "r",
            "psfFlux": 100.0,
        }
        pixels = {"x": 1.0, "y": 2.0, "bboxSize": 30}
        sources = pd.DataFrame({"diaSourceId": np.array(ids), **measured, **pixels})
        forced = pd.DataFrame({"diaForcedSourceId": np.array(ids), **measured}).astype(
            {"diaObjectId": "int64"}
        )
        objects_ = pd.DataFrame(
            {
                "diaObjectId": np.array(object_ids),
                "ra": measured["ra"],
                "dec": measured["dec"],
                "nDiaSources": counts,
                "firstDiaSourceMjdTai": [
                    _first(self._history.sources, number, midpoint) for number in object_ids
                ],
                "validityStartMjdTai": midpoint,
            }
        )
        return Decision(
            info=DecisionInfo(
                instrument=visit.instrument,
                group=visit.groupId,
                detector=visit.detector,
                day_obs=raw.day_obs,
                exposure=exposure,
                visit=exposure,
                midpoint_mjd_tai=midpoint,
                shutter_close_mjd_tai=close,
                raws=self._keys,
                attempt=attempt,
                pipeline="test",
                alert_schema_id=1,
                flags=flags,
            ),
            dia_object=conform("DiaObject", objects_),
            dia_source=conform("DiaSource", sources),
            dia_forced_source=conform("DiaForcedSource", forced),
            # What an alert says depends on the moment at which the history was read.
            packets=tuple(
                (number, f"{number} of {object_id}, {count} sources, attempt {attempt}".encode())
                for number, object_id, count in zip(ids, object_ids, counts, strict=True)
            ),
        )

    def metrics(self, decision: Decision, watch: Any, now: Time) -> VisitMetrics:
        info = decision.info
        return VisitMetrics(
            info.instrument, info.detector, info.visit, info.exposure, info.group, info.day_obs, "r",
            "SDSSr_65mm~empty", "run", "1", 0.0, (),
        )  # fmt: skip

    def products(self, decision: Decision) -> tuple[Any, list[str]]:
        self._faults.point("persist")
        return tuple(self._visit.key), list(decision.info.raws)


def _nearest(known: pd.DataFrame, place: tuple[float, float], default: int) -> int:
    """Return the object at a place, or a new one."""
    at_place = known[np.abs(known["dec"] - place[1]) < 1e-4]
    return int(at_place["diaObjectId"].min()) if len(at_place) else default


def _first(sources: pd.DataFrame, number: int, midpoint: float) -> float:
    own = sources[sources["diaObjectId"] == number]
    return float(own["midpointMjdTai"].min()) if len(own) else midpoint


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
        stores = Stores(
            ledger=ledger,
            decisions=Watched(Guarded(self.decisions, "store", guard), "decisions", self.faults),
            apdb=apdb,
            alerts=Watched(Guarded(OneByOne(self.alerts, self.faults), "send", guard), "alerts", self.faults),
            metrics=Watched(Guarded(self.metrics, "send", guard), "metrics", self.faults),
            products=Watched(Guarded(self.products, "store", guard), "products", self.faults),
        )
        process = Process(
            pixels=TestPixels(apdb, self.landing, self.faults),
            waiter=waiter,
            stores=stores,
            clock=clock,
            settings=self.settings,
        )
        return Worker(ledger=ledger, runner=process, owner=owner, settings=self.settings)

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

    def _arrivals(self, clock: Any) -> Arrivals:
        return Arrivals(objects.root(self.landing), objects.root(self.folder / "arrivals"), clock)


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
