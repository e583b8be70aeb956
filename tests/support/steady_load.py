"""A steady load of detector-visits on the cloud deployment: everything but the pixels is real."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import sqlalchemy as sa
from lsst.resources import ResourcePath

from local_cloud.cloud import Cloud
from local_cloud.load import LSSTCAM, N_DETECTORS, announced_now, image_waiter, put_image, raw_key
from prompt_processing.apdb.memory import MemoryApdb
from prompt_processing.cli.logs import configure
from prompt_processing.delivery.memory import MemoryAlerts, MemoryMetrics
from prompt_processing.domain.clock import Clock, WallClock
from prompt_processing.domain.visit import DetectorVisit
from prompt_processing.factory.worker import Factory
from prompt_processing.messaging.port import HintSource
from prompt_processing.storage import database, object_store
from prompt_processing.worker.effects import list_effects
from prompt_processing.worker.process import VisitProcessor
from support.points import Faults
from support.two_sources import MemoryProducts, TestPixels

CLOSE_AFTER = 0.5
"""From the message of a visit to the close of its shutter [s] ..."""
IMAGE_AFTER = 1.5
"""... and to its image [s]: a night has a minute, in which a worker only waits."""


class NoRows(MemoryApdb):
    """An APDB that keeps nothing: its rows would be more work than everything else."""

    def store(self, *_: object) -> None:
        pass


@dataclass(frozen=True)
class Bucket:
    """A landing store as `TestPixels` wants it: tells whether a raw is there, and reads it as ingest does."""

    place: ResourcePath

    def __truediv__(self, key: str) -> "Bucket":
        return Bucket(object_store.child(self.place, key))

    def exists(self) -> bool:
        return object_store.read(self.place) is not None


def steady_runner(repo: Path, hints: HintSource, clock: Clock) -> VisitProcessor:
    """Build the real process with trivial pixels inside an engine."""
    configure(["ERROR"])
    factory, apdb = Factory(repo, clock), NoRows()
    landing: Any = Bucket(factory.stores.incoming)
    effects = list_effects(
        apdb=apdb, alerts=MemoryAlerts(), metrics=MemoryMetrics(), products=MemoryProducts()
    )
    return VisitProcessor(
        pixels=TestPixels(apdb, landing, Faults()),
        waiter=image_waiter(factory, hints, clock),
        ledger=factory.stores.ledger,
        decisions=factory.stores.decisions,
        apdb=apdb,
        effects=effects,
        clock=clock,
        settings=factory.settings.worker,
    )


def feed(connection: Connection, repo: Path, begin: float, rate: float, number: int) -> None:
    """Announce LSSTCam's detector-visits one after the other, and note their images when they are due.

    Tells at the end by how much it was ever late, and what could not be done.
    """
    configure(["ERROR"])
    factory = Factory(repo, WallClock())
    publisher, late, problems = factory.stores.publisher, [0.0], []
    images: list[Any] = []

    def image(visit: DetectorVisit, sequence: int, due: float) -> None:
        time.sleep(max(due - time.time(), 0.0))
        late.append(time.time() - due)
        key = raw_key(visit, sequence)
        put_image(factory.stores.incoming, visit, key)
        factory.note_arrival(key)
        factory.stores.arrivals.forget(key)

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
