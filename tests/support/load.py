"""Load on the cloud deployment: visits that are announced now, and workers that do next to nothing."""

import json
import os
import queue
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import sqlalchemy as sa
from astropy.io import fits
from flask import Flask, Response, request
from lsst.resources import ResourcePath
from werkzeug.serving import WSGIRequestHandler, make_server

from prompt_processing import database, objects
from prompt_processing.apdb.memory import MemoryApdb
from prompt_processing.cli.logs import configure
from prompt_processing.config import PushSettings, WorkerSettings
from prompt_processing.delivery.memory import MemoryAlerts, MemoryMetrics
from prompt_processing.domain.clock import Clock, WallClock
from prompt_processing.domain.outcome import Delivery, Disposition, Outcome, Stopwatch
from prompt_processing.domain.visit import DetectorVisit
from prompt_processing.execution.rules import observing_day
from prompt_processing.factory import Factory
from prompt_processing.instruments.cameras import get_instrument
from prompt_processing.ledger.port import Claim
from prompt_processing.ledger.sql import SqlLedger
from prompt_processing.messaging.port import HintSource
from prompt_processing.messaging.pubsub import PubSubQueue
from prompt_processing.serving.activator import BUSY, Activator
from prompt_processing.serving.border import Border
from prompt_processing.serving.envelope import Pushed
from prompt_processing.serving.identity import TokenVerifier
from prompt_processing.worker.process import Process, Stores
from prompt_processing.worker.supervisor import Slot, Supervisor
from prompt_processing.worker.wait import ImageWaiter
from prompt_processing.worker.worker import Runner, Worker
from support.cloud import Cloud, Service
from support.flow import Faults, MemoryProducts, TestPixels
from support.servers import LOOPBACK, answers_http
from support.visits import EVENT, detector_visit

LSSTCAM = get_instrument("LSSTCam")
N_DETECTORS = len(LSSTCAM.detectors)
CLOSE_AFTER = 0.5
"""From the message of a visit to the close of its shutter, under a steady load [s] ..."""
IMAGE_AFTER = 1.5
"""... and to its image [s]: a night has a minute, in which a worker only waits."""
HOLD = 5.0
"""How long a worker of a burst is busy [s]."""
SAMPLE = 0.003
"""Time between two looks at an engine [s]."""
_WRITE_EVERY = 10
"""Visits between two writings of what they found."""


def announced_now(
    group: str, *, close_in: float, detector: int = 0, instrument: str = "LATISS"
) -> DetectorVisit:
    """Return the message of a visit whose shutter closes some seconds from now."""
    now = float(WallClock().now().unix_tai)
    start = now + close_in - EVENT["duration"]
    fields = {"groupId": group, "startTime": start, "private_sndStamp": now}
    return detector_visit(**fields, instrument=instrument, detector=detector)


def raw_key(visit: DetectorVisit, sequence: int) -> str:
    """Return the key of a visit's raw."""
    camera, day = get_instrument(visit.instrument), f"{observing_day(visit):%Y%m%d}"
    obs_id = f"{'MC' if visit.instrument == 'LSSTCam' else 'AT'}_O_{day}_{sequence:06d}"
    return f"{visit.instrument}/{day}/{obs_id}/{obs_id}_{camera.raw_name(visit.detector)}.fits"


def put_image(incoming: ResourcePath, visit: DetectorVisit, key: str) -> float:
    """Put a sidecar and a raw without pixels into a landing store; return when the raw was there."""
    sidecar = f"{key.removesuffix('.fits')}.json"
    objects.create(objects.child(incoming, sidecar), json.dumps({"GROUPID": visit.groupId}).encode())
    header = fits.Header({"GROUPID": visit.groupId, "CURINDEX": 1})
    objects.create(objects.child(incoming, key), fits.PrimaryHDU(header=header).header.tostring().encode())
    return time.time()


class Probed(Service):
    """A service that notes how long it takes until it is alive [s]."""

    def start(self) -> None:
        self._begun, self.alive_after = time.monotonic(), 0.0
        super().start()
        self.ready_after = time.monotonic() - self._begun

    def _answers(self) -> bool:
        if not self.alive_after and answers_http(self.port, "/live"):
            self.alive_after = time.monotonic() - self._begun
        return bool(self.alive_after) and super()._answers()


def probed(cloud: Cloud, way: str) -> Probed:
    """Return a worker that is pushed to or pulls, with the settings that `Cloud` gives it."""
    if way == "pushed":
        return Probed("activator", cloud._push_settings("activator", cloud.topology.activator))
    own = {"PROMPT_PUBSUB__SUBSCRIPTION": cloud.topology.activator}
    return Probed("activator", {**cloud.environment, **own}, "main.py")


# Engines that wait for an image, and do nothing with it.


class Waiting:
    """Tells when it had the images of a visit."""

    def __init__(self, waiter: ImageWaiter) -> None:
        self._waiter = waiter

    def run(self, visit: DetectorVisit, claim: Claim, watch: Stopwatch) -> Outcome:
        images = self._waiter.wait(visit)
        return images if isinstance(images, Outcome) else Outcome.processed(str(time.time()))


def waiting_runner(repo: Path, hints: HintSource, clock: Clock) -> Waiting:
    """Build that inside an engine."""
    configure(["ERROR"])
    return Waiting(_waiter(Factory(repo, clock), hints, clock))


def _waiter(factory: Factory, hints: HintSource, clock: Clock) -> ImageWaiter:
    return ImageWaiter(
        arrivals=factory.arrivals,
        note=factory.note_arrival,
        hints=hints,
        ledger=factory.ledger,
        clock=clock,
        settings=factory.settings.worker,
    )


# Workers without engines: hundreds of them fit on one machine.


class Instant:
    """Plays an engine: only waits, and tells when its message came and when it began."""

    def __init__(self) -> None:
        self.received = 0.0

    def run(self, visit: DetectorVisit, claim: Claim, watch: Stopwatch) -> Outcome:
        begun = time.time()
        # As for its image: nobody ends while others still begin.
        time.sleep(HOLD)
        return Outcome.processed(f"received {self.received}", f"started {begun}")

    def wait_until_ready(self) -> None:
        pass

    def is_ready(self) -> bool:
        return True

    def hint(self) -> None:
        pass

    def drain(self) -> None:
        pass

    def close(self) -> None:
        pass


class InstantWorker(Worker):
    """A worker with such an engine, and with connections of its own as every worker has."""

    def __init__(self, ledger_url: str, owner: str) -> None:
        self.engine: Any = Instant()
        ledger = SqlLedger(database.engine(ledger_url))
        super().__init__(ledger=ledger, runner=self.engine, owner=owner, settings=WorkerSettings())

    def handle(self, delivery: Delivery) -> Disposition:
        self.engine.received = time.time()
        return super().handle(delivery)


def pull_loops(connection: Connection, name: str, number: int, ledger_url: str, subscription: str) -> None:
    """Be some workers that pull, until something comes over the connection."""
    configure(["ERROR"])
    with ExitStack() as stack:
        supervisors = []
        for index in range(number):
            worker = InstantWorker(ledger_url, f"{name}/{index}")
            supervisor = Supervisor(
                queue=PubSubQueue(subscription),
                slots=[Slot(worker, worker.engine)],
                sweep=list,
                settings=WorkerSettings(drain_s=0.1),
            )
            supervisors.append(stack.enter_context(supervisor))
        connection.send(None)
        connection.recv()
        _stop_together(supervisors)


def _stop_together(supervisors: Sequence[Supervisor]) -> None:
    """Stop supervisors at the same time: each takes a second."""
    with ThreadPoolExecutor(len(supervisors)) as pool:
        list(pool.map(lambda supervisor: supervisor.__exit__(None, None, None), supervisors))


def push_server(
    connection: Connection, name: str, number: int, ledger_url: str, settings: PushSettings
) -> None:
    """Be some activators behind one address, until something comes over the connection."""
    configure(["ERROR"])
    free: queue.SimpleQueue[Activator] = queue.SimpleQueue()
    for index in range(number):
        worker = InstantWorker(ledger_url, f"{name}/{index}")
        free.put(Activator(worker, worker.engine))

    def handle(pushed: Pushed) -> int:
        try:
            activator = free.get_nowait()
        except queue.Empty:
            return BUSY
        try:
            return activator.handle(pushed)
        finally:
            free.put(activator)

    border = Border(settings, TokenVerifier(settings, {}), handle=handle, is_ready=lambda: True)
    app = Flask(name)

    @app.post("/")
    def push() -> Response:
        return border.serve(request)

    class Quiet(WSGIRequestHandler):
        def log_request(self, *_: object) -> None:
            pass

    server = make_server(LOOPBACK, 0, app, threaded=True, request_handler=Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    connection.send(f"http://{LOOPBACK}:{server.server_port}/")
    connection.recv()
    server.shutdown()


# A steady load: everything but pixels is real.


class NoRows(MemoryApdb):
    """An APDB that keeps nothing: its rows would be more work than everything else."""

    def store(self, *_: object) -> None:
        pass


@dataclass(frozen=True)
class Bucket:
    """A landing store as `TestPixels` wants it: tells whether a raw is there, and reads it as ingest does."""

    place: ResourcePath

    def __truediv__(self, key: str) -> "Bucket":
        return Bucket(objects.child(self.place, key))

    def exists(self) -> bool:
        return objects.read(self.place) is not None


def steady_runner(repo: Path, hints: HintSource, clock: Clock) -> Process:
    """Build the real process with trivial pixels inside an engine."""
    configure(["ERROR"])
    factory, apdb = Factory(repo, clock), NoRows()
    landing: Any = Bucket(factory.incoming)
    stores = Stores(
        ledger=factory.ledger,
        decisions=factory.decisions,
        apdb=apdb,
        alerts=MemoryAlerts(),
        metrics=MemoryMetrics(),
        products=MemoryProducts(),
    )
    return Process(
        pixels=TestPixels(apdb, landing, Faults()),
        waiter=_waiter(factory, hints, clock),
        stores=stores,
        clock=clock,
        settings=factory.settings.worker,
    )


def feed(connection: Connection, repo: Path, begin: float, rate: float, number: int) -> None:
    """Announce LSSTCam's detector-visits one after the other, and note their images when they are due.

    Tells at the end by how much it was ever late, and what could not be done.
    """
    configure(["ERROR"])
    factory = Factory(repo, WallClock())
    publisher, late, problems = factory.publisher, [0.0], []
    images: list[Any] = []

    def image(visit: DetectorVisit, sequence: int, due: float) -> None:
        time.sleep(max(due - time.time(), 0.0))
        late.append(time.time() - due)
        key = raw_key(visit, sequence)
        put_image(factory.incoming, visit, key)
        factory.note_arrival(key)
        factory.arrivals.forget(key)

    # Each image has a thread that waits for its time.
    with ThreadPoolExecutor(int(rate * (IMAGE_AFTER + 2.0)) + 4) as pool:
        for index in range(number):
            due = begin + index / rate
            time.sleep(max(due - time.time(), 0.0))
            late.append(time.time() - due)
            visit = steady_visit(index)
            publisher.publish([visit.model_dump_json()])
            images.append(pool.submit(image, visit, index // N_DETECTORS + 1, due + IMAGE_AFTER))
        problems = [repr(error) for future in images if (error := future.exception()) is not None]
    connection.send((max(late), problems))


def steady_visit(index: int) -> DetectorVisit:
    """Return the message of the n-th detector-visit of the steady load."""
    detector = LSSTCAM.detectors[index % N_DETECTORS]
    group = f"steady-{index // N_DETECTORS}"
    return announced_now(group, close_in=CLOSE_AFTER, detector=detector, instrument="LSSTCam")


def name_of(visit: Any) -> str:
    """Return a name of a detector-visit."""
    return f"{visit.groupId}/{visit.detector}"


class Watch:
    """Looks now and then at what could pile up under a steady load.

    Parameters
    ----------
    cloud
        The deployment.
    begin, rate, number
        When the first visit is announced, how many follow in a second, and how many there are.
    handled
        Names of the visits whose messages were acknowledged; others add to it.
    """

    def __init__(self, cloud: Cloud, begin: float, rate: float, number: int, handled: set[str]) -> None:
        self._cloud, self._begin, self._rate = cloud, begin, rate
        self._names = [name_of(steady_visit(index)) for index in range(number)]
        self._handled = handled
        self._database = database.engine(cloud.environment["PROMPT_REPOSITORY__LEDGER"])
        self._last = (begin, 0)
        self._rows: list[dict[str, float]] = []

    def look(self) -> None:
        """Print one line."""
        now, done = time.time(), len(self._handled)
        announced = self._names[: int((now - self._begin) * self._rate)]
        waiting = (index for index, name in enumerate(announced) if name not in self._handled)
        oldest = next(waiting, None)
        row = {
            "done per second": (done - self._last[1]) / (now - self._last[0]),
            "oldest message [s]": 0.0 if oldest is None else now - self._begin - oldest / self._rate,
            "connections": self._connections(),
            "busy cores": psutil.cpu_percent() / 100 * psutil.cpu_count(),
            **self._memory(),
        }
        self._last = (now, done)
        self._rows.append(row)
        values = ", ".join(f"{name} {value:.1f}" for name, value in row.items())
        print(f"steady: {now - self._begin:5.0f} s, {done} done: {values}", flush=True)

    def report(self) -> None:
        """Compare the first third of the lines with the last one."""
        if not self._rows:
            return
        third = max(len(self._rows) // 3, 1)
        for name in self._rows[0]:
            first, last = (
                np.median([row[name] for row in rows]) for rows in (self._rows[:third], self._rows[-third:])
            )
            change = f"   {last / first - 1.0:+.0%}" if first else ""
            print(f"steady: {name:<24} first third {first:8.1f}   last third {last:8.1f}{change}")

    def _connections(self) -> int:
        query = sa.text("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'")
        with database.reading(self._database, "connections") as connection:
            return int(connection.execute(query).scalar_one()) - 1

    def _memory(self) -> dict[str, float]:
        """Return what processes have of their own, with their part of what they share [MB]."""
        servers = {
            "Pub/Sub": self._cloud.pubsub.pid,
            "GCS": self._cloud.gcs.pid,
            "PostgreSQL": self._cloud.postgres.pid,
        }
        trees = {name: _tree(pid) for name, pid in servers.items()}
        known = {process.pid for tree in trees.values() for process in tree}
        own = [process for process in _tree(os.getpid()) if process.pid not in known]
        trees |= {"supervisor": own[:1], "engines and feeder": own[1:]}
        return {f"{name} [MB]": sum(map(_memory, tree)) for name, tree in trees.items()}


def _tree(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def _memory(process: psutil.Process) -> float:
    try:
        return float(process.memory_full_info().pss) / 1e6
    except psutil.Error:
        return 0.0  # it has ended meanwhile


# Where the time of an engine goes.


class Sampled:
    """A runner in an engine whose main thread is looked at all the time, between visits too.

    The deterministic profiler of the standard library mixes threads since Python 3.12.

    Parameters
    ----------
    runner
        What does the work.
    file
        Where it is written in how many looks each function was at work, and in how many it or what it calls.
    warm
        After how many visits it begins.
    """

    def __init__(self, runner: Runner, file: Path, warm: int) -> None:
        self._runner, self._file, self._warm = runner, file, warm
        self._visits = -warm
        self._own: Counter[str] = Counter()
        self._within: Counter[str] = Counter()

    def run(self, visit: DetectorVisit, claim: Claim, watch: Stopwatch) -> Outcome:
        if self._visits == 0:
            sampler = threading.Thread(target=self._sample, args=(threading.get_ident(),), daemon=True)
            sampler.start()
        if self._visits > 0 and self._visits % _WRITE_EVERY == 0:
            found = {"visits": self._visits, "own": self._own.copy(), "within": self._within.copy()}
            self._file.write_text(json.dumps(found))
        self._visits += 1
        return self._runner.run(visit, claim, watch)

    def _sample(self, thread: int) -> None:
        # Otherwise the main thread is found only where it lets others run: at sockets and files.
        sys.setswitchinterval(SAMPLE / 30)
        while True:
            time.sleep(SAMPLE)
            frame: Any = sys._current_frames()[thread]
            self._own[_place(frame)] += 1
            stack = set()
            while frame is not None and frame.f_code is not Sampled.run.__code__:
                stack.add(_place(frame))
                frame = frame.f_back
            self._within.update(stack)


def _place(frame: Any) -> str:
    file = Path(frame.f_code.co_filename)
    return f"{file.parent.name}/{file.name} {frame.f_code.co_qualname}"


def sampled_runner(repo: Path, file: Path, warm: int, hints: HintSource, clock: Clock) -> Sampled:
    """Build the real process of a repository inside an engine, and look where its time goes."""
    configure(["ERROR"])
    return Sampled(Factory(repo, clock).process(hints), file, warm)
