"""The raws of a night folder, by what they are."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prompt_processing.domain.errors import RepositoryError
from prompt_processing.domain.raws import parse_raw_key
from prompt_processing.instruments.info import info_from_observation
from prompt_processing.instruments.observation import observation_info, with_group
from prompt_processing.instruments.raw import read_raw_header


@dataclass(frozen=True, slots=True)
class DescribedRaw:
    """A raw in a folder."""

    path: Path
    info: dict[str, Any]
    """What its header tells, as in `~prompt_processing.instruments.info.info_from_observation`."""


def describe_raws(folder: Path) -> list[DescribedRaw]:
    """Return the raws of a folder in the order of their exposures.

    Parameters
    ----------
    folder
        A folder with the layout ``INSTRUMENT/DAY_OBS/OBS_ID/...``, such as ``NIGHT/calib``.

    Raises
    ------
    RepositoryError
        If there is no such folder, or no raw in it.
    HeaderError, WrongCameraError, RawError
        If a header cannot be read; the message names the file.
    """
    if not folder.is_dir():
        raise RepositoryError(f"{folder}: there is no such folder")
    paths = sorted(path for path in folder.rglob("*") if parse_raw_key(path.relative_to(folder).as_posix()))
    if not paths:
        raise RepositoryError(f"{folder}: there is no raw image below this folder")
    frames = [_read(path) for path in paths]
    return sorted(frames, key=lambda frame: (frame.info["exposure"], frame.info["detector"]))


def _read(path: Path) -> DescribedRaw:
    header = with_group(read_raw_header(path), path)
    return DescribedRaw(path, info_from_observation(observation_info(header, path)))
