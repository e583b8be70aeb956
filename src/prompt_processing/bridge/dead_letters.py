"""Records that cannot be read: they are kept, and can be read again when the cause is mended."""

from collections.abc import Callable, Sequence
from typing import Final

from prompt_processing.bridge.records import Record
from prompt_processing.domain.errors import PromptError, RefusedMessageError
from prompt_processing.messaging.kafka import Produced

ERROR: Final = "error"
_PREFIX: Final = "source_"
LONGEST_ERROR: Final = 2000


class DeadLetters:
    """Writes dead letters: the record as it is, with the error and its place as headers.

    Parameters
    ----------
    write
        Writes records to the topic of the dead letters; nothing is kept if it is `None`.
    """

    def __init__(self, write: Callable[[Sequence[Produced]], None] | None) -> None:
        self._write = write

    def put(self, record: Record, error: PromptError) -> bool:
        """Keep a record, and why it could not be read; return whether it is kept.

        Raises
        ------
        StoreError
            If it cannot be kept now.
        """
        if self._write is None:
            return False
        place = {
            ERROR: str(error)[:LONGEST_ERROR].encode(),
            f"{_PREFIX}topic": record.topic.encode(),
            f"{_PREFIX}partition": str(record.partition).encode(),
            f"{_PREFIX}offset": str(record.offset).encode(),
            f"{_PREFIX}timestamp": repr(record.timestamp).encode(),
        }
        try:
            self._write([Produced(None, record.value, {**record.headers, **place})])
        except RefusedMessageError:
            # Larger than the topic allows: its place is kept at least.
            self._write([Produced(None, None, place)])
        return True


def unwrap(letter: Record) -> Record:
    """Return the record that a dead letter is about, at the place where it stood.

    A letter that was not written by `DeadLetters` is returned as it is.
    """
    headers = dict(letter.headers)
    headers.pop(ERROR, None)
    try:
        topic = headers.pop(f"{_PREFIX}topic").decode()
        partition = int(headers.pop(f"{_PREFIX}partition"))
        offset = int(headers.pop(f"{_PREFIX}offset"))
        timestamp = float(headers.pop(f"{_PREFIX}timestamp"))
    except (KeyError, ValueError):
        return letter
    return Record(topic, partition, offset, letter.value, timestamp, headers)


def error_of(letter: Record) -> str:
    """Return why a record is a dead letter."""
    return letter.headers.get(ERROR, b"").decode(errors="replace")
