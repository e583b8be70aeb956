"""What is plugged into what in a worker: builds it from the settings of a repository."""

import os
import socket
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path

from prompt_processing.arrivals.note import note_arrival
from prompt_processing.config import Settings
from prompt_processing.domain.clock import Clock, NightClock, WallClock
from prompt_processing.factory.stores import Stores
from prompt_processing.messaging.port import HintSource
from prompt_processing.preload.preloader import Preloader
from prompt_processing.runtime.fork_server import preload
from prompt_processing.worker.effects import list_effects
from prompt_processing.worker.engine import Engine
from prompt_processing.worker.pixels import ButlerPixels
from prompt_processing.worker.process import VisitProcessor
from prompt_processing.worker.report import Reporter
from prompt_processing.worker.supervisor import Slot, Supervisor
from prompt_processing.worker.sweep import sweep
from prompt_processing.worker.wait import ImageWaiter
from prompt_processing.worker.worker import Runner, Worker


class Factory:
    """Builds the parts of one repository; each part is made once.

    Parameters
    ----------
    repo
        Folder of the repository.
    clock
        Clock of the night.

    Raises
    ------
    ConfigError
        If a setting is wrong.
    RepositoryError
        If there is no repository.
    """

    def __init__(self, repo: Path, clock: Clock) -> None:
        self.settings = Settings.load(repo)
        self._repo = repo
        self._clock = clock
        self.stores = Stores(repo, self.settings, clock)
        self.work = Path(self.settings.repository.work)

    def processor(self, hints: HintSource) -> VisitProcessor:
        """Return what takes a detector-visit through its steps.

        Parameters
        ----------
        hints
            Tells that images may have come.
        """
        settings, opened = self.settings, self.stores
        self.work.mkdir(parents=True, exist_ok=True)
        preloader = Preloader(
            central=opened.central,
            apdb=opened.apdb,
            cache_bytes=settings.worker.cache_mb * 1_000_000,
            selection=opened.selection,
            overrides=opened.overrides,
            padding=settings.worker.padding_arcsec,
        )
        effects = list_effects(
            apdb=opened.apdb,
            alerts=opened.alerts,
            metrics=opened.metrics,
            products=opened.products,
        )
        waiter = ImageWaiter(
            arrivals=self.stores.arrivals,
            note=self.note_arrival,
            hints=hints,
            ledger=self.stores.ledger,
            clock=self._clock,
            settings=settings.worker,
        )
        return VisitProcessor(
            pixels=ButlerPixels(preloader, self.stores.incoming, self.work, settings.worker),
            waiter=waiter,
            ledger=opened.ledger,
            decisions=opened.decisions,
            apdb=opened.apdb,
            effects=effects,
            clock=self._clock,
            settings=settings.worker,
        )

    def supervisor(self, owner: str, engines: int, set_up_logging: Callable[[], None]) -> Supervisor:
        """Return a supervisor of some engines on the queue of the repository.

        Parameters
        ----------
        owner
            Name of the worker, unique among those that run now.
        engines
            How many detector-visits are worked on at the same time.
        set_up_logging
            Sets up logging inside an engine.
        """
        settings = self.settings.worker
        return Supervisor(
            queue=self.stores.queue,
            slots=[self.slot(f"{owner}/{number}", set_up_logging) for number in range(engines)],
            sweep=lambda: sweep(self.stores.ledger, self.stores.publisher, settings.sweep_interval_s),
            settings=settings,
        )

    def slot(self, owner: str, set_up_logging: Callable[[], None]) -> Slot:
        """Return a worker with an engine of its own; see `supervisor`."""
        _ = self.stores.selection  # a mistake in the rules is told now, not at the first visit
        preload("prompt_processing.factory.engine_imports")
        settings = self.settings.worker
        build = partial(engine_runner, self._repo, set_up_logging)
        engine = Engine(build, ledger=self.stores.ledger, clock=self._clock, settings=settings)
        worker = Worker(
            ledger=self.stores.ledger,
            runner=engine,
            owner=owner,
            settings=settings,
            reporter=Reporter(self.stores.metrics, self.stores.ledger, self._clock),
            instruments=self.settings.instruments.served,
        )
        return Slot(worker, engine)

    def note_arrival(self, key: str) -> None:
        """Note a raw of the landing store; see `prompt_processing.arrivals.note.note_arrival`."""
        note_arrival(key, self.stores.arrivals, self.stores.ledger, self.stores.publisher)


def engine_runner(repo: Path, set_up_logging: Callable[[], None], hints: HintSource, clock: Clock) -> Runner:
    """Build what does the work inside an engine."""
    set_up_logging()
    return Factory(repo, clock).processor(hints)


def night_clock(settings: Settings) -> Clock:
    """Return the clock of the night that services work on."""
    offset = settings.worker.clock_offset_s
    return NightClock(offset) if offset else WallClock()


def unique_owner() -> str:
    """Return a name of this process for its claims, which no other one has."""
    return f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex[:8]}"
