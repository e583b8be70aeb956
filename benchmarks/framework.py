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
import sqlalchemy as sa
from astropy.time import Time
from lsst.daf.butler import Butler, CollectionType, Timespan
from lsst.pipe.base import Pipeline
from lsst.pipe.base.separable_pipeline_executor import SeparablePipelineExecutor

sys.path[:0] = [
    str(Path(__file__).parents[1] / "tests"),
    str(Path(__file__).parents[1] / "tests/instruments"),
]

import latiss_files
import trivial  # noqa: F401 (named in the pipeline)

from prompt_processing.apdb.memory import MemoryApdb
from prompt_processing.cli.logs import configure
from prompt_processing.config import WorkerSettings
from prompt_processing.delivery.products import ButlerProducts
from prompt_processing.domain import collections
from prompt_processing.domain.clock import WallClock
from prompt_processing.domain.outcome import Stopwatch
from prompt_processing.domain.visit import DetectorVisit
from prompt_processing.images.exposure import Exposure, MaskedImage
from prompt_processing.instruments.butler import prepare_butler
from prompt_processing.instruments.ingest import (
    define_visit,
    exposure_records,
    ingest_raw,
    insert_records,
    read_observation,
    visit_records,
)
from prompt_processing.instruments.skymap import SKYMAP, Patch, register_patches
from prompt_processing.instruments.storage import butler_config
from prompt_processing.preload.preloader import Preloader
from prompt_processing.worker.pixels import ButlerPixels
from support.servers import Postgres, ServerMissingError
from support.visits import detector_visit

SHAPE = (2 * latiss_files.NY, 8 * latiss_files.NX)
BEGIN = 60486.06105509261
VISITS_IN_REPOSITORY = 10_000

PIPELINE = """
description: Three tasks that do next to nothing.
instrument: prompt_processing.instruments.latiss.Latiss
tasks:
  isr: trivial.IsrTask
  calibrate: trivial.CalibrateTask
  subtract: trivial.SubtractTask
"""


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


def corner() -> tuple[float, float]:
    """Return a position at which four patches meet [deg]."""
    wcs = SKYMAP.patch_wcs(Patch(SKYMAP.tract_at(223.75, -20.0), 13 * SKYMAP.patches + 13))
    edge = SKYMAP.patch_border
    ra, dec = wcs.wcs_pix2world([[edge, edge]], 0)[0]
    return float(ra), float(dec)


def write_raws(incoming: Path, number: int) -> list[str]:
    """Write raws of one field, and return their keys."""
    ra, dec = corner()
    keys = []
    for index in range(number):
        obs_id = f"AT_O_20240624_{index + 200:06d}"
        key = f"LATISS/20240624/{obs_id}/{obs_id}_R00_S00.fits"
        header = latiss_files.primary_header(
            OBSID=obs_id, SEQNUM=index + 200, GROUPID=f"group-{index}", RA=ra, DEC=dec
        )
        latiss_files.write(incoming / key, header)
        keys.append(key)
    return keys


def message(index: int) -> DetectorVisit:
    """Return the message that announced a raw."""
    return detector_visit(
        groupId=f"group-{index}",
        position=list(corner()),
        cameraAngle=98.5,
        startTime=float(Time(BEGIN, format="mjd", scale="tai").unix_tai) - 1.0,
        duration=33.0,
    )


def make_central(root: Path, registry: str | None, raw: Path) -> Butler:
    """Make a central Butler with calibs, four template patches and the records of many visits."""
    config = butler_config()
    if registry is not None:
        with sa.create_engine(registry).begin() as connection:
            connection.execute(sa.text("CREATE EXTENSION IF NOT EXISTS btree_gist"))
        config["registry", "db"] = registry
    Butler.makeRepo(str(root), config=config, forceConfigRoot=registry is None)
    butler = Butler.from_config(str(root), writeable=True)
    prepare_butler(butler)
    run, calibs, templates = "calibs", collections.calibs("LATISS"), "LATISS/templates/r"
    for name in (run, templates):
        butler.collections.register(name, CollectionType.RUN)
    frame = np.ones(SHAPE, np.float32)
    refs = [butler.put(frame, name, instrument="LATISS", detector=0, run=run) for name in ("bias", "dark")]
    refs.append(
        butler.put(
            frame, "flat", instrument="LATISS", detector=0, physical_filter="SDSSr_65mm~empty", run=run
        )
    )
    refs.append(butler.put({"shape": list(SHAPE)}, "ptc", instrument="LATISS", detector=0, run=run))
    butler.registry.certify(calibs, refs, Timespan(None, None))
    tract = SKYMAP.tract_at(*corner())
    patches = [Patch(tract, (13 + y) * SKYMAP.patches + 13 + x) for y in (-1, 0) for x in (-1, 0)]
    register_patches(butler, patches)
    for patch in patches:
        pixels = np.zeros((256, 256), np.float32)
        planes = MaskedImage(pixels, pixels, pixels.astype(np.uint16))
        butler.put(
            Exposure(planes, unit="nJy", wcs=SKYMAP.patch_wcs(patch)),
            "template_coadd", skymap=SKYMAP.name, tract=tract, patch=patch.patch, band="r", run=templates,
        )  # fmt: skip
    butler.collections.redefine_chain(collections.templates("LATISS"), [templates])
    add_visits(butler, raw, VISITS_IN_REPOSITORY)
    return butler


def add_visits(butler: Butler, raw: Path, number: int) -> None:
    """Insert the records of many visits that look like one raw."""
    observation = read_observation(raw)
    universe = butler.dimensions
    records = [*exposure_records(universe, observation), *visit_records(universe, [observation], SHAPE)]
    insert_records(butler, records, raw)
    for record in records:
        element = record.definition.name
        if not {"exposure", "visit"} & set(record.definition.required.names):
            continue
        rows = []
        for index in range(number):
            row = record.toDict()
            for key in {"id", "exposure", "visit"} & row.keys():
                row[key] = 3_000_000_000_000 + index
            for key in {"obs_id", "name"} & row.keys():
                row[key] = f"AT_X_{index:06d}"
            rows.append(row)
        butler.registry.insertDimensionData(element, *rows)


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
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    return timed(lambda: subprocess.run(command, check=True, capture_output=True, env=environment))


class Ours:
    """The worker's way, with a time for each part."""

    def __init__(self, central: Butler, pipeline: Path, incoming: Path, work: Path) -> None:
        preloader = Preloader(
            central=central, apdb=MemoryApdb(), pipelines=[pipeline], padding=60.0, cache_bytes=1_000_000_000
        )
        self.pixels = ButlerPixels(preloader, incoming, WorkerSettings())
        self.products = ButlerProducts(central, work)
        self.times: dict[str, list[float]] = {"preload": [], "image to decision": [], "products": []}

    def visit(self, index: int, key: str) -> None:
        """Take one visit from its message to its products."""
        start = time.perf_counter()
        with self.pixels.prepare(message(index)) as prepared:
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
        on_disk = make_central(folder / "repo", None, raw)
        ours = measure("SQLite on disk", on_disk, folder, keys, visits, folder)
        in_memory = make_central(Path(memory) / "repo", None, raw)
        measure("SQLite on tmpfs", in_memory, folder, keys, visits, Path(memory))
        try:
            with Postgres() as server:
                postgres = make_central(folder / "postgres", server.new_database(), raw)
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
