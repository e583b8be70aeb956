"""Objects by key below a root, the same for a folder and for a bucket.

Reading, writing and listing go through `lsst.resources.ResourcePath`; this room adds what it lacks: creating
an object only if there is none, in one step, listing on from a key, versions, and errors of our own.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from lsst.resources import ResourcePath

from prompt_processing.domain.errors import ConfigError
from prompt_processing.storage.object_store.port import Entry, Store

__all__ = [
    "Entry",
    "child",
    "create",
    "list_after",
    "list_entries",
    "local_copies",
    "read",
    "read_start",
    "root",
    "stat",
    "upload",
    "write",
]

# A URI would be cut, or decoded once too often, at these characters of a key.
_UNSAFE: Final = frozenset("#?%\\\0")


def root(location: str | Path | ResourcePath) -> ResourcePath:
    """Return the root of a store as a directory.

    Parameters
    ----------
    location
        A folder, or a URI.

    Returns
    -------
    root
        The root, with a slash at its end.
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

    Returns
    -------
    path
        Place of the object.

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
    """Create an object if there is none: of several writers at most one succeeds, and no reader sees a part.

    Parameters
    ----------
    path
        Place of the object. In a folder, missing folders above it are made.
    data
        Its content.

    Returns
    -------
    created
        `False` if an object exists already; it does not change. After a retried request, `False` may mean
        that this call created the object. Compare contents if it matters.

    Raises
    ------
    ConfigError
        If the kind of store is not supported.
    StoreError
        If the store cannot be written.
    """
    return _store(path).create(path, data)


def upload(path: ResourcePath, file: Path) -> bool:
    """Create an object from a local file, if there is none; otherwise like `create`.

    Parameters
    ----------
    path
        Place of the object.
    file
        The local file.

    Returns
    -------
    created
        As for `create`.

    Raises
    ------
    ConfigError
        If the kind of store is not supported.
    StoreError
        If the file cannot be read, or the store cannot be written.
    """
    return _store(path).upload(path, file)


def write(path: ResourcePath, data: bytes) -> None:
    """Create or overwrite an object.

    Parameters
    ----------
    path
        Place of the object.
    data
        Its content.

    Raises
    ------
    ConfigError
        If the kind of store is not supported.
    StoreError
        If the store cannot be written.
    """
    _store(path).write(path, data)


def read(path: ResourcePath) -> bytes | None:
    """Return the content of an object, or `None` if there is none.

    Parameters
    ----------
    path
        Place of the object.

    Returns
    -------
    data
        The content; `None` if there is no object.

    Raises
    ------
    ConfigError
        If the kind of store is not supported.
    StoreError
        If the store cannot be read.
    """
    return _store(path).read(path, None)


def read_start(path: ResourcePath, size: int) -> bytes | None:
    """Return the first bytes of an object, fewer than ``size`` if it ends before, `None` if there is none.

    Parameters
    ----------
    path
        Place of the object.
    size
        Number of bytes; positive.

    Returns
    -------
    data
        The first bytes; `None` if there is no object.

    Raises
    ------
    ConfigError
        If the kind of store is not supported.
    StoreError
        If the store cannot be read.
    """
    return _store(path).read(path, size)


def stat(path: ResourcePath) -> Entry | None:
    """Return size and version of an object, or `None` if there is none.

    Parameters
    ----------
    path
        Place of the object.

    Returns
    -------
    entry
        The object with an empty key; `None` if there is none.

    Raises
    ------
    ConfigError
        If the kind of store is not supported.
    StoreError
        If the store cannot be read.
    """
    return _store(path).stat(path)


def local_copies(store: ResourcePath, keys: Iterable[str], work: Path) -> AbstractContextManager[Path]:
    """Provide objects as local files, while the context is open.

    Parameters
    ----------
    store
        Root of the store.
    keys
        Keys relative to the root; there may be no object of such a key.
    work
        Folder for copies of objects that are elsewhere.

    Returns
    -------
    folder
        Context of a folder in which the objects have the paths of their keys.

    Raises
    ------
    ConfigError
        If the kind of store is not supported.
    StoreError
        If the store cannot be read.
    """
    return _store(store).local_copies(store, keys, work)


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
    return (entry.key for entry in list_entries(prefix, start))


def list_entries(prefix: ResourcePath, start: str = "") -> Iterator[Entry]:
    """List the objects of a store from a key on, with their versions; otherwise like `list_after`.

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
    ConfigError
        If the kind of store is not supported.
    StoreError
        If the store cannot be read.
    """
    folder = root(prefix)
    return _store(folder).list_entries(folder, start)


def _store(path: ResourcePath) -> Store:
    """Return the adapter for the store of an object."""
    # Import the libraries of a cloud only for a store in that cloud.
    if path.isLocal:
        from prompt_processing.storage.object_store.folder import Folder  # noqa: PLC0415

        return Folder()
    if path.scheme == "gs":
        from prompt_processing.storage.object_store.google import GoogleStorage  # noqa: PLC0415

        return GoogleStorage()
    raise ConfigError(
        f"{path}: a store of the kind {path.scheme}:// is not supported; give a folder or gs://"
    )
