"""A worker on a real repository whose engines kill or stop themselves where a plan says so.

Run as a program: ``fault_worker.py REPO PLAN OWNER ENGINES ACTION POINTS``. The plan is a folder: an engine
acts at a point of a visit only if it is the first to leave its mark there.
"""

import os
import signal
import sys
import threading
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from sqlalchemy import event

from prompt_processing.cli.logs import configure
from prompt_processing.config import Settings
from prompt_processing.delivery.archive import AlertArchive
from prompt_processing.domain.clock import WallClock
from prompt_processing.domain.errors import PromptError
from prompt_processing.factory.worker import Factory
from prompt_processing.runtime.fork_server import preload
from prompt_processing.worker import supervisor
from prompt_processing.worker.engine import Engine
from prompt_processing.worker.supervisor import Slot, Supervisor
from prompt_processing.worker.sweep import sweep
from prompt_processing.worker.worker import Worker

STEPS = {
    "preload": ("in load",),
    "pixels": ("in ingest", "in subtractImages"),
    "decision": ("before decisions.store", "after decisions.store"),
    "apdb": ("before apdb.store", "in the APDB's transaction", "after apdb.store"),
    "alerts": ("before alerts.send", "between two alerts", "after alerts.send"),
    "metrics": ("before metrics.send", "after metrics.send"),
    "products": ("before products.store", "in the Butler's transaction", "after products.store"),
}
"""Where an engine may be killed in each step; a visit passes all of these points, in this order."""
EFFECTS = ("before apdb.store", "before products.store")
"""Some points between the check of a claim and what it is checked for."""

PLANS = {"steps": tuple(chain(*STEPS.values())), "effects": EFFECTS, "none": ()}


class Plan:
    """Does something to this process at each point of each visit, once."""

    def __init__(self, folder: Path, action: int, points: tuple[str, ...]) -> None:
        self._folder, self._action, self._points = folder, action, points
        self.group = ""
        self.inside = ""
        """The call that is going on."""

    def point(self, name: str) -> None:
        if name in self._points and self.mark(name):
            os.kill(os.getpid(), self._action)

    def mark(self, name: str, text: str = "") -> bool:
        """Leave a mark; tell whether it is the first of its kind."""
        try:
            with (self._folder / f"{self.group} {name}").open("x") as file:
                file.write(text)
        except FileExistsError:
            return False
        return True


class Marked:
    """A store with a point before and after each call of one method."""

    def __init__(self, store: Any, name: str, method: str, plan: Plan) -> None:
        self._store, self._name, self._method, self._plan = store, name, method, plan

    def __getattr__(self, method: str) -> Any:
        call = getattr(self._store, method)
        if method != self._method:
            return call

        def marked(*args: Any) -> Any:
            self._plan.point(f"before {self._name}.{method}")
            self._plan.inside = f"{self._name}.{method}"
            result = call(*args)
            self._plan.inside = ""
            self._plan.point(f"after {self._name}.{method}")
            return result

        return marked


class OneByOne:
    """Sends alerts one at a time."""

    def __init__(self, archive: AlertArchive, plan: Plan) -> None:
        self._archive, self._plan = archive, plan

    def send(self, packets: Any) -> None:
        for packet in packets:
            self._archive.send([packet])
            self._plan.point("between two alerts")


class Runner:
    """The real process with points in it."""

    def __init__(self, process: Any, plan: Plan) -> None:
        self._process, self._plan = process, plan

    def run(self, visit: Any, claim: Any, watch: Any) -> Any:
        self._plan.group = visit.groupId
        stage = watch.stage

        def marked(name: str) -> Any:
            self._plan.point(f"in {name}")
            return stage(name)

        watch.stage = marked
        try:
            return self._process.run(visit, claim, watch)
        except PromptError as error:
            self._plan.mark(f"ended with {type(error).__name__}", str(error))
            raise


def build(repo: Path, folder: Path, action: int, points: tuple[str, ...], hints: Any, clock: Any) -> Runner:
    """Build what works inside an engine."""
    configure(["ERROR"])
    factory = Factory(repo, clock)
    plan = Plan(folder, action, points)
    stores: Any = factory.stores
    central = stores.writeable_central._registry._db._engine
    _before_commit(stores.apdb._engine, "apdb.store", "in the APDB's transaction", plan)
    _before_commit(central, "products.store", "in the Butler's transaction", plan)
    stores.decisions = Marked(stores.decisions, "decisions", "store", plan)
    stores.apdb = Marked(stores.apdb, "apdb", "store", plan)
    stores.archive = Marked(OneByOne(stores.archive, plan), "alerts", "send", plan)
    stores.metrics = Marked(stores.metrics, "metrics", "send", plan)
    stores.products = Marked(stores.products, "products", "store", plan)
    return Runner(factory.processor(hints), plan)


def _before_commit(engine: Any, call: str, name: str, plan: Plan) -> None:
    def act(_: Any) -> None:
        if plan.inside == call:
            plan.point(name)

    event.listen(engine, "commit", act)


def main(repo: Path, folder: Path, owner: str, engines: int, action: int, points: tuple[str, ...]) -> None:
    """Work until told to stop."""
    configure(["ERROR"])
    preload("prompt_processing.factory.engine_imports")
    supervisor.LONGEST_DELAY = 0.1  # type: ignore[misc]
    factory, settings = Factory(repo, WallClock()), Settings.load(repo).worker
    make = partial(build, repo, folder, action, points)
    slots = []
    for number in range(engines):
        engine = Engine(make, ledger=factory.stores.ledger, clock=WallClock(), settings=settings)
        name = f"{owner}/{number}"
        slots.append(
            Slot(Worker(ledger=factory.stores.ledger, runner=engine, owner=name, settings=settings), engine)
        )
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with Supervisor(
        queue=factory.stores.queue,
        slots=slots,
        sweep=lambda: sweep(factory.stores.ledger, factory.stores.queue, settings.sweep_interval_s),
        settings=settings,
    ):
        sys.stdout.write(" ".join(str(slot.engine.pid) for slot in slots) + "\n")
        sys.stdout.flush()
        while not stop.wait(1.0):
            pass


if __name__ == "__main__":
    where, plans, named, count, what, at = sys.argv[1:]
    main(Path(where), Path(plans), named, int(count), int(what), PLANS[at])
