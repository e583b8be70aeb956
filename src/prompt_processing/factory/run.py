"""What drives a worker: a queue without an end, or a night that is played."""

import fcntl
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from astropy.time import Time

from prompt_processing.arrivals.hints import HintRelay
from prompt_processing.arrivals.watch import ArrivalWatcher
from prompt_processing.config import Settings
from prompt_processing.domain.errors import ConfigError, RepositoryError, StoreError
from prompt_processing.factory.worker import Factory, night_clock, unique_owner
from prompt_processing.instruments.detector_map import DetectorMap
from prompt_processing.night.at_speed import LEAD, AtSpeed, NotedLanding, PlayedVisit
from prompt_processing.night.clock import SkippingClock
from prompt_processing.night.folder import read_night
from prompt_processing.night.landing import Landing
from prompt_processing.night.plan import Publish, Timing, plan
from prompt_processing.night.play import NightPlayer, Report


def run_worker(
    repo: Path,
    *,
    engines: int | None,
    stop: threading.Event,
    set_up_logging: Callable[[], None],
    on_ready: Callable[[], None],
) -> None:
    """Work on the messages in the queue of a repository.

    Parameters
    ----------
    repo
        Folder of the repository.
    engines
        How many detector-visits are worked on at the same time; the setting if it is `None`.
    stop
        Ends the work when it is set.
    set_up_logging
        Sets up logging inside an engine.
    on_ready
        Called when the work begins.

    Raises
    ------
    RepositoryError
        If there is no repository.
    """
    factory = Factory(repo, night_clock(Settings.load(repo)))
    engines = engines or factory.settings.worker.engines
    supervisor = factory.supervisor(unique_owner(), engines, set_up_logging)
    with supervisor, _arrival_hints(factory, supervisor.hint):
        on_ready()
        # A signal that another thread was given wakes nobody: Python handles it when this thread goes on.
        while not stop.wait(1.0):
            pass


def _arrival_hints(factory: Factory, hint: Callable[[], None]) -> AbstractContextManager[object]:
    """Return a context in which hints of arrivals are given, as far as this worker gets any."""
    if factory.stores.incoming.isLocal:
        return ArrivalWatcher(
            incoming=Path(factory.stores.incoming.ospath),
            arrivals=factory.stores.arrivals,
            note=factory.note_arrival,
            hint=hint,
            listing_interval=factory.settings.worker.listing_interval_s,
        )
    hints = factory.stores.hints
    return nullcontext() if hints is None else HintRelay(hints, hint)


def play_night(
    repo: Path,
    night: Path,
    *,
    set_up_logging: Callable[[], None],
    progress: Callable[[str, int, int], None],
    on_visit: Callable[[PlayedVisit], None],
    on_error: Callable[[str], None],
) -> None:
    """Play a night into a repository, with a worker of its own.

    Parameters
    ----------
    repo
        Folder of the repository.
    night
        Folder of the night.
    set_up_logging
        Sets up logging inside an engine.
    progress
        Called with what is done, how many detector-visits are over, and of how many.
    on_visit
        Called for each detector-visit when it is over.
    on_error
        Called with what is wrong with an event.

    Raises
    ------
    RepositoryError
        If there is no repository, or no night, or nothing in it can be played.
    StoreError
        If an event could not be sent, or a raw not be copied; the others were played.
    """
    actions = plan(
        read_night(night, on_error),
        timing=Timing(lead=-math.inf, longest_wait=LEAD, jitter=0.0),
        faults={},
        seed=0,
        active=DetectorMap(Settings.load(repo).instruments).active(),
        on_error=on_error,
    )
    if not actions:
        raise RepositoryError(f"{night}: there is nothing to play")
    total = sum(len(action.bodies) for action in actions if isinstance(action, Publish))
    clock = SkippingClock(Time(actions[0].at, format="unix", scale="utc"))
    factory = Factory(repo, clock)
    if not factory.stores.incoming.isLocal:
        raise ConfigError(
            f"{factory.stores.incoming}: a night is played into a folder; see prompt camera play"
        )
    done = 0

    def finished(visit: PlayedVisit) -> None:
        nonlocal done
        done += 1
        on_visit(visit)
        progress("visits", done, total)

    with _only_player(factory.work):
        # Always the same name: what a player that was killed has claimed is this one's to finish.
        supervisor = factory.supervisor("player", factory.settings.worker.engines, set_up_logging)
        pace = AtSpeed(
            clock=clock,
            publisher=factory.stores.publisher,
            ledger=factory.stores.ledger,
            decisions=factory.stores.decisions,
            on_visit=finished,
        )
        supervisor.on_handled = pace.on_handled
        errors: list[str] = []
        player = NightPlayer(
            folder=night / "raw",
            landing=NotedLanding(Landing(factory.stores.incoming), factory.note_arrival, supervisor.hint),
            announce=pace.announce,
            pace=pace,
            report=Report(progress=lambda *_: None, fault=errors.append, error=errors.append),
            threads=1,
        )
        progress("visits", 0, total)
        with supervisor:
            player.play(actions)
            pace.finish()
    if errors:
        raise StoreError(f"{len(errors)} events or raws could not be played; the first: {errors[0]}")


@contextmanager
def _only_player(work: Path) -> Iterator[None]:
    """Make sure that no other player plays into the same repository."""
    with (work / "player.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RepositoryError(f"{work}: another night is being played into this repository") from error
        yield
