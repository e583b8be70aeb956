"""Carrying a plan out: each action at its time, however long the one before it takes."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from prompt_processing.domain.clock import Clock, utc_seconds
from prompt_processing.domain.errors import PromptError
from prompt_processing.domain.raws import RawKey
from prompt_processing.night.files import LocalRaw
from prompt_processing.night.landing import WHOLE
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
    """Callbacks for progress and faults; a callback never runs in two threads at once."""

    progress: Callable[[str, int, int], None]
    """Called with what is done, and how many actions of how many are over."""
    fault: Callable[[str], None]
    """Called with each fault when it happens."""
    error: Callable[[str], None]
    """Called with what could not be done."""


class LandingStore(Protocol):
    """Where raws appear: `~prompt_processing.night.landing.Landing`, or something in front of it."""

    def put_sidecar(self, file: LocalRaw) -> bool:
        """Put the sidecar of a raw, if it has one; tell whether it is new."""
        ...

    def put_image(self, file: LocalRaw, keep: float = WHOLE) -> bool:
        """Put the image of a raw, or the first part of it; tell whether it is new."""
        ...


class Pace(Protocol):
    """Decides when the actions of a plan are due. Used by one thread, `now` by several."""

    def now(self) -> float:
        """Return the time on the clock of the night [UTC s since 1970]."""
        ...

    def may_publish(self) -> bool:
        """Return whether the next event may be published once its time has come."""
        ...

    def wait_until(self, moment: float) -> None:
        """Wait until the clock shows a moment [UTC s since 1970], or until it is worth to look again."""
        ...

    def begin(self, action: Action) -> None:
        """Take note that an action is carried out now."""
        ...


class RealTime:
    """The pace of a telescope: an action is due at its time, whatever became of those before it.

    Parameters
    ----------
    clock
        Clock of the night.
    wait
        Waits for some time [s].
    """

    def __init__(self, clock: Clock, wait: Callable[[float], object] = time.sleep) -> None:
        self._clock = clock
        self._wait = wait

    def now(self) -> float:
        """Return the time on the clock of the night [UTC s since 1970]."""
        return utc_seconds(self._clock.now())

    def may_publish(self) -> bool:
        """Return true: a telescope does not wait."""
        return True

    def wait_until(self, moment: float) -> None:
        """Wait until a moment [UTC s since 1970], but not longer than `LONGEST_WAIT`."""
        self._wait(min(max(moment - self.now(), 0.0), LONGEST_WAIT))

    def begin(self, action: Action) -> None:
        """Do nothing: nothing depends on what was done."""


class NightPlayer:
    """Plays a night: publishes its events, and lets its raws appear in the landing store.

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
    pace
        When the next action is due: `RealTime`, or `~prompt_processing.night.at_speed.AtSpeed`.
    report
        Callbacks for progress and faults.
    threads
        How many raws are uploaded at the same time.
    """

    def __init__(
        self,
        *,
        folder: Path,
        landing: LandingStore,
        announce: Callable[[Publish], object],
        pace: Pace,
        report: Report,
        threads: int,
    ) -> None:
        self._folder = folder
        self._landing = landing
        self._announce = announce
        self._pace = pace
        self._report = report
        self._threads = threads
        self._lock = threading.Lock()

    def play(self, actions: Sequence[Action]) -> Played:
        """Carry out actions, each when it is due; those of the past at once.

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
            for action in self._as_due(actions):
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

    def _as_due(self, actions: Sequence[Action]) -> Iterator[Action]:
        """Yield each action when it is due; an event that has to wait holds up events only."""
        events = deque(action for action in actions if isinstance(action, Publish))
        raws = deque(action for action in actions if not isinstance(action, Publish))
        while events or raws:
            open_queues = [queue for queue in (events if self._pace.may_publish() else (), raws) if queue]
            following = min(open_queues, key=lambda queue: queue[0].at, default=None)
            if following is None or following[0].at > self._pace.now():
                self._pace.wait_until(math.inf if following is None else following[0].at)
                continue
            action = following.popleft()
            self._pace.begin(action)
            yield action

    def _do(self, action: Action, before: Future[None] | None) -> None:
        """Carry out an action after another one, and note what became of it."""
        if before is not None:
            before.exception()  # a thread has it already: it was submitted earlier
        new, failure = False, None
        try:
            new = self._carry_out(action)
        except PromptError as error:
            failure = error
        behind = self._pace.now() - action.at
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

    def _file(self, raw: RawKey) -> LocalRaw:
        return LocalRaw(raw, self._folder / str(raw))

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
