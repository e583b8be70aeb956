"""Uploading raws that are there already: all of them, as quickly as it goes."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

from prompt_processing.domain.errors import PromptError
from prompt_processing.domain.raws import RawKey
from prompt_processing.night.files import LocalRaw
from prompt_processing.night.landing import Landing


@dataclass(frozen=True, slots=True)
class Uploaded:
    """What became of one raw."""

    raw: RawKey
    new: bool
    """`False` if the image was there already, or could not be put there."""
    error: PromptError | None = None


def upload_raws(
    files: Sequence[LocalRaw],
    landing: Landing,
    *,
    threads: int,
    on_raw: Callable[[Uploaded], None],
) -> None:
    """Put raws into a landing store, each with its sidecar before its image.

    What is there already is left alone, so an upload that was interrupted is continued by doing it again.

    Parameters
    ----------
    files
        The raws.
    landing
        Where they are put.
    threads
        How many are uploaded at the same time.
    on_raw
        Called for each raw when it is there, or could not be put there; the others are uploaded all the same.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="upload")
    try:
        for done in as_completed([pool.submit(_upload, file, landing) for file in files]):
            on_raw(done.result())
    finally:
        pool.shutdown(cancel_futures=True)


def _upload(file: LocalRaw, landing: Landing) -> Uploaded:
    try:
        landing.put_sidecar(file)
        return Uploaded(file.raw, landing.put_image(file))
    except PromptError as error:
        return Uploaded(file.raw, new=False, error=error)
