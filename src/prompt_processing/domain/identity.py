"""Which visit a raw belongs to: the one rule for all that read raws.

1. A sidecar that names a group wins over the header.
2. A sidecar that is absent, too large, not JSON, or whose ``GROUPID`` is missing, blank or no text counts
   as none.
3. Then the card ``GROUPID`` names the group; a missing, blank or undefined card counts as none.
4. The snap is ``CURINDEX`` - 1; without that card, or with a header that cannot be read, it is 0.
"""

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from prompt_processing.domain.errors import HeaderError, RawError
from prompt_processing.domain.raws import SIDECAR_BYTES, check_group

MAX_SNAPS: Final = 1000
"""Largest ``CURINDEX``."""


class RawIdentity(NamedTuple):
    """Group and snap of a raw."""

    group: str | None
    """Name of the group; `None` if neither sidecar nor header names one."""
    snap: int
    """Number of the image within the visit, from 0."""


def raw_identity(header: Mapping[str, Any] | None, sidecar: bytes | None) -> RawIdentity:
    """Return group and snap of a raw.

    Parameters
    ----------
    header
        Cards of the primary header, without those that have no value; `None` if it cannot be read.
    sidecar
        Content of the sidecar, at least its first `SIDECAR_BYTES` + 1 bytes; `None` if there is none.

    Returns
    -------
    RawIdentity
        What this module's rule gives.

    Raises
    ------
    HeaderError
        If the name of the group is too long or cannot be stored, or ``CURINDEX`` is no number from 1 to
        `MAX_SNAPS`. The message names the card, not the file.
    """
    return RawIdentity(raw_group(header, sidecar), 0 if header is None else _snap(header.get("CURINDEX")))


def raw_group(header: Mapping[str, Any] | None, sidecar: bytes | None) -> str | None:
    """Return the group of a raw that need not be one of a visit; see `raw_identity`.

    Parameters
    ----------
    header, sidecar
        As for `raw_identity`.

    Returns
    -------
    str or None
        `None` if neither sidecar nor header names a group.

    Raises
    ------
    HeaderError
        If the name is too long or cannot be stored.
    """
    group = _named(_content(sidecar)) or _named({} if header is None else header)
    try:
        return group and check_group(group)
    except RawError as error:
        raise HeaderError(str(error)) from error


def _content(sidecar: bytes | None) -> Mapping[str, Any]:
    if sidecar is None or len(sidecar) > SIDECAR_BYTES:
        return {}
    try:
        content = json.loads(sidecar)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _named(cards: Mapping[str, Any]) -> str | None:
    group = cards.get("GROUPID")
    return group.strip() or None if isinstance(group, str) else None


def _snap(index: object) -> int:
    if index is None:
        return 0
    if not isinstance(index, int) or isinstance(index, bool) or not 1 <= index <= MAX_SNAPS:
        raise HeaderError(f"card CURINDEX is {index!r}, not a number from 1 to {MAX_SNAPS}")
    return index - 1
