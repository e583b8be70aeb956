"""One full-size visit, from the raw in place to the alerts on disk: stage times and peak memory.

Uses the night and the repository of ``make demo``; nothing is written into them. The night is processed twice
in one process: the first round shows what a fresh process pays, the second what a warm one does.
"""

import argparse
import json
import platform
import resource
import statistics
import tempfile
from pathlib import Path

from lsst.daf.butler import Butler

from prompt_processing.apdb.memory import MemoryApdb
from prompt_processing.arrivals.note import note_arrival
from prompt_processing.arrivals.pointers import Arrivals
from prompt_processing.config import Settings
from prompt_processing.delivery.archive import AlertArchive
from prompt_processing.delivery.decisions import DecisionStore
from prompt_processing.delivery.memory import MemoryMetrics
from prompt_processing.delivery.products import ButlerProducts
from prompt_processing.domain.outcome import Delivery, Stopwatch
from prompt_processing.factory.stores import Stores
from prompt_processing.instruments.butler import make_butler
from prompt_processing.instruments.fan_out import detector_visits
from prompt_processing.ledger.memory import MemoryLedger
from prompt_processing.messaging.memory import MemoryHints, MemoryQueue
from prompt_processing.night.clock import SkippingClock
from prompt_processing.night.folder import read_events
from prompt_processing.preload.preloader import Preloader
from prompt_processing.repository.central import open_central
from prompt_processing.storage import object_store
from prompt_processing.worker.effects import list_effects
from prompt_processing.worker.pixels import ButlerPixels
from prompt_processing.worker.process import VisitProcessor
from prompt_processing.worker.wait import ImageWaiter

AFTER_THE_ALERTS = ("metrics", "products")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", type=Path, default=Path("demo"), help="folder of make demo")
    demo = parser.parse_args().demo.resolve()
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}")
    for name in ("first", "warm"):
        with tempfile.TemporaryDirectory() as scratch:
            rounds = process_night(demo / "night", demo / "repo", Path(scratch))
        for stage in rounds[0]:
            print(f"{name:6} {stage:22} {statistics.median(times[stage] for times in rounds):7.2f} s")
        totals = [
            sum(t for stage, t in after_the_image(times).items() if stage not in AFTER_THE_ALERTS)
            for times in rounds
        ]
        print(f"{name:6} raw in place -> alerts {statistics.median(totals):7.2f} s of {json.dumps(totals)}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"peak memory {peak:.2f} GB")


def after_the_image(times: dict[str, float]) -> dict[str, float]:
    """Return the stages that come after the wait for the image."""
    names = list(times)
    return {name: times[name] for name in names[names.index("wait") + 1 :]}


def process_night(night: Path, repo: Path, scratch: Path) -> list[dict[str, float]]:
    """Process every visit of a night into scratch stores; return the stage times of each [s]."""
    events = read_events(night / "events.jsonl", print)
    clock = SkippingClock(events[0].published)
    settings = Settings.load(repo)
    arrivals = Arrivals(object_store.root(night / "raw"), object_store.root(scratch / "arrivals"), clock)
    apdb = MemoryApdb()
    make_butler(str(scratch / "central"))
    (scratch / "work").mkdir()
    ledger = MemoryLedger()
    effects = list_effects(
        apdb=apdb,
        alerts=AlertArchive(object_store.root(scratch / "alerts")),
        metrics=MemoryMetrics(),
        products=ButlerProducts(Butler.from_config(scratch / "central", writeable=True), scratch / "work"),
    )
    preloader = Preloader(
        central=open_central(repo),
        apdb=apdb,
        cache_bytes=settings.worker.cache_mb * 1_000_000,
        selection=Stores.open(repo).selection,
        overrides=Stores.open(repo).overrides,
        padding=settings.worker.padding_arcsec,
    )
    waiter = ImageWaiter(
        arrivals=arrivals,
        note=lambda key: note_arrival(key, arrivals, ledger, MemoryQueue()),
        hints=MemoryHints(),
        ledger=ledger,
        clock=clock,
        settings=settings.worker,
    )
    process = VisitProcessor(
        pixels=ButlerPixels(preloader, object_store.root(night / "raw"), night, settings.worker),
        waiter=waiter,
        ledger=ledger,
        decisions=DecisionStore(object_store.root(scratch / "decisions")),
        apdb=apdb,
        effects=effects,
        clock=clock,
        settings=settings.worker,
    )
    found = []
    for event in events:
        (visit,) = detector_visits(event)
        claim = ledger.claim(visit, Delivery(event.groupId, ""), owner="benchmark")
        clock.skip_to(visit.predicted_shutter_close)
        watch = Stopwatch()
        process.run(visit, claim, watch)
        found.append(dict(watch.times().seconds))
    return found


if __name__ == "__main__":
    main()
