"""Passing hints on: from where they come to the engines of this worker."""

import threading
from collections.abc import Callable
from typing import Final, Self

import structlog

from prompt_processing.domain.errors import StoreError
from prompt_processing.messaging.port import HintSource

_LOG: Final = structlog.get_logger(__name__)

TIMEOUT: Final = 1.0
"""Longest wait for a hint before looking whether to stop [s]."""


class HintRelay:
    """Passes hints on in a thread of its own, while the context is open.

    Parameters
    ----------
    source
        Where hints come from.
    hint
        Called for each of them.
    """

    def __init__(self, source: HintSource, hint: Callable[[], None]) -> None:
        self._source = source
        self._hint = hint
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hints", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._source.close()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                if self._source.wait(TIMEOUT):
                    self._hint()
            except StoreError as error:
                # Without hints a worker looks by itself.
                _LOG.warning("no hints", error=str(error))
                self._stop.wait(TIMEOUT)
