"""Messages by Kafka, and how Kafka and its schema registry are reached."""

import logging
import ssl
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka.schema_registry import SchemaRegistryClient

from prompt_processing.config import KafkaSettings, reveal
from prompt_processing.domain.errors import ConfigError, RefusedMessageError, StoreError
from prompt_processing.messaging.attributes import attributes
from prompt_processing.messaging.port import NO_ORIGIN

TIMEOUT: Final = 10.0
"""Longest time until the brokers have acknowledged a record, or it has failed [s]."""
MAX_RECORD: Final = 10_000_000
"""Size of the largest record that is given to the brokers, which have a limit of their own [bytes]."""
_QUIET: Final = 30.0
"""Time in which the client logs the same only once [s]."""
_REFUSED: Final = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD})


class Produced(NamedTuple):
    """A record to be written."""

    key: bytes | None
    value: bytes | None
    headers: Mapping[str, bytes]


def connection(settings: KafkaSettings) -> dict[str, Any]:
    """Return how a client finds and trusts the brokers, as librdkafka has it.

    Raises
    ------
    ConfigError
        If there are no brokers, user and password are missing, or the certificates cannot be read.
    """
    if not settings.servers:
        raise ConfigError("kafka.servers: the brokers are not given")
    found: dict[str, Any] = {
        "bootstrap.servers": settings.servers,
        "security.protocol": settings.security,
        "client.id": "prompt-processing",
        "logger": _logger(),
        # The defaults, written out: nothing switches them off.
        "enable.ssl.certificate.verification": True,
        "ssl.endpoint.identification.algorithm": "https",
        "reconnect.backoff.max.ms": 2000,
    }
    if settings.security == "sasl_ssl":
        password = reveal(settings.password)
        if not settings.user or not password:
            raise ConfigError("kafka.user and kafka.password: both are needed for kafka.security sasl_ssl")
        found |= {
            "sasl.mechanism": settings.mechanism,
            "sasl.username": settings.user,
            "sasl.password": password,
        }
    if settings.ca_file:
        _check_authorities(settings.ca_file)
        found["ssl.ca.location"] = settings.ca_file
    return found


def open_registry(settings: KafkaSettings) -> SchemaRegistryClient:
    """Return a client of the schema registry.

    Raises
    ------
    ConfigError
        If it is not given, or user or password are missing.
    """
    if not settings.registry:
        raise ConfigError("kafka.registry: the schema registry is not given")
    # Trying again is the bridge's business: it must not be silent meanwhile.
    client: dict[str, Any] = {"url": settings.registry, "timeout": TIMEOUT / 2, "max.retries": 0}
    password = reveal(settings.registry_password)
    if bool(settings.registry_user) != bool(password):
        raise ConfigError("kafka.registry_user and kafka.registry_password: one is given without the other")
    if password:
        client["basic.auth.user.info"] = f"{settings.registry_user}:{password}"
    system = ssl.get_default_verify_paths()
    # The client would take those that come with a package, where the one of the brokers takes the system's.
    if authorities := settings.ca_file or system.cafile or system.capath:
        client["ssl.ca.location"] = authorities
    return SchemaRegistryClient(client)


def _check_authorities(file: str) -> None:
    try:
        ssl.create_default_context(cafile=file)
    except OSError as error:
        raise ConfigError(f"kafka.ca_file: {file}: {error}") from error


class _Seldom(logging.Filter):
    """Lets a line of a client pass that was not there lately: it tries to connect many times a second."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        # Behind the names of client and thread stands what happened at which broker, then after how long.
        what = text.partition("]: ")[2].partition(" (after ")[0] or text
        self._last = {text: when for text, when in self._last.items() if record.created - when <= _QUIET}
        is_new = what not in self._last
        if is_new:
            self._last[what] = record.created
        return is_new


_SELDOM: Final = _Seldom()


def _logger() -> logging.Logger:
    """Return where the clients of this process log."""
    logger = logging.getLogger("prompt_processing.librdkafka")
    logger.addFilter(_SELDOM)
    return logger


class KafkaWriter:
    """Writes records to a topic, and waits until all replicas that are in sync have them.

    Parameters
    ----------
    client
        How the brokers are found; see `connection`.
    topic
        Name of the topic.
    """

    def __init__(self, client: Mapping[str, Any], topic: str) -> None:
        self._settings = {
            **client,
            "enable.idempotence": True,
            "linger.ms": 0,
            "delivery.timeout.ms": int(TIMEOUT * 1000),
            "message.max.bytes": MAX_RECORD,
            "compression.type": "lz4",
        }
        self.topic = topic
        self._producer: Producer | None = None
        self._writing = threading.Lock()

    def write(self, records: Sequence[Produced]) -> None:
        """Write records; when it returns they are there.

        Raises
        ------
        StoreError
            If the brokers do not take them all now; some may be there.
        RefusedMessageError
            If the brokers will never take one of them; some may be there.
        """
        with self._writing:
            try:
                self._write(records)
            except StoreError:
                # What is still under way must not come later, and some errors end a producer for good.
                if self._producer is not None:
                    self._producer.purge()
                self._producer = None
                raise

    def _write(self, records: Sequence[Produced]) -> None:
        failures: list[KafkaError] = []

        def delivered(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                failures.append(error)

        try:
            # Never held by a name of its own: the traceback of an error would keep it alive.
            self._producer = self._producer or Producer(self._settings)
            for key, value, headers in records:
                self._producer.produce(
                    self.topic, value, key, headers=list(headers.items()), on_delivery=delivered
                )
            left = self._producer.flush(TIMEOUT + 1.0)
        except KafkaException as error:
            failures.append(error.args[0])
            left = 0
        except BufferError as error:
            raise StoreError(f"topic {self.topic}: {error}") from error
        if left:
            raise StoreError(f"topic {self.topic}: {left} records are not acknowledged after {TIMEOUT} s")
        for failure in failures:
            kind = RefusedMessageError if failure.code() in _REFUSED else StoreError
            raise kind(f"topic {self.topic}: {failure.str()}")


class KafkaPublisher:
    """A `~prompt_processing.messaging.port.Publisher` to a topic: one record per message.

    The key is the message's ``dedup_key``, the headers are its attributes.

    Parameters
    ----------
    writer
        Writes to the topic.
    """

    def __init__(self, writer: KafkaWriter) -> None:
        self._writer = writer

    def publish(self, bodies: Sequence[str], origin: Mapping[str, str] = NO_ORIGIN) -> None:
        """Send messages; see the port."""
        self._writer.write([_record(body, origin) for body in bodies])


def _record(body: str, origin: Mapping[str, str]) -> Produced:
    found = {**attributes(body), **origin}
    key = found.get("dedup_key")
    headers = {name: value.encode() for name, value in found.items()}
    return Produced(key.encode() if key else None, body.encode(), headers)
