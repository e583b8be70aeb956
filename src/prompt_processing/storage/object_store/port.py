"""The port of object stores; the functions of `prompt_processing.storage.object_store` document it."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lsst.resources import ResourcePath


@dataclass(frozen=True, slots=True)
class Entry:
    """An object, without its content."""

    key: str
    """Key relative to what was listed; empty in the answer of `stat`."""
    size: int
    """Size [bytes]."""
    generation: int
    """Version of the object; for a file its modification time [ns]."""


class Store(Protocol):
    """One kind of object store."""

    def create(self, path: ResourcePath, data: bytes) -> bool:
        """Create an object if there is none.

        Parameters
        ----------
        path
            Place of the object.
        data
            Its content.

        Returns
        -------
        created
            `False` if an object exists already; it does not change.

        Raises
        ------
        StoreError
            If the store cannot be written.
        """
        ...

    def upload(self, path: ResourcePath, file: Path) -> bool:
        """Create an object from a local file if there is none.

        Parameters
        ----------
        path
            Place of the object.
        file
            The local file.

        Returns
        -------
        created
            `False` if an object exists already; it does not change.

        Raises
        ------
        StoreError
            If the store cannot be written.
        """
        ...

    def write(self, path: ResourcePath, data: bytes) -> None:
        """Create or overwrite an object.

        Parameters
        ----------
        path
            Place of the object.
        data
            Its content.

        Raises
        ------
        StoreError
            If the store cannot be written.
        """
        ...

    def read(self, path: ResourcePath, size: int | None) -> bytes | None:
        """Return the content of an object, or its first bytes.

        Parameters
        ----------
        path
            Place of the object.
        size
            Number of bytes; `None` for all.

        Returns
        -------
        data
            `None` if there is no object.

        Raises
        ------
        StoreError
            If the store cannot be read.
        """
        ...

    def stat(self, path: ResourcePath) -> Entry | None:
        """Return size and version of an object.

        Parameters
        ----------
        path
            Place of the object.

        Returns
        -------
        entry
            With an empty key; `None` if there is no object.

        Raises
        ------
        StoreError
            If the store cannot be read.
        """
        ...

    def local_copies(
        self, store: ResourcePath, keys: Iterable[str], work: Path
    ) -> AbstractContextManager[Path]:
        """Provide objects as local files below a folder.

        Parameters
        ----------
        store
            Root of the store.
        keys
            Keys relative to the root; a key without an object is skipped.
        work
            Folder for copies of remote objects.

        Returns
        -------
        folder
            Context of a folder in which the objects have the paths of their keys.

        Raises
        ------
        StoreError
            If the store cannot be read.
        """
        ...

    def list_entries(self, prefix: ResourcePath, start: str) -> Iterator[Entry]:
        """List objects from a key on, by code point of the keys.

        Parameters
        ----------
        prefix
            Root of what is listed.
        start
            Only keys after this one are listed.

        Yields
        ------
        entry
            The object; its key is relative to ``prefix``.

        Raises
        ------
        StoreError
            If the store cannot be listed.
        """
        ...
