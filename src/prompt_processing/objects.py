"""Objects by key below a root, the same for a folder and for a bucket.

Reading, writing and listing go through `lsst.resources.ResourcePath`; this module adds what it lacks:
creating an object only if there is none, in one step, and listing on from a key.
"""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lsst.resources import ResourcePath

from prompt_processing.domain.errors import ConfigError, StoreError

# A URI would be cut, or decoded once too often, at these characters of a key.
_UNSAFE: Final = frozenset("#?%\\\0")
_TEMPORARY: Final = ".creating-"


def root(location: str | Path | ResourcePath) -> ResourcePath:
    """Return the root of a store as a directory.

    Parameters
    ----------
    location
        A folder, or a URI.
    """
    return ResourcePath(location, forceDirectory=True)


def child(store: ResourcePath, key: str) -> ResourcePath:
    """Return the place of an object in a store.

    Parameters
    ----------
    store
        Root of the store.
    key
        Key relative to the root.

    Raises
    ------
    ValueError
        If the key is empty, leaves the store, or has characters that a URI cannot hold.
    """
    parts = key.split("/")
    if not key or _UNSAFE & set(key) or {"", ".", ".."} & set(parts):
        raise ValueError(f"{key!r} is not a key of an object")
    return store.join(key)


def create(path: ResourcePath, data: bytes) -> bool:
    """Create an object if there is none: of several writers exactly one succeeds, and no reader sees a part.

    Parameters
    ----------
    path
        Place of the object. In a folder, missing folders above it are made.
    data
        Its content.

    Returns
    -------
    created
        `False` if an object was there already; it is left as it is.

    Raises
    ------
    ConfigError
        If the kind of store is not supported.
    StoreError
        If the store cannot be written.
    """
    target = _local(path)
    temporary = target.parent / f"{_TEMPORARY}{uuid.uuid4().hex}"
    try:
        if target.exists():
            return False
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as stream:
                stream.write(data)
                stream.flush()
                # Without this a power cut could leave an empty object that nobody may replace.
                os.fsync(stream.fileno())
            return _link(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{path}: cannot be created: {error}") from error


def read(path: ResourcePath) -> bytes | None:
    """Return the content of an object, or `None` if there is none.

    Raises
    ------
    StoreError
        If the store cannot be read.
    """
    try:
        return path.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error}") from error


def list_after(prefix: ResourcePath, start: str = "") -> Iterator[str]:
    """List the keys of a store from a key on, in the order of an object store (by code point).

    Parameters
    ----------
    prefix
        Root of what is listed.
    start
        Only keys after this one are listed.

    Yields
    ------
    key
        Relative to ``prefix``. Objects that are being created are not listed.

    Raises
    ------
    ConfigError
        If the kind of store is not supported.
    StoreError
        If the store cannot be read.
    """
    folder = _local(prefix)
    try:
        yield from _walk(folder, "", start)
    except OSError as error:
        raise StoreError(f"{prefix}: cannot be listed: {error}") from error


def _link(source: Path, target: Path) -> bool:
    """Give a file a second name, unless there is one of that name already."""
    try:
        target.hardlink_to(source)
    except FileExistsError:
        return False
    return True


def _walk(folder: Path, above: str, start: str) -> Iterator[str]:
    try:
        with os.scandir(folder) as found:
            entries = [(entry.name, entry.is_dir()) for entry in found]
    except FileNotFoundError:
        return
    # A folder sorts with its slash, as its keys do.
    for name in sorted(f"{name}/" if is_folder else name for name, is_folder in entries):
        key = above + name
        if not name.endswith("/"):
            if key > start and not name.startswith(_TEMPORARY):
                yield key
        elif key > start or start.startswith(key):
            yield from _walk(folder / name, key, start)


def _local(path: ResourcePath) -> Path:
    """Return the place of an object in the file system."""
    if not path.isLocal:
        raise ConfigError(f"{path}: a store of the kind {path.scheme}:// is not supported; give a folder")
    return Path(path.ospath)
