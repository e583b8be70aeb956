"""Keys of raw images in the landing store, and the pointers that say which raw belongs to which visit.

A raw of the LSST cameras has the key ``INSTRUMENT/DAY_OBS/OBS_ID/OBS_ID_Rxx_Sxx.fits`` (also ``.fits.fz``),
and may have a sidecar ``OBS_ID_Rxx_Sxx.json`` beside it.
"""

import re
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from prompt_processing.domain.errors import RawError

EXTENSIONS: Final = (".fits", ".fits.fz", ".fit", ".fz")
"""What the key of a raw ends with."""
_KEY: Final = re.compile(
    r"(?P<instrument>[A-Za-z][A-Za-z0-9-]*)/(?P<day_obs>[0-9]{8})/(?P<obs_id>[A-Za-z0-9_-]+)/"
    r"(?P=obs_id)_(?P<raft>R[0-9X]{2})_(?P<sensor>S[A-Z0-9]{2})"
    rf"(?P<extension>{'|'.join(map(re.escape, EXTENSIONS))})"
)
SIDECAR_BYTES: Final = 64 * 1024
"""Size above which a sidecar is not read: it names a group and little else."""
MAX_GROUP: Final = 256
"""Longest group name [characters]."""
MAX_ESCAPED_GROUP: Final = 255
"""Longest escaped group name: that of a folder [bytes]."""
_ORDINARY: Final = re.compile(rb"[A-Za-z0-9.-]")


@dataclass(frozen=True, slots=True)
class RawKey:
    """Key of one raw image, relative to the root of the landing store."""

    instrument: str
    day_obs: int
    """Observing day as YYYYMMDD."""
    obs_id: str
    """Name of the exposure, for example ``AT_O_20240624_000106``."""
    raft: str
    """``R`` and two characters."""
    sensor: str
    """``S`` and two characters."""
    extension: str = ".fits"
    """``.fits``, ``.fits.fz``, ``.fit`` or ``.fz``."""

    @property
    def detector_name(self) -> str:
        """Name of the detector in keys, for example ``R00_S00``."""
        return f"{self.raft}_{self.sensor}"

    @property
    def sidecar(self) -> str:
        """Key of the sidecar."""
        return f"{self._stem}.json"

    def __str__(self) -> str:
        return f"{self._stem}{self.extension}"

    @property
    def _stem(self) -> str:
        folder = f"{self.instrument}/{self.day_obs}/{self.obs_id}"
        return f"{folder}/{self.obs_id}_{self.detector_name}"


def parse_raw_key(key: str) -> RawKey | None:
    """Read a key of the landing store.

    Parameters
    ----------
    key
        Key relative to the root of the store.

    Returns
    -------
    raw
        `None` if the object is no raw: a sidecar, a file still being copied, anything else.
    """
    match = _KEY.fullmatch(key)
    if match is None:
        return None
    return RawKey(
        instrument=match["instrument"],
        day_obs=int(match["day_obs"]),
        obs_id=match["obs_id"],
        raft=match["raft"],
        sensor=match["sensor"],
        extension=match["extension"],
    )


def raws_of_sidecar(key: str) -> list[str]:
    """Return the keys that the raw of a sidecar may have; none if the key is not that of a sidecar."""
    stem = key.removesuffix(".json")
    if stem == key:
        return []
    return [raw for extension in EXTENSIONS if parse_raw_key(raw := stem + extension) is not None]


def escape_group(group: str) -> str:
    """Return a group name in a form that is safe in a path.

    Each byte of its UTF-8 form outside ``[A-Za-z0-9.-]`` becomes ``_XX`` (hexadecimal); so does the first
    dot of a name that is all dots, which a file system would take for a folder above.

    Raises
    ------
    RawError
        If the name is empty, or no text.
    """
    if not group:
        raise RawError("a group name must not be empty")
    try:
        data = group.encode()
    except UnicodeEncodeError as error:
        raise RawError(f"the group name {group!r} is no text: {error}") from error
    escaped = "".join(chr(byte) if _ORDINARY.match(bytes([byte])) else f"_{byte:02X}" for byte in data)
    return escaped if escaped.strip(".") else f"_2E{escaped[1:]}"


def check_group(group: str) -> str:
    """Return a group name, if it is one that can be kept in a database and in the key of an object.

    Raises
    ------
    RawError
        If it cannot.
    """
    shown = group if len(group) <= 40 else f"{group[:37]}..."
    if len(group) > MAX_GROUP or len(escape_group(group)) > MAX_ESCAPED_GROUP:
        raise RawError(f"the group name {shown!r} is too long")
    if "\0" in group:
        raise RawError(f"the group name {shown!r} has a character that no database keeps")
    return group


def unescape_group(escaped: str) -> str:
    """Return the group name that `escape_group` wrote.

    Raises
    ------
    RawError
        If the text is not of that form.
    """
    if not re.fullmatch(r"(?:[A-Za-z0-9.-]|_[0-9A-F]{2})+", escaped):
        raise RawError(f"{escaped!r} is not an escaped group name")
    try:
        return unquote(escaped.replace("_", "%"), errors="strict")
    except UnicodeDecodeError as error:
        raise RawError(f"{escaped!r} is not an escaped group name: {error}") from error


def visit_path(instrument: str, day_obs: int, group: str, detector: int) -> str:
    """Return the part of a key that names a visit on a detector: ``instrument/day_obs/group/detector``.

    Parameters
    ----------
    instrument
        Short name of the instrument.
    day_obs
        Observing day as YYYYMMDD.
    group
        Group name, not escaped.
    detector
        Number of the detector.
    """
    return f"{instrument}/{day_obs}/{escape_group(group)}/{detector}"


def first_visit_path(instrument: str, group: str, detector: int) -> str:
    """Return what `visit_path` was before keys named the day: ``instrument/group/detector``.

    Parameters
    ----------
    instrument
        Short name of the instrument.
    group
        Group name, not escaped.
    detector
        Number of the detector.
    """
    return f"{instrument}/{escape_group(group)}/{detector}"


def pointer_path(instrument: str, day_obs: int, group: str, detector: int, snap: int) -> str:
    """Return the key of an arrival pointer, relative to the root of the pointers.

    Parameters
    ----------
    instrument
        Short name of the instrument.
    day_obs
        Observing day of the raw's key, YYYYMMDD.
    group
        Group name, as the event has it.
    detector
        Number of the detector.
    snap
        Number of the image within the visit, from 0.
    """
    return f"{visit_path(instrument, day_obs, group, detector)}/{snap}.json"


class ArrivalPointer(BaseModel):
    """Which raw arrived for one snap of a visit on a detector: a small object that is written once."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    key: str = Field(description="Key of the raw in the landing store")
    generation: int = Field(description="Version of that object; for a file its modification time [ns]")
    size: int = Field(ge=0, description="Size of the raw [bytes]")
    exposure_id: int = Field(ge=0, description="Number of the exposure")
    obs_id: str = Field(min_length=1, description="Name of the exposure")
    group: str = Field(min_length=1, description="Group name, not escaped")
    snap: int = Field(ge=0, description="Number of the image within the visit, from 0")
    arrived_at: str = Field(description="When the raw was seen (UTC, ISO 8601)")

    def to_json(self) -> bytes:
        """Return the content of the object."""
        return self.model_dump_json().encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes | str | dict[str, Any], where: str) -> "ArrivalPointer":
        """Read the content of the object.

        Parameters
        ----------
        data
            Its content.
        where
            Its key, for the error.

        Raises
        ------
        RawError
            If it is not an arrival pointer.
        """
        try:
            if isinstance(data, dict):
                return cls.model_validate(data)
            return cls.model_validate_json(data)
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise RawError(f"arrival pointer {where}: {problems}") from error
