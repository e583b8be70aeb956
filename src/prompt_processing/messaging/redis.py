"""Messages by Redis Streams."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import redis

from prompt_processing.domain.errors import ConfigError, StoreError
from prompt_processing.messaging.attributes import attributes
from prompt_processing.messaging.port import NO_ORIGIN

TIMEOUT: Final = 10.0
"""Longest wait for an answer [s]."""


class RedisPublisher:
    """A `~prompt_processing.messaging.port.Publisher` to a stream per instrument.

    An entry is a flat map of strings: each field of the message by its name, as the observatory's own workers
    read it, and the attributes. Lists are JSON. All entries of a call are added at once or not at all.

    Parameters
    ----------
    url
        Server and database, ``redis://host:port/database``.
    stream
        Name of the stream, in which ``{instrument}`` stands for the instrument in lower case.
    max_length
        About how many entries a stream keeps.

    Raises
    ------
    ConfigError
        If the URL is none, or would weaken TLS.
    """

    def __init__(self, url: str, *, stream: str, max_length: int) -> None:
        self._stream = stream
        self._max_length = max_length
        if "ssl_" in url.partition("?")[2]:
            raise ConfigError("redis.url: how the server is verified cannot be changed")
        try:
            self._client = redis.Redis.from_url(url, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT)
        except ValueError:
            # The error would show a part of the password.
            raise ConfigError("redis.url: is no URL of a Redis server") from None

    def publish(self, bodies: Sequence[str], origin: Mapping[str, str] = NO_ORIGIN) -> None:
        """Send messages; see the port."""
        try:
            entries = [self._entry(body, origin) for body in bodies]
            # A transaction goes on after such an error, and is not undone.
            for stream in {stream for stream, _ in entries}:
                if (kind := self._client.type(stream)) not in {b"none", b"stream"}:
                    raise StoreError(f"redis: {stream}: is no stream but {kind!r}")
            with self._client.pipeline(transaction=True) as pipeline:
                for stream, fields in entries:
                    pipeline.xadd(stream, fields, maxlen=self._max_length, approximate=True)
                pipeline.execute()
        except redis.RedisError as error:
            raise StoreError(f"redis: {error}") from error

    def _entry(self, body: str, origin: Mapping[str, str]) -> tuple[str, dict[Any, Any]]:
        fields: dict[Any, Any] = dict(entry(body, origin))
        return self._stream.format(instrument=fields["instrument"].lower()), fields


def entry(body: str, origin: Mapping[str, str]) -> dict[str, str]:
    """Return a message as the flat map of strings that a stream carries."""
    message: dict[str, Any] = json.loads(body)
    fields = {name: value if isinstance(value, str) else json.dumps(value) for name, value in message.items()}
    return {**attributes(body), **origin, **fields}
