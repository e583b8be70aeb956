"""What a raw's header tells of the observation, with the group from the header or from the sidecar."""

import json
from pathlib import Path
from typing import Any

from astro_metadata_translator import ObservationInfo
from astropy.io import fits

from prompt_processing.domain.errors import HeaderError, WrongCameraError
from prompt_processing.domain.raws import SIDECAR_BYTES
from prompt_processing.instruments.translators import TRANSLATORS


def observation_info(header: fits.Header, path: str | Path) -> ObservationInfo:
    """Translate the header of a raw.

    Parameters
    ----------
    header
        Primary header; it is not changed.
    path
        File it was read from, for messages.

    Raises
    ------
    WrongCameraError
        If ``INSTRUME`` is not that of a supported instrument.
    HeaderError
        If a card that is needed is missing or makes no sense; the message names the card and the file.
    """
    if _card(header, "INSTRUME", path) is None:
        raise HeaderError(f"{path}: card INSTRUME is missing")
    translator = next((found for found in TRANSLATORS if found.can_translate(header)), None)
    if translator is None:
        names = ", ".join(found.name for found in TRANSLATORS)
        raise WrongCameraError(f"{path}: card INSTRUME is {header['INSTRUME']!r}; known are {names}")
    try:
        return ObservationInfo(
            header.copy(), filename=str(path), translator_class=translator, pedantic=True, quiet=True
        )
    except Exception as error:
        # The library wraps whatever a translator raises; our own error is somewhere below.
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, HeaderError):
                raise HeaderError(f"{path}: {cause}") from error
            cause = cause.__cause__ or cause.__context__
        raise HeaderError(f"{path}: the header cannot be translated ({error})") from error


def with_group(header: fits.Header, path: str | Path) -> fits.Header:
    """Return a header whose ``GROUPID`` comes from the header itself or from the raw's sidecar.

    The sidecar is the file beside the raw with the same name but ``.json`` in place of ``.fits`` or
    ``.fits.fz``: ``{"GROUPID": "..."}``. It arrives before the image, so either may be the one that tells; if
    both do, they must agree.

    Parameters
    ----------
    header
        Primary header of the raw; it is not changed.
    path
        Local path of the raw.

    Raises
    ------
    HeaderError
        If the sidecar cannot be read, or it contradicts the header.
    """
    sidecar = _sidecar(Path(path))
    told = _read_group(sidecar) if sidecar.exists() else None
    header = header.copy()
    own = _card(header, "GROUPID", path)
    if told is not None and isinstance(own, str) and own.strip() not in {"", told}:
        raise HeaderError(f"{path}: card GROUPID is {own!r}, but {sidecar.name} says {told!r}")
    if told is not None:
        header["GROUPID"] = told
    return header


def _card(header: fits.Header, name: str, path: str | Path) -> Any:
    """Return the value of a card, `None` if it is missing."""
    try:
        return header.get(name)
    except fits.VerifyError as error:
        raise HeaderError(f"{path}: card {name} cannot be read: {error}") from error


def _sidecar(path: Path) -> Path:
    name = path.name
    for ending in (".fz", ".gz"):
        name = name.removesuffix(ending)
    return path.with_name(name).with_suffix(".json")


def _read_group(sidecar: Path) -> str | None:
    """Return the group that a sidecar names, or `None` if it names none."""
    try:
        if sidecar.stat().st_size > SIDECAR_BYTES:
            raise HeaderError(f"{sidecar}: is larger than {SIDECAR_BYTES} bytes")
        content: Any = json.loads(sidecar.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise HeaderError(f"{sidecar}: not a readable JSON file ({error})") from error
    group = content.get("GROUPID") if isinstance(content, dict) else content
    if group is None:
        return None
    if not isinstance(group, str) or not group.strip():
        raise HeaderError(f"{sidecar}: GROUPID is {group!r}, not a name")
    return group.strip()
