"""The camera of a night that is played: raws appear in the landing store when they were read out."""

import json
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import structlog
from astropy.time import Time, TimeDelta

from prompt_processing.domain.clock import NightClock, from_mjd_tai, seconds_between
from prompt_processing.domain.errors import PromptError
from prompt_processing.domain.raws import RawKey, parse_raw_key
from prompt_processing.instruments.info import info_from_observation
from prompt_processing.instruments.observation import observation_info
from prompt_processing.instruments.raw import read_raw_header

_LOG: Final = structlog.get_logger(__name__)

READOUT: Final = TimeDelta(2.0, format="sec")
"""From shutter close until a raw is in the landing store."""


class SkippingClock:
    """The clock of a night that is played: it can be moved forward, never back.

    Parameters
    ----------
    start
        What it shows now.
    """

    def __init__(self, start: Time) -> None:
        self._clock = NightClock.starting_at(start)
        self._moved = threading.Event()

    def now(self) -> Time:
        """Return the present time of the night (UTC scale)."""
        return self._clock.now()

    def skip_to(self, moment: Time) -> None:
        """Move to a moment, if it is still to come."""
        ahead = seconds_between(self.now(), moment)
        if ahead > 0:
            self._clock = NightClock(self._clock.offset + ahead)
            self._moved.set()

    def wait_until(self, moment: Time, stop: threading.Event) -> None:
        """Return when the clock shows a moment, however it gets there, or when told to stop.

        For one thread only.
        """
        while (left := seconds_between(self.now(), moment)) > 0 and not stop.is_set():
            self._moved.wait(left)
            self._moved.clear()

    def wake(self) -> None:
        """Let whoever waits look again."""
        self._moved.set()


@dataclass(frozen=True, slots=True)
class Shot:
    """A raw of the night."""

    raw: RawKey
    at: Time
    """When it appears in the landing store."""
    open: Time | None
    """When the shutter opened, if the header tells it."""
    close: Time
    """When the shutter closed."""
    group: str | None
    """Its group, if header or sidecar tell it."""


def find_shots(folder: Path, predicted: Mapping[str, Time], start: Time) -> list[Shot]:
    """Return the raws of a night in the order in which they appear.

    Parameters
    ----------
    folder
        ``NIGHT/raw``.
    predicted
        Predicted shutter close of each group, for raws whose header cannot be read.
    start
        When a raw appears of which nothing at all is known.
    """
    keys = (parse_raw_key(path.relative_to(folder).as_posix()) for path in folder.rglob("*"))
    shots = [_shot(folder, raw, predicted, start) for raw in keys if raw is not None]
    return sorted(shots, key=lambda shot: (shot.at, str(shot.raw)))


def _shot(folder: Path, raw: RawKey, predicted: Mapping[str, Time], start: Time) -> Shot:
    group = _sidecar_group(folder / raw.sidecar)
    try:
        header = read_raw_header(folder / str(raw))
        info = info_from_observation(observation_info(header, str(raw)))
    except PromptError as error:
        # A damaged raw is played as well: it is the worker's to say what is wrong with it.
        _LOG.warning("raw without a readable header", key=str(raw), error=str(error))
        close = predicted.get(group or "", start)
        return Shot(raw, close + READOUT, None, close, group)
    opened, close = from_mjd_tai(info["mjd_begin_tai"]), from_mjd_tai(info["mjd_end_tai"])
    return Shot(raw, close + READOUT, opened, close, group or info["group"])


def _sidecar_group(sidecar: Path) -> str | None:
    try:
        content: Any = json.loads(sidecar.read_bytes())
    except (OSError, ValueError):
        return None
    return content.get("GROUPID") if isinstance(content, dict) else None


class Camera:
    """Puts the raws of a night into the landing store, in a thread of its own.

    Parameters
    ----------
    folder
        ``NIGHT/raw``.
    incoming
        Landing store.
    shots
        What appears, in order.
    clock
        Clock of the night.
    on_arrival
        Called with the key of each raw that has appeared.
    """

    def __init__(
        self,
        *,
        folder: Path,
        incoming: Path,
        shots: list[Shot],
        clock: SkippingClock,
        on_arrival: Callable[[str], None],
    ) -> None:
        self._folder = folder
        self._incoming = incoming
        self._shots = shots
        self._clock = clock
        self._on_arrival = on_arrival
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="camera", daemon=True)
        self._error: Exception | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._clock.wake()
        self._thread.join()

    def finish(self) -> None:
        """Let everything appear that is left, and wait for it.

        Raises
        ------
        OSError
            If a raw could not be copied.
        """
        if self._shots:
            self._clock.skip_to(self._shots[-1].at)
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            for shot in self._shots:
                self._clock.wait_until(shot.at, self._stop)
                if self._stop.is_set():
                    return
                if self._copy(shot.raw):
                    self._on_arrival(str(shot.raw))
        except OSError as error:
            self._error = error

    def _copy(self, raw: RawKey) -> bool:
        """Copy sidecar, then image, each under a temporary name that is no raw's; tell whether it is new."""
        target = self._incoming / str(raw)
        if target.exists():
            return False
        target.parent.mkdir(parents=True, exist_ok=True)
        for key in (raw.sidecar, str(raw)):
            source = self._folder / key
            if source.exists():
                temporary = target.with_name(f".copying-{target.name}")
                shutil.copyfile(source, temporary)
                temporary.replace(self._incoming / key)
        return True
