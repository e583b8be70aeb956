"""What the framework costs for one detector-visit, beside the middleware's own ways on the same quanta.

Three tasks that do next to nothing run on a raw, three calibs and four template patches. Measured are: the
preload from a central repository that knows 10,000 visits; from the arrival of the image to the outputs and
the decision in memory; storing the products; the same by `SeparablePipelineExecutor` in a warm process; and
by ``pipetask run``.
"""

import argparse
import gc
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from lsst.daf.butler import Butler, CollectionType
from lsst.pipe.base import Pipeline
from lsst.pipe.base.separable_pipeline_executor import SeparablePipelineExecutor

sys.path.extend(str(Path(__file__).parents[1] / folder) for folder in ("tests", "tools"))

from local_cloud.servers import Postgres, ServerMissingError
from prompt_processing.apdb.memory import MemoryApdb
from prompt_processing.cli.logs import configure
from prompt_processing.config import WorkerSettings
from prompt_processing.delivery.products import ButlerProducts
from prompt_processing.domain import collections
from prompt_processing.domain.clock import WallClock
from prompt_processing.domain.outcome import Stopwatch
from prompt_processing.instruments.ingest import define_visit, ingest_raw
from prompt_processing.instruments.skymap import SKYMAP
from prompt_processing.preload.preloader import Preloader
from prompt_processing.selection.override import Overrides
from prompt_processing.storage import object_store
from prompt_processing.worker.pixels import ButlerPixels
from support.central import PIPELINE, SHAPE, make_central, message, write_raws
from support.material import selection_of

TESTS = Path(__file__).parents[1] / "tests"
VISITS_IN_REPOSITORY = 10_000


def report(name: str, seconds: list[float]) -> float:
    """Print median and tail, and return the median [s]."""
    values = 1000 * np.array(seconds)
    median, tail, most = np.median(values), np.percentile(values, 99), values.max()
    print(f"{name:<64} median {median:8.1f}   p99 {tail:8.1f}   max {most:8.1f} ms", flush=True)
    return float(median) / 1000


def timed(function: Callable[[], object]) -> float:
    """Return how long something takes [s]."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def separable(butler: Butler, pipeline: Path, exposures: list[int]) -> list[float]:
    """Return the time of `SeparablePipelineExecutor` for each exposure, in this warm process [s]."""
    times = []
    for exposure in exposures:
        run = f"u/benchmark/{exposure}"

        def execute(exposure: int = exposure, run: str = run) -> None:
            butler.collections.register(run, CollectionType.RUN)
            executor = SeparablePipelineExecutor(
                butler.clone(collections=collections.inputs("LATISS"), run=run)
            )
            graph = executor.build_quantum_graph(
                Pipeline.from_uri(str(pipeline)),
                where=f"instrument='LATISS' AND exposure={exposure} AND detector=0 "
                f"AND skymap='{SKYMAP.name}'",
            )
            executor.pre_execute_qgraph(graph, register_dataset_types=True)
            executor.run_pipeline(graph)

        times.append(timed(execute))
    return times


def pipetask(repo: Path, pipeline: Path, exposure: int, number: int) -> float:
    """Return the time of ``pipetask run`` [s]."""
    command = [
        str(Path(sys.executable).with_name("pipetask")), "run", "-b", str(repo), "-p", str(pipeline),
        "-i", collections.defaults("LATISS"), "--output-run", f"u/benchmark/pipetask/{number}",
        "-d", f"instrument='LATISS' AND exposure={exposure} AND detector=0 AND skymap='{SKYMAP.name}'",
        "--register-dataset-types",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    return timed(lambda: subprocess.run(command, check=True, capture_output=True, env=environment))


class Ours:
    """The worker's way, with a time for each part."""

    def __init__(self, central: Butler, pipeline: Path, incoming: Path, work: Path) -> None:
        preloader = Preloader(
            central=central,
            apdb=MemoryApdb(),
            selection=selection_of(pipeline.parent, pipeline.stem),
            overrides=Overrides(object_store.root(work / "overrides")),
            padding=60.0,
            cache_bytes=1_000_000_000,
        )
        self.pixels = ButlerPixels(preloader, object_store.root(incoming), incoming, WorkerSettings())
        self.products = ButlerProducts(central, work)
        self.times: dict[str, list[float]] = {"preload": [], "image to decision": [], "products": []}

    def visit(self, index: int, key: str) -> None:
        """Take one visit from its message to its products."""
        start = time.perf_counter()
        with self.pixels.prepare(message(index), Stopwatch()) as prepared:
            preloaded = time.perf_counter()
            prepared.process([key], Stopwatch())
            decision = prepared.decide(1, (), WallClock().now())
            decided = time.perf_counter()
            self.products.store(prepared.products(decision))
        end = time.perf_counter()
        for name, value in zip(
            self.times, (preloaded - start, decided - preloaded, end - decided), strict=True
        ):
            self.times[name].append(value)
        gc.collect(1)


def measure(name: str, central: Butler, folder: Path, keys: list[str], visits: int, base: Path) -> float:
    """Measure our way on some visits, and return the median from image to decision [s]."""
    with tempfile.TemporaryDirectory(dir=base) as work:
        ours = Ours(central, folder / "Trivial.yaml", folder / "incoming", Path(work))
        ours.visit(0, keys[0])
        warm = {part: times[0] for part, times in ours.times.items()}
        print(f"{name}: first visit {1000 * sum(warm.values()):.0f} ms")
        for times in ours.times.values():
            times.clear()
        for index in range(1, visits + 1):
            ours.visit(index, keys[index])
    medians = [report(f"{name}: {part}", times) for part, times in ours.times.items()]
    return medians[1]


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--visits", type=int, default=100)
    visits = parser.parse_args().visits
    configure(["ERROR"])
    with tempfile.TemporaryDirectory() as disk, tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        folder = Path(disk)
        (folder / "Trivial.yaml").write_text(PIPELINE)
        keys = write_raws(folder / "incoming", visits + 1)
        raw = folder / "incoming" / keys[0]
        gc.collect()
        gc.freeze()
        gc.set_threshold(200_000, 20, 100)
        on_disk = make_central(folder / "repo", raw, VISITS_IN_REPOSITORY)
        ours = measure("SQLite on disk", on_disk, folder, keys, visits, folder)
        in_memory = make_central(Path(memory) / "repo", raw, VISITS_IN_REPOSITORY)
        measure("SQLite on tmpfs", in_memory, folder, keys, visits, Path(memory))
        try:
            with Postgres() as server:
                postgres = make_central(folder / "postgres", raw, VISITS_IN_REPOSITORY, server.new_database())
                measure("PostgreSQL, files on disk", postgres, folder, keys, visits, folder)
                postgres.close()
        except ServerMissingError as error:
            print(f"PostgreSQL left out: {error}")
        exposures = []
        for key in keys[:11]:
            _, observation = ingest_raw(on_disk, folder / "incoming" / key, run=collections.raws("LATISS"))
            define_visit(on_disk, observation, SHAPE)
            exposures.append(observation.exposure_id)
        separable(on_disk, folder / "Trivial.yaml", exposures[:1])
        theirs = report(
            "SeparablePipelineExecutor, warm", separable(on_disk, folder / "Trivial.yaml", exposures[1:])
        )
        command = report(
            "pipetask run",
            [pipetask(folder / "repo", folder / "Trivial.yaml", exposures[0], n) for n in range(3)],
        )
        print(f"ours is {theirs / ours:.0f} and {command / ours:.0f} times faster")


if __name__ == "__main__":
    main()
