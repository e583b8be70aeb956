"""What benchmarks of the cloud deployment share: its ledger seen from outside, and rows of figures."""

import time
from collections.abc import Callable, Sequence

import numpy as np

from local_cloud.cloud import Cloud
from prompt_processing.domain.visit import DetectorVisit
from prompt_processing.ledger.port import DetectorVisitRecord
from prompt_processing.ledger.sql import SqlLedger
from prompt_processing.messaging.pubsub import PubSubPublisher
from prompt_processing.storage import database

PATIENCE = 120.0
"""Longest wait for anything [s]."""


class Ledger:
    """The ledger of a deployment, and its publisher."""

    def __init__(self, cloud: Cloud) -> None:
        self.url = cloud.environment["PROMPT_REPOSITORY__LEDGER"]
        self._ledger = SqlLedger(database.engine(self.url))
        self._publisher = PubSubPublisher(cloud.topology.next_visit)

    def publish(self, *visits: DetectorVisit) -> float:
        """Send messages; return when that began."""
        bodies = [visit.model_dump_json() for visit in visits]
        begin = time.time()
        self._publisher.publish(bodies)
        return begin

    def wait_until_working(self, visit: DetectorVisit) -> None:
        wait_for(lambda: (record := self._ledger.find(visit.key)) is not None and record.working is not None)

    def finished(self, *visits: DetectorVisit, every: float = 0.05) -> list[DetectorVisitRecord]:
        """Wait until visits of one group are finished, and return what is known of them."""
        keys = {visit.key for visit in visits}

        def find() -> list[DetectorVisitRecord]:
            found = self._ledger.detector_visits(instrument=visits[0].instrument, group=visits[0].groupId)
            return [record for record in found if record.outcome and record.visit.key in keys]

        wait_for(lambda: len(find()) == len(keys), every)
        return find()

    def n_finished(self) -> int:
        """Return how many visits are finished."""
        return sum(count for outcome, count in self._ledger.counts().items() if outcome != "queued")

    def all(self) -> list[DetectorVisitRecord]:
        return self._ledger.detector_visits()


def report(name: str, seconds: Sequence[float], goal: float | None = None, what: str = "p99") -> None:
    """Print median, tail and goal."""
    values = np.array(seconds)
    aim = "" if goal is None else f"   goal for {what} {goal:g} s"
    print(
        f"{name:<52} {len(values):>5} times: median {np.median(values):7.3f}   "
        f"p99 {np.percentile(values, 99):7.3f}   max {values.max():7.3f} s{aim}",
        flush=True,
    )


def wait_for(condition: Callable[[], bool], every: float = 0.02, patience: float = PATIENCE) -> None:
    """Wait until something is so, looking at it now and then [s]."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not so after {patience:.0f} s")
        time.sleep(every)
