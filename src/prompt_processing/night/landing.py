"""The landing store from the side of the camera: objects are created and never changed."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from lsst.resources import ResourcePath

from prompt_processing.domain.errors import ConflictError, RawError, StoreError
from prompt_processing.night.files import LocalRaw
from prompt_processing.storage import object_store

WHOLE: Final = 1.0
"""Fraction of the bytes of a file that is not truncated."""


class Landing:
    """Puts raws into a landing store. May be used by several threads.

    Parameters
    ----------
    store
        Root of the store.
    """

    def __init__(self, store: ResourcePath) -> None:
        self._store = store

    def put_sidecar(self, file: LocalRaw) -> bool:
        """Put the sidecar of a raw, if it has one; otherwise like `put_image`."""
        return file.sidecar.exists() and self._upload(file.raw.sidecar, file.sidecar)

    def put_image(self, file: LocalRaw, keep: float = WHOLE) -> bool:
        """Put the image of a raw.

        Parameters
        ----------
        file
            The raw.
        keep
            Fraction of its bytes that arrive, from the first on.

        Returns
        -------
        new
            `False` if it was there already.

        Raises
        ------
        ConflictError
            If an object of another size is there; it is left as it is.
        RawError
            If the file cannot be read.
        StoreError
            If the store cannot be written.
        """
        key = str(file.raw)
        if keep == WHOLE:
            return self._upload(key, file.path)
        place, part = object_store.child(self._store, key), _first_part(file.path, keep)
        return _put(place, len(part), lambda: object_store.create(place, part))

    def _upload(self, key: str, file: Path) -> bool:
        place = object_store.child(self._store, key)
        return _put(place, _size(file), lambda: object_store.upload(place, file))


def _put(place: ResourcePath, size: int, put: Callable[[], bool]) -> bool:
    """Create an object; if there is one already, see whether it may be the same."""
    if put():
        return True
    # Who may only create cannot look at what is there.
    with suppress(StoreError):
        there = object_store.stat(place)
        if there is not None and there.size != size:
            raise ConflictError(
                f"{place}: another object is there already, of {there.size} bytes instead of {size}"
            )
    return False


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError as error:
        raise RawError(f"{file}: cannot be read: {error}") from error


def _first_part(file: Path, keep: float) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(int(keep * _size(file)))
    except OSError as error:
        raise RawError(f"{file}: cannot be read: {error}") from error
