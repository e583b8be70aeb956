"""Carrying a plan out: each action at its time, however long the one before it takes."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prompt_processing.domain.clock import Clock, utc_seconds
from prompt_processing.domain.errors import PromptError
from prompt_processing.domain.raws import RawKey
from prompt_processing.night.files import RawFile
from prompt_processing.night.landing import Landing
from prompt_processing.night.plan import Action, Lose, Publish, PutImage, PutSidecar

LONGEST_WAIT: Final = 60.0
"""Time after which the clock is looked at again, which may have been set meanwhile [s]."""


@dataclass(slots=True)
class Played:
    """What was done."""

    events: int = 0
    """Publications of events; one that is repeated counts twice."""
    messages: int = 0
    """Messages for single detectors that were in them."""
    images: int = 0
    """Images that are new in the landing store."""
    there: int = 0
    """Images that were there already."""
    lost: int = 0
    """Images that were not to appear."""
    failed: int = 0
    """Actions that could not be carried out."""
    behind: float = 0.0
    """Longest time from when an action was due until it was done [s]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Who is told what happens; nobody is called by two threads at once."""

    progress: Callable[[str, int, int], None]
    """Called with what is done, and how many actions of how many are over."""
    fault: Callable[[str], None]
    """Called with each fault when it happens."""
    error: Callable[[str], None]
    """Called with what could not be done."""


class NightCamera:
    """Plays a night as it comes from a telescope.

    Events are published one after the other; raws are put into the landing store several at a time, but what
    belongs to one raw in its order.

    Parameters
    ----------
    folder
        ``NIGHT/raw``.
    landing
        Landing store.
    announce
        Makes events known.
    clock
        Clock of the night.
    report
        Who is told what happens.
    threads
        How many raws are uploaded at the same time.
    wait
        Waits for some time [s].
    """

    def __init__(
        self,
        *,
        folder: Path,
        landing: Landing,
        announce: Callable[[Publish], object],
        clock: Clock,
        report: Report,
        threads: int,
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        self._folder = folder
        self._landing = landing
        self._announce = announce
        self._clock = clock
        self._report = report
        self._threads = threads
        self._wait = wait
        self._lock = threading.Lock()

    def play(self, actions: Sequence[Action]) -> Played:
        """Carry out actions, each when the clock shows its time; those of the past at once.

        What fails is reported, and the others go on.

        Parameters
        ----------
        actions
            A plan, in the order of time.

        Returns
        -------
        played
            What was done.
        """
        self._played, self._n_over, self._n_all = Played(), 0, len(actions)
        scheduler = ThreadPoolExecutor(1, thread_name_prefix="scheduler")
        uploads = ThreadPoolExecutor(self._threads, thread_name_prefix="upload")
        started: list[Future[None]] = []
        latest: dict[RawKey, Future[None]] = {}
        try:
            for action in actions:
                while (left := action.at - utc_seconds(self._clock.now())) > 0:
                    self._wait(min(left, LONGEST_WAIT))
                if isinstance(action, Publish):
                    started.append(scheduler.submit(self._do, action, None))
                else:
                    before = latest.get(action.raw)
                    latest[action.raw] = uploads.submit(self._do, action, before)
                    started.append(latest[action.raw])
            for future in started:
                future.result()
        finally:
            for pool in (scheduler, uploads):
                pool.shutdown(cancel_futures=True)
        return self._played

    def _do(self, action: Action, before: Future[None] | None) -> None:
        """Carry out an action after another one, and note what became of it."""
        if before is not None:
            before.exception()  # a thread has it already: it was submitted earlier
        new, failure = False, None
        try:
            new = self._carry_out(action)
        except PromptError as error:
            failure = error
        behind = utc_seconds(self._clock.now()) - action.at
        with self._lock:
            self._played.behind = max(self._played.behind, behind)
            if failure is None:
                self._note(action, new=new)
            else:
                self._played.failed += 1
                self._report.error(str(failure))
            self._n_over += 1
            self._report.progress("play", self._n_over, self._n_all)

    def _carry_out(self, action: Action) -> bool:
        """Do it, and tell whether it has made something new."""
        match action:
            case Publish():
                self._announce(action)
                return True
            case PutSidecar():
                return self._landing.put_sidecar(self._file(action.raw))
            case PutImage():
                return self._landing.put_image(self._file(action.raw), action.keep)
            case Lose():
                return False

    def _file(self, raw: RawKey) -> RawFile:
        return RawFile(raw, self._folder / str(raw))

    def _note(self, action: Action, *, new: bool) -> None:
        match action:
            case Publish():
                self._played.events += 1
                self._played.messages += len(action.bodies)
                self._note_faults(action, f"event of group {action.group}")
            case PutImage() if new:
                self._played.images += 1
                self._note_faults(action, str(action.raw))
            case PutImage():
                self._played.there += 1
                self._note_faults(action, f"{action.raw} (there already)")
            case Lose():
                self._played.lost += 1
                self._report.fault(f"lost: {action.raw}")
            case PutSidecar():
                pass

    def _note_faults(self, action: Publish | PutImage, what: str) -> None:
        if action.faults:
            self._report.fault(f"{', '.join(action.faults)}: {what}")
