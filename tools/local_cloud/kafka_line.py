"""A line to a Kafka broker that loses what it is told to lose: a single request or answer of some kind."""

import asyncio
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import IntEnum

from local_cloud.emulators import Proxy, Way
from local_cloud.servers import LOOPBACK


class Api(IntEnum):
    """Kinds of requests (https://kafka.apache.org/protocol#protocol_api_keys)."""

    FETCH = 1
    OFFSET_COMMIT = 8
    JOIN_GROUP = 11
    HEARTBEAT = 12
    LEAVE_GROUP = 13
    SYNC_GROUP = 14


class KafkaLine(Proxy):
    """A `Proxy` that reads requests and answers; use it as a context manager.

    Parameters
    ----------
    broker_port
        Port of a listener of the broker.
    port
        Port that this listener advertises.
    """

    def __init__(self, broker_port: int, port: int) -> None:
        super().__init__(LOOPBACK, broker_port, port)
        self._cuts = True
        self._lost: dict[Api, int] = {}
        """How many more answers of each kind get lost."""
        self._changed = threading.Condition()
        self._asked: Counter[int] = Counter()

    @contextmanager
    def losing(self, api: Api, count: int = 1, *, cut: bool = True) -> Iterator[None]:
        """Lose the next answers of some kind, and wait at the end until it was done.

        Parameters
        ----------
        api
            Kind of the requests, which reach the broker.
        count
            How many answers.
        cut
            Whether their connections are lost, too.
        """
        with self._changed:
            self._lost[api] = count
            self._cuts = cut
        yield
        with self._changed:
            assert self._changed.wait_for(lambda: not self._lost.get(api), 60.0), (
                f"no {api.name} was answered"
            )

    @contextmanager
    def seeing(self, api: Api) -> Iterator[None]:
        """Wait at the end until a request of some kind has been on its way since the beginning."""
        before = self._asked[api]
        yield
        with self._changed:
            assert self._changed.wait_for(lambda: self._asked[api] > before, 60.0), f"no {api.name}"

    async def _exchange(self, there: Way, back: Way) -> None:
        kinds: dict[int, int] = {}
        await asyncio.gather(self._requests(*there, kinds), self._answers(*back, kinds))

    async def _requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kinds: dict[int, int]
    ) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                frame = await _read_frame(reader)
                api, _version, correlation = struct.unpack_from(">hhi", frame, 4)
                kinds[correlation] = api
                writer.write(frame)
                with self._changed:
                    self._asked[api] += 1
                    self._changed.notify_all()
                await writer.drain()
        writer.close()

    async def _answers(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kinds: dict[int, int]
    ) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                frame = await _read_frame(reader)
                (correlation,) = struct.unpack_from(">i", frame, 4)
                if self._is_lost(kinds.pop(correlation)):
                    if self._cuts:
                        break
                    continue
                writer.write(frame)
                await writer.drain()
        writer.transport.abort()

    def _is_lost(self, api: int) -> bool:
        with self._changed:
            left = self._lost.get(Api(api), 0) if api in Api else 0
            if left:
                self._lost[Api(api)] = left - 1
                self._changed.notify_all()
            return left > 0


async def _read_frame(reader: asyncio.StreamReader) -> bytes:
    """Return a request or an answer, beginning with its length (https://kafka.apache.org/protocol#protocol_common)."""
    head = await reader.readexactly(4)
    return head + await reader.readexactly(*struct.unpack(">i", head))
