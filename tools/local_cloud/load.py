"""Load on the cloud deployment: visits that are announced now, and workers that do next to nothing."""

import json
import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from astropy.io import fits
from flask import Flask, Response, request
from lsst.resources import ResourcePath
from werkzeug.serving import WSGIRequestHandler, make_server

from local_cloud.cloud import Cloud, Service
from local_cloud.servers import LOOPBACK, answers_http
from local_cloud.visits import EVENT, detector_visit
from prompt_processing.cli.logs import configure
from prompt_processing.config import PushSettings, WorkerSettings
from prompt_processing.domain.clock import Clock, WallClock
from prompt_processing.domain.outcome import Delivery, Disposition, Outcome, Stopwatch
from prompt_processing.domain.visit import DetectorVisit
from prompt_processing.factory.worker import Factory
from prompt_processing.instruments.cameras import get_camera
from prompt_processing.ledger.port import Claim
from prompt_processing.ledger.sql import SqlLedger
from prompt_processing.messaging.port import HintSource
from prompt_processing.messaging.pubsub import PubSubQueue
from prompt_processing.selection.rules import observing_day
from prompt_processing.serving.activator import BUSY, Activator
from prompt_processing.serving.border import Border
from prompt_processing.serving.envelope import Pushed
from prompt_processing.serving.identity import TokenVerifier
from prompt_processing.storage import database, object_store
from prompt_processing.worker.supervisor import Slot, Supervisor
from prompt_processing.worker.wait import ImageWaiter
from prompt_processing.worker.worker import Worker

LSSTCAM = get_camera("LSSTCam")
N_DETECTORS = len(LSSTCAM.detectors)
HOLD = 5.0
"""How long a worker of a burst is busy [s]."""


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
    camera, day = get_camera(visit.instrument), f"{observing_day(visit):%Y%m%d}"
    obs_id = f"{'MC' if visit.instrument == 'LSSTCam' else 'AT'}_O_{day}_{sequence:06d}"
    return f"{visit.instrument}/{day}/{obs_id}/{obs_id}_{camera.raw_name(visit.detector)}.fits"


def put_image(incoming: ResourcePath, visit: DetectorVisit, key: str) -> float:
    """Put a sidecar and a raw without pixels into a landing store; return when the raw was there."""
    sidecar = f"{key.removesuffix('.fits')}.json"
    object_store.create(
        object_store.child(incoming, sidecar), json.dumps({"GROUPID": visit.groupId}).encode()
    )
    header = fits.Header({"GROUPID": visit.groupId, "CURINDEX": 1})
    object_store.create(
        object_store.child(incoming, key), fits.PrimaryHDU(header=header).header.tostring().encode()
    )
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
    return Waiting(image_waiter(Factory(repo, clock), hints, clock))


def image_waiter(factory: Factory, hints: HintSource, clock: Clock) -> ImageWaiter:
    """Return what waits for the images of visits, as an engine builds it."""
    return ImageWaiter(
        arrivals=factory.stores.arrivals,
        note=factory.note_arrival,
        hints=hints,
        ledger=factory.stores.ledger,
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
