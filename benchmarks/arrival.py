"""How long an image in the landing folder waits for the start of its ingest; what an idle worker costs.

A real engine waits for each image with the real settings, on real folders and an SQLite ledger; only the
pipeline is left out. Three ways to hear of an image are measured in one run: with hints, with every hint
lost, and with every notification lost, where the waiting worker's own listing finds it.
"""

import argparse
import functools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import psutil

sys.path.extend(str(Path(__file__).parents[1] / folder) for folder in ("tests", "tools"))

from local_cloud.visits import detector_visit
from prompt_processing.arrivals.note import note_arrival
from prompt_processing.arrivals.pointers import Arrivals
from prompt_processing.arrivals.watch import ArrivalWatcher
from prompt_processing.cli.logs import configure
from prompt_processing.config import WorkerSettings
from prompt_processing.domain.clock import Clock, WallClock
from prompt_processing.domain.outcome import Outcome, Stopwatch
from prompt_processing.domain.visit import DetectorVisit
from prompt_processing.factory.create import create_repository
from prompt_processing.ledger.port import Claim
from prompt_processing.ledger.sql import SqlLedger
from prompt_processing.messaging.memory import MemoryQueue
from prompt_processing.messaging.port import HintSource
from prompt_processing.runtime.fork_server import preload
from prompt_processing.storage import database, object_store
from prompt_processing.worker.engine import Engine
from prompt_processing.worker.supervisor import Slot, Supervisor
from prompt_processing.worker.wait import ImageWaiter
from prompt_processing.worker.worker import Worker

SETTINGS = WorkerSettings()


class Parts:
    """The stores of one landing folder."""

    def __init__(self, folder: Path) -> None:
        self.incoming = folder / "incoming"
        self.incoming.mkdir(exist_ok=True)
        self.arrivals = Arrivals(
            object_store.root(self.incoming), object_store.root(folder / "arrivals"), WallClock()
        )
        self.ledger = SqlLedger(database.engine(f"sqlite:///{folder}/ledger.sqlite3"))
        self.queue = MemoryQueue()

    def note(self, key: str) -> None:
        note_arrival(key, self.arrivals, self.ledger, self.queue)


class Waiting:
    """Waits for the images of a visit, and tells when it has them."""

    def __init__(self, folder: Path, hints: HintSource, clock: Clock) -> None:
        parts = Parts(folder)
        self._folder = folder
        self._waiter = ImageWaiter(
            arrivals=parts.arrivals,
            note=parts.note,
            hints=hints,
            ledger=parts.ledger,
            clock=clock,
            settings=SETTINGS,
        )

    def run(self, visit: DetectorVisit, claim: Claim, watch: Stopwatch) -> Outcome:
        (self._folder / "waiting").touch()
        self._waiter.wait(visit)
        return Outcome.processed(str(time.time()))


def measure(folder: Path, number: int, *, watched: bool, hints: bool) -> list[float]:
    """Return the times from arrival to the start of ingest [s]."""
    parts = Parts(folder)
    engine = Engine(
        functools.partial(Waiting, folder), ledger=parts.ledger, clock=WallClock(), settings=SETTINGS
    )
    worker = Worker(ledger=parts.ledger, runner=engine, owner="w", settings=SETTINGS)
    slots = [Slot(worker, engine)]
    supervisor = Supervisor(queue=parts.queue, slots=slots, sweep=list, settings=SETTINGS)
    watcher = ArrivalWatcher(
        incoming=parts.incoming,
        arrivals=parts.arrivals,
        note=parts.note,
        hint=supervisor.hint if hints else list,
        listing_interval=SETTINGS.listing_interval_s,
    )
    chance = np.random.default_rng(1)
    with supervisor, ExitStack() as stack:
        if watched:
            stack.enter_context(watcher)
        return [one(parts, folder, index, chance.uniform(0.3, 1.3)) for index in range(number)]


def one(parts: Parts, folder: Path, index: int, delay: float) -> float:
    """Announce a visit, let its image appear a moment later, and return how long that went unseen [s]."""
    # Two seconds after the shutter has closed, as the camera reads out.
    start = WallClock().now().unix_tai - 2.0 - 30.0
    visit = detector_visit(groupId=f"group-{index}", startTime=start, private_sndStamp=start)
    parts.queue.publish([visit.model_dump_json()])
    wait_for((folder / "waiting").exists)
    (folder / "waiting").unlink()
    time.sleep(delay)
    obs_id = f"AT_O_20260315_{index:06d}"
    target = parts.incoming / "LATISS" / "20260315" / obs_id / f"{obs_id}_R00_S00.fits"
    target.parent.mkdir(parents=True)
    target.with_suffix(".json").write_text(json.dumps({"GROUPID": visit.groupId}))
    temporary = target.with_name("temporary")
    temporary.touch()
    arrived = time.time()
    temporary.replace(target)
    wait_for(lambda: bool((record := parts.ledger.find(visit.key)) and record.outcome))
    record = parts.ledger.find(visit.key)
    assert record is not None
    assert record.outcome is not None
    return float(record.outcome.flags[0]) - arrived


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    while not condition():
        time.sleep(0.02)


def idle(folder: Path, seconds: float) -> float:
    """Return the share of a core that a worker with nothing to do takes, with all its processes."""
    create_repository(folder)
    command = [Path(sys.executable).with_name("prompt"), "worker", "run", folder]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        time.sleep(20.0)  # until it has started
        tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        before = sum(sum(one.cpu_times()[:2]) for one in tree)
        time.sleep(seconds)
        after = sum(sum(one.cpu_times()[:2]) for one in tree)
        process.terminate()
    return (after - before) / seconds


def main() -> None:
    """Print one row for each way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100, help="Images for each way; a tenth for listings.")
    options = parser.parse_args()
    configure(["ERROR"])
    preload("prompt_processing.factory.engine_imports")
    ways = {
        "with hints": (options.images, {"watched": True, "hints": True}),
        "pointer written, every hint lost": (options.images, {"watched": True, "hints": False}),
        "every notification lost": (max(options.images // 10, 5), {"watched": False, "hints": False}),
    }
    for name, (number, way) in ways.items():
        with tempfile.TemporaryDirectory() as folder:
            times = np.array(measure(Path(folder), number, **way))
        p50, p99 = np.percentile(times, [50, 99])
        print(f"{name:<34} {number:>4} images: p50 {p50:.3f} s, p99 {p99:.3f} s, at most {times.max():.3f} s")
    with tempfile.TemporaryDirectory() as folder:
        print(f"idle worker: {idle(Path(folder), 60.0):.2%} of a core")


if __name__ == "__main__":
    main()
