"""The arrivals service of one machine: notes raws as they appear in the landing folder, and gives hints."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

import structlog
from watchfiles import watch

from prompt_processing.arrivals.pointers import Arrivals
from prompt_processing.domain.errors import PromptError, RawError
from prompt_processing.domain.raws import parse_raw_key

_LOG: Final = structlog.get_logger(__name__)

STEP: Final = 10
"""Time without a change after which changes are told [ms]."""
DEBOUNCE: Final = 50
"""Longest time for which changes are gathered before they are told [ms]."""


class ArrivalWatcher:
    """Notes raws in a thread of its own, while the context is open.

    Changes of the folder are told by the operating system. A listing at the start and one in each interval
    find what that has missed.

    Parameters
    ----------
    incoming
        Landing store, a folder.
    arrivals
        Tells which raws are new.
    note
        Notes a raw, given its key.
    hint
        Called after each raw that was noted.
    listing_interval
        Time between two listings [s].
    """

    def __init__(
        self,
        *,
        incoming: Path,
        arrivals: Arrivals,
        note: Callable[[str], None],
        hint: Callable[[], None],
        listing_interval: float,
    ) -> None:
        self._incoming = incoming.resolve()
        self._arrivals = arrivals
        self._note = note
        self._hint = hint
        self._listing_interval = listing_interval
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=target, name=target.__name__.strip("_"), daemon=True)
            for target in (self._watch, self._list)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _watch(self) -> None:
        changes = watch(
            self._incoming, step=STEP, debounce=DEBOUNCE, stop_event=self._stop, raise_interrupt=False
        )
        for changed in changes:
            for path in sorted(Path(path) for _, path in changed):
                # What is put into a new folder at once comes before its changes are told.
                for file in sorted(path.rglob("*")) if path.is_dir() else (path,):
                    self._look_at(file.relative_to(self._incoming).as_posix())

    def _list(self) -> None:
        while True:
            try:
                keys = self._arrivals.list_new()
            except PromptError as error:
                _LOG.warning("landing store not listed", error=str(error))
                keys = []
            for key in keys:
                self._look_at(key)
            if self._stop.wait(self._listing_interval):
                return

    def _look_at(self, key: str) -> None:
        """Note a raw; whatever else appears in the folder is nobody's business."""
        if parse_raw_key(key) is None or not (self._incoming / key).exists():
            return
        try:
            self._note(key)
        except RawError as error:
            _LOG.error("raw cannot be used", key=key, error=str(error))
        except PromptError as error:
            _LOG.warning("raw not noted, the next listing tries again", key=key, error=str(error))
        else:
            self._hint()
