"""Records of Kafka, and the port for where they come from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Record:
    """A record, and where it stands in Kafka."""

    topic: str
    partition: int
    offset: int
    value: bytes | None
    timestamp: float
    """When it was written [UTC s since 1970]."""
    headers: Mapping[str, bytes]

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


class RecordSource(Protocol):
    """Gives records one at a time; all methods raise `StoreError` if Kafka does not answer."""

    @property
    def ended(self) -> bool:
        """Whether there will be no more."""
        ...

    def receive(self, timeout: float) -> Record | None:
        """Return the next record, or `None` if none came.

        Parameters
        ----------
        timeout
            Longest wait [s].
        """
        ...

    def keep(self) -> bool:
        """Stay a member of the group while a record takes long, and receive nothing meanwhile.

        Returns
        -------
        ours
            Whether the last record is still this member's; another one gets it otherwise.
        """
        ...

    def done(self, record: Record) -> None:
        """Say that all that a record asks for is done, so that it is not given again."""
        ...

    def close(self) -> None:
        """Receive nothing any more."""
        ...
