"""What every kind of object store can do; `prompt_processing.storage.object_store` has the promises."""

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
    """Key relative to what was listed; empty if it was asked for by its place."""
    size: int
    """Size [bytes]."""
    generation: int
    """Version of the object; for a file its modification time [ns]."""


class Store(Protocol):
    """One kind of object store."""

    def create(self, path: ResourcePath, data: bytes) -> bool:
        """Create an object if there is none."""
        ...

    def upload(self, path: ResourcePath, file: Path) -> bool:
        """Create an object from a local file if there is none."""
        ...

    def write(self, path: ResourcePath, data: bytes) -> None:
        """Write an object, in the place of one that may be there."""
        ...

    def read(self, path: ResourcePath, size: int | None) -> bytes | None:
        """Return the content of an object, or its first bytes."""
        ...

    def stat(self, path: ResourcePath) -> Entry | None:
        """Return size and version of an object."""
        ...

    def local_copies(
        self, store: ResourcePath, keys: Iterable[str], work: Path
    ) -> AbstractContextManager[Path]:
        """Provide objects as local files below a folder."""
        ...

    def list_entries(self, prefix: ResourcePath, start: str) -> Iterator[Entry]:
        """List objects from a key on."""
        ...
