"""What a raw's header tells of the observation, with the group from the header or from the sidecar."""

from pathlib import Path
from typing import Any

from astro_metadata_translator import ObservationInfo
from astropy.io import fits

from prompt_processing.domain.errors import HeaderError, WrongCameraError
from prompt_processing.domain.identity import raw_group
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
    """Return a header whose ``GROUPID`` is the raw's group; see `prompt_processing.domain.identity`.

    Parameters
    ----------
    header
        Primary header of the raw; it is not changed.
    path
        Local path of the raw, beside its sidecar if it has one.

    Returns
    -------
    header
        A copy; without the card if nothing names a group.

    Raises
    ------
    HeaderError
        If the card cannot be read, or the name of the group is too long or cannot be stored.
    """
    header = header.copy()
    try:
        group = raw_group({"GROUPID": _card(header, "GROUPID", path)}, read_sidecar(path))
    except HeaderError as error:
        raise HeaderError(f"{path}: {error}") from error
    if group is None:
        header.remove("GROUPID", ignore_missing=True, remove_all=True)
    else:
        header["GROUPID"] = group
    return header


def read_sidecar(path: str | Path) -> bytes | None:
    """Return the beginning of the sidecar of a local raw, as far as its group is looked for.

    Parameters
    ----------
    path
        Local path of the raw.

    Returns
    -------
    bytes or None
        At most `SIDECAR_BYTES` + 1 bytes; `None` if there is no sidecar that can be read.
    """
    name = Path(path).name
    for ending in (".fz", ".gz"):
        name = name.removesuffix(ending)
    try:
        with Path(path).with_name(name).with_suffix(".json").open("rb") as file:
            return file.read(SIDECAR_BYTES + 1)
    except OSError:
        return None


def _card(header: fits.Header, name: str, path: str | Path) -> Any:
    """Return the value of a card, `None` if it is missing."""
    try:
        return header.get(name)
    except fits.VerifyError as error:
        raise HeaderError(f"{path}: card {name} cannot be read: {error}") from error
