"""Objects as files in a folder."""

import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from lsst.resources import ResourcePath

from prompt_processing.domain.errors import StoreError
from prompt_processing.storage.object_store.port import Entry

_TEMPORARY: Final = ".creating-"


class Folder:
    """`~prompt_processing.storage.object_store.port.Store` in a file system with hard links."""

    def create(self, path: ResourcePath, data: bytes) -> bool:
        """See the port. The file gets its name by a hard link."""
        return _create(path, lambda stream: stream.write(data))

    def upload(self, path: ResourcePath, file: Path) -> bool:
        """See the port."""

        def copy(stream: BinaryIO) -> None:
            with file.open("rb") as source:
                shutil.copyfileobj(source, stream, 1 << 20)

        return _create(path, copy)

    def write(self, path: ResourcePath, data: bytes) -> None:
        """See the port."""
        with _errors(path, "written"):
            path.write(data)

    def read(self, path: ResourcePath, size: int | None) -> bytes | None:
        """See the port."""
        try:
            with _errors(path, "read"), Path(path.ospath).open("rb") as stream:
                return stream.read(-1 if size is None else size)
        except FileNotFoundError:
            return None

    def stat(self, path: ResourcePath) -> Entry | None:
        """See the port. The version is the modification time [ns]."""
        try:
            with _errors(path, "read"):
                return _entry("", Path(path.ospath).stat())
        except FileNotFoundError:
            return None

    @contextmanager
    def local_copies(
        self,
        store: ResourcePath,
        keys: Iterable[str],  # noqa: ARG002 (the port's)
        work: Path,  # noqa: ARG002 (the port's)
    ) -> Iterator[Path]:
        """See the port. No file is copied."""
        yield Path(store.ospath)

    def list_entries(self, prefix: ResourcePath, start: str) -> Iterator[Entry]:
        """See the port."""
        with _errors(prefix, "listed"):
            yield from _walk(Path(prefix.ospath), "", start)


@contextmanager
def _errors(path: ResourcePath, what: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreError(f"{path}: cannot be {what}: {error}") from error


def _create(path: ResourcePath, fill: Callable[[BinaryIO], object]) -> bool:
    target = Path(path.ospath)
    temporary = target.parent / f"{_TEMPORARY}{uuid.uuid4().hex}"
    try:
        if target.exists():
            return False
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as stream:
                fill(stream)
                stream.flush()
                # Without fsync a power cut could leave an empty object, which can never be replaced.
                os.fsync(stream.fileno())
            return _link(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{path}: cannot be created: {error}") from error


def _link(source: Path, target: Path) -> bool:
    """Create a hard link and return `True`; return `False` if the target exists."""
    try:
        target.hardlink_to(source)
    except FileExistsError:
        return False
    return True


def _walk(folder: Path, above: str, start: str) -> Iterator[Entry]:
    try:
        with os.scandir(folder) as found:
            entries = {f"{entry.name}/" if entry.is_dir() else entry.name: entry for entry in found}
    except FileNotFoundError:
        return
    # A folder sorts with its slash, as its keys do.
    for name in sorted(entries):
        key = above + name
        if not name.endswith("/"):
            if key > start and not name.startswith(_TEMPORARY):
                try:
                    yield _entry(key, entries[name].stat())
                except FileNotFoundError:
                    continue  # removed since the listing
        elif key > start or start.startswith(key):
            yield from _walk(folder / name, key, start)


def _entry(key: str, status: os.stat_result) -> Entry:
    return Entry(key, status.st_size, status.st_mtime_ns)
