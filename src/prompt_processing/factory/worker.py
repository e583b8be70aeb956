"""What is plugged into what in a worker: builds it from the settings of a repository."""

import os
import socket
import uuid
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path

from lsst.daf.butler import Butler

from prompt_processing.apdb.sql import SqlApdb
from prompt_processing.arrivals.note import note_arrival
from prompt_processing.arrivals.pointers import Arrivals
from prompt_processing.config import Settings
from prompt_processing.delivery.archive import AlertArchive
from prompt_processing.delivery.decisions import DecisionStore
from prompt_processing.delivery.metrics import FolderMetrics
from prompt_processing.delivery.products import ButlerProducts
from prompt_processing.domain.clock import Clock, NightClock, WallClock
from prompt_processing.factory.opening import open_overrides, open_publisher, open_selection
from prompt_processing.ledger.sql import SqlLedger
from prompt_processing.messaging.port import HintSource, Publisher, VisitQueue
from prompt_processing.messaging.sql import SqlQueue
from prompt_processing.preload.preloader import Preloader
from prompt_processing.repository.central import open_central
from prompt_processing.runtime.fork_server import preload
from prompt_processing.storage import database, object_store
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
        self.incoming = object_store.root(self.settings.repository.incoming)
        self.work = Path(self.settings.repository.work)

    @cached_property
    def central(self) -> Butler:
        """Central Butler."""
        return open_central(self._repo)

    @cached_property
    def ledger(self) -> SqlLedger:
        """Ledger."""
        return SqlLedger(database.engine(self.settings.repository.ledger_url))

    @cached_property
    def decisions(self) -> DecisionStore:
        """Decisions."""
        return DecisionStore(object_store.root(self.settings.repository.decisions))

    @cached_property
    def metrics(self) -> FolderMetrics:
        """Metrics."""
        return FolderMetrics(object_store.root(self.settings.repository.metrics))

    @cached_property
    def arrivals(self) -> Arrivals:
        """Arrival pointers of the landing store."""
        return Arrivals(self.incoming, object_store.root(self.settings.repository.arrivals), self._clock)

    @cached_property
    def publisher(self) -> Publisher:
        """Where visit messages are sent."""
        return open_publisher(self.settings)

    @cached_property
    def queue(self) -> VisitQueue:
        """Where visit messages come from."""
        settings = self.settings
        if settings.pubsub.subscription:
            from prompt_processing.messaging.pubsub import PubSubQueue  # noqa: PLC0415 (not on a laptop)

            return PubSubQueue(settings.pubsub.subscription, hidden=settings.pubsub.lease_s)
        # Hidden as long as a claim holds: whoever gets the message of a dead worker can claim its visit.
        return SqlQueue(database.engine(settings.repository.queue_url), hidden=settings.worker.lease_s)

    def processor(self, hints: HintSource) -> VisitProcessor:
        """Return what takes a detector-visit through its steps.

        Parameters
        ----------
        hints
            Tells that images may have come.
        """
        settings, places = self.settings, self.settings.repository
        self.work.mkdir(parents=True, exist_ok=True)
        apdb = SqlApdb(places.apdb_url, months=settings.worker.history_months)
        preloader = Preloader(
            central=self.central,
            apdb=apdb,
            cache_bytes=settings.worker.cache_mb * 1_000_000,
            selection=open_selection(self._repo),
            overrides=open_overrides(self._repo),
            padding=settings.worker.padding_arcsec,
        )
        effects = list_effects(
            apdb=apdb,
            alerts=AlertArchive(object_store.root(places.alerts)),
            metrics=self.metrics,
            products=ButlerProducts(self.central, self.work),
        )
        waiter = ImageWaiter(
            arrivals=self.arrivals,
            note=self.note_arrival,
            hints=hints,
            ledger=self.ledger,
            clock=self._clock,
            settings=settings.worker,
        )
        return VisitProcessor(
            pixels=ButlerPixels(preloader, self.incoming, self.work, settings.worker),
            waiter=waiter,
            ledger=self.ledger,
            decisions=self.decisions,
            apdb=apdb,
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
            queue=self.queue,
            slots=[self.slot(f"{owner}/{number}", set_up_logging) for number in range(engines)],
            sweep=lambda: sweep(self.ledger, self.publisher, settings.sweep_interval_s),
            settings=settings,
        )

    def slot(self, owner: str, set_up_logging: Callable[[], None]) -> Slot:
        """Return a worker with an engine of its own; see `supervisor`."""
        open_selection(self._repo)  # a mistake in the rules is told now, not at the first visit
        preload("prompt_processing.factory.engine_imports")
        settings = self.settings.worker
        build = partial(engine_runner, self._repo, set_up_logging)
        engine = Engine(build, ledger=self.ledger, clock=self._clock, settings=settings)
        worker = Worker(
            ledger=self.ledger,
            runner=engine,
            owner=owner,
            settings=settings,
            reporter=Reporter(self.metrics, self.ledger, self._clock),
            instruments=self.settings.instruments.served,
        )
        return Slot(worker, engine)

    def note_arrival(self, key: str) -> None:
        """Note a raw of the landing store; see `prompt_processing.arrivals.note.note_arrival`."""
        note_arrival(key, self.arrivals, self.ledger, self.publisher)


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
