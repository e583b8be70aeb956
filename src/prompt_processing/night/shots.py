"""The raws of a night, and when each appears in the landing store."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
from astropy.time import Time, TimeDelta

from prompt_processing.domain.clock import from_mjd_tai
from prompt_processing.domain.errors import HeaderError, PromptError
from prompt_processing.domain.identity import raw_group
from prompt_processing.domain.raws import RawKey, parse_raw_key
from prompt_processing.instruments.cameras import CAMERAS
from prompt_processing.instruments.info import info_from_observation
from prompt_processing.instruments.observation import observation_info, read_sidecar, with_group
from prompt_processing.instruments.raw import read_raw_header

_LOG: Final = structlog.get_logger(__name__)

UNKNOWN_READOUT: Final = 2.0
"""Read-out of a camera that is not known [s]."""


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
        Time of a raw that has neither a readable header nor a prediction.
    """
    keys = (parse_raw_key(path.relative_to(folder).as_posix()) for path in folder.rglob("*"))
    shots = [_shot(folder, raw, predicted, start) for raw in keys if raw is not None]
    return sorted(shots, key=lambda shot: (shot.at, str(shot.raw)))


def _shot(folder: Path, raw: RawKey, predicted: Mapping[str, Time], start: Time) -> Shot:
    path = folder / str(raw)
    camera = CAMERAS.get(raw.instrument)
    readout = TimeDelta(camera.readout if camera else UNKNOWN_READOUT, format="sec")
    try:
        header = with_group(read_raw_header(path), path)
        info = info_from_observation(observation_info(header, str(raw)))
    except PromptError as error:
        # A damaged raw is played as well: it is the worker's to say what is wrong with it.
        _LOG.warning("raw without a readable header", key=str(raw), error=str(error))
        group = None
        with suppress(HeaderError):
            group = raw_group(None, read_sidecar(path))
        close = predicted.get(group or "", start)
        return Shot(raw, close + readout, None, close, group)
    opened, close = from_mjd_tai(info["mjd_begin_tai"]), from_mjd_tai(info["mjd_end_tai"])
    return Shot(raw, close + readout, opened, close, info["group"])
