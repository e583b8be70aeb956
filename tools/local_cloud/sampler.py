"""Where the time of an engine goes: its main thread is looked at all the time."""

import json
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from prompt_processing.cli.logs import configure
from prompt_processing.domain.clock import Clock
from prompt_processing.domain.outcome import Outcome, Stopwatch
from prompt_processing.domain.visit import DetectorVisit
from prompt_processing.factory.worker import Factory
from prompt_processing.ledger.port import Claim
from prompt_processing.messaging.port import HintSource
from prompt_processing.worker.worker import Runner

SAMPLE = 0.003
"""Time between two looks [s]."""
_WRITE_EVERY = 10
"""Visits between two writings of what they found."""


class Sampled:
    """A runner in an engine whose main thread is looked at all the time, between visits too.

    The deterministic profiler of the standard library mixes threads since Python 3.12.

    Parameters
    ----------
    runner
        What does the work.
    file
        Where it is written in how many looks each function was at work, and in how many it or what it calls.
    warm
        After how many visits it begins.
    """

    def __init__(self, runner: Runner, file: Path, warm: int) -> None:
        self._runner, self._file, self._warm = runner, file, warm
        self._visits = -warm
        self._own: Counter[str] = Counter()
        self._within: Counter[str] = Counter()

    def run(self, visit: DetectorVisit, claim: Claim, watch: Stopwatch) -> Outcome:
        if self._visits == 0:
            sampler = threading.Thread(target=self._sample, args=(threading.get_ident(),), daemon=True)
            sampler.start()
        if self._visits > 0 and self._visits % _WRITE_EVERY == 0:
            found = {"visits": self._visits, "own": self._own.copy(), "within": self._within.copy()}
            self._file.write_text(json.dumps(found))
        self._visits += 1
        return self._runner.run(visit, claim, watch)

    def _sample(self, thread: int) -> None:
        # Otherwise the main thread is found only where it lets others run: at sockets and files.
        sys.setswitchinterval(SAMPLE / 30)
        while True:
            time.sleep(SAMPLE)
            frame: Any = sys._current_frames()[thread]
            self._own[_place(frame)] += 1
            stack = set()
            while frame is not None and frame.f_code is not Sampled.run.__code__:
                stack.add(_place(frame))
                frame = frame.f_back
            self._within.update(stack)


def _place(frame: Any) -> str:
    file = Path(frame.f_code.co_filename)
    return f"{file.parent.name}/{file.name} {frame.f_code.co_qualname}"


def sampled_runner(repo: Path, file: Path, warm: int, hints: HintSource, clock: Clock) -> Sampled:
    """Build the real process of a repository inside an engine, and look where its time goes."""
    configure(["ERROR"])
    return Sampled(Factory(repo, clock).processor(hints), file, warm)
