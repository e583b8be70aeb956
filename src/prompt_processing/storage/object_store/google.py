"""Objects in Google Cloud Storage.

The client is the one of `lsst.resources`, which the Butler uses too; it obeys ``STORAGE_EMULATOR_HOST``.
"""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from google.api_core.exceptions import (
    Forbidden,
    GoogleAPICallError,
    NotFound,
    PreconditionFailed,
    RequestRangeNotSatisfiable,
    RetryError,
)
from google.auth.exceptions import GoogleAuthError
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from google.cloud.storage.retry import DEFAULT_RETRY
from lsst.resources import ResourcePath
from requests.exceptions import RequestException

from prompt_processing.domain.errors import StoreError
from prompt_processing.storage.object_store.port import Entry

TIMEOUT: Final = 30.0
"""Longest wait for an answer [s]."""
RETRY: Final = DEFAULT_RETRY.with_timeout(10.0)
"""Retry for this long; after that the caller handles the error, and the worker retries the visit."""
_ANSWERS: Final[dict[str, Any]] = {"timeout": TIMEOUT, "retry": RETRY}


class GoogleStorage:
    """`~prompt_processing.storage.object_store.port.Store` in buckets."""

    def create(self, path: ResourcePath, data: bytes) -> bool:
        """See the port. The server checks that there is none."""
        with _errors(path, "created"):
            try:
                _blob(path).upload_from_string(data, if_generation_match=0, checksum="crc32c", **_ANSWERS)
            except PreconditionFailed:
                return False
        return True

    def upload(self, path: ResourcePath, file: Path) -> bool:
        """See the port. A large upload resumes after an interruption."""
        with _errors(path, "created"):
            # Do not send a file that the store has. An account that may only create cannot ask.
            with suppress(Forbidden):
                if _blob(path).exists(**_ANSWERS):
                    return False
            try:
                _blob(path).upload_from_filename(
                    str(file), if_generation_match=0, checksum="crc32c", **_ANSWERS
                )
            except PreconditionFailed:
                return False
        return True

    def write(self, path: ResourcePath, data: bytes) -> None:
        """See the port."""
        with _errors(path, "written"):
            _blob(path).upload_from_string(data, checksum="crc32c", **_ANSWERS)

    def read(self, path: ResourcePath, size: int | None) -> bytes | None:
        """See the port."""
        part = {} if size is None else {"start": 0, "end": size - 1}
        try:
            with _errors(path, "read"):
                return bytes(_blob(path).download_as_bytes(**part, **_ANSWERS))
        except NotFound:
            return None
        except RequestRangeNotSatisfiable:
            return b""  # an empty object has no first byte

    def stat(self, path: ResourcePath) -> Entry | None:
        """See the port."""
        blob = _blob(path)
        try:
            with _errors(path, "read"):
                blob.reload(**_ANSWERS)
        except NotFound:
            return None
        return _entry("", blob)

    @contextmanager
    def local_copies(self, store: ResourcePath, keys: Iterable[str], work: Path) -> Iterator[Path]:
        """See the port. The files are in a folder that is removed afterwards."""
        with tempfile.TemporaryDirectory(prefix="objects-", dir=work) as folder:
            for key in keys:
                place, file = store.join(key), Path(folder, key)
                file.parent.mkdir(parents=True, exist_ok=True)
                # A file that could not be downloaded is removed by the library.
                with suppress(NotFound), _errors(place, "read"):
                    _blob(place).download_to_filename(str(file), **_ANSWERS)
            yield Path(folder)

    def list_entries(self, prefix: ResourcePath, start: str) -> Iterator[Entry]:
        """See the port."""
        above: str = prefix.relativeToPathRoot
        above = "" if above in {"", "."} else f"{above.rstrip('/')}/"
        with _errors(prefix, "listed"):
            # The service begins with the offset itself.
            for blob in _bucket(prefix).list_blobs(
                prefix=above, start_offset=above + start, fields=_FIELDS, **_ANSWERS
            ):
                key = str(blob.name).removeprefix(above)
                if key > start and not key.endswith("/"):
                    yield _entry(key, blob)


_FIELDS: Final = "items(name,size,generation),nextPageToken"


def _bucket(path: ResourcePath) -> Any:
    return path.bucket


def _blob(path: ResourcePath) -> Any:
    return _bucket(path).blob(path.relativeToPathRoot)


def _entry(key: str, blob: Any) -> Entry:
    return Entry(key, int(blob.size or 0), int(blob.generation or 0))


@contextmanager
def _errors(path: ResourcePath, what: str) -> Iterator[None]:
    try:
        yield
    except (NotFound, RequestRangeNotSatisfiable) as error:
        # Reading handles a missing object and an empty range; everything else fails.
        if what == "read":
            raise
        raise StoreError(f"{path}: cannot be {what}: {error}") from error
    except (
        GoogleAPICallError,
        GoogleAuthError,
        RetryError,
        RequestException,
        InvalidResponse,
        DataCorruption,
        OSError,
    ) as error:
        raise StoreError(f"{path}: cannot be {what}: {error}") from error
