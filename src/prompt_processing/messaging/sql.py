"""Messages in an SQL database: a queue for the processes of one machine, or of a few."""

import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    Delete,
    Engine,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    Update,
    and_,
    select,
)

from prompt_processing.domain.outcome import Delivery
from prompt_processing.messaging.port import NO_ORIGIN, Received
from prompt_processing.storage import database

POLL_INTERVAL: Final = 0.1
"""Time between two looks of a waiting receiver [s]."""

_METADATA: Final = MetaData()
_MESSAGES: Final = Table(
    "visit_messages",
    _METADATA,
    # SQLite numbers rows by itself only for INTEGER.
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("message_id", String(64), nullable=False, unique=True),
    Column("body", Text, nullable=False),
    Column("published_at", Float(53), nullable=False),
    Column("visible_at", Float(53), nullable=False, index=True),
    Column("deliveries", Integer, nullable=False),
)
_NOW: Final = database.DatabaseTime()
_NEXT: Final = select(_MESSAGES.c.id).where(_MESSAGES.c.visible_at <= _NOW).order_by(_MESSAGES.c.id).limit(1)


class SqlQueue:
    """A `~prompt_processing.messaging.port.VisitQueue` and `~prompt_processing.messaging.port.Publisher`.

    It works on SQLite and PostgreSQL; its table is made at first use. Times are those of the database.

    Parameters
    ----------
    engine
        The database, from `prompt_processing.storage.database.engine`.
    hidden
        How long a message that was received is hidden from others [s].

    Raises
    ------
    StoreError
        If the database does not answer.
    """

    def __init__(self, engine: Engine, *, hidden: float = 60.0) -> None:
        self._engine = engine
        self.hidden = hidden
        with database.setting_up(engine, "queue") as connection:
            _METADATA.create_all(connection)

    def publish(self, bodies: Sequence[str], origin: Mapping[str, str] = NO_ORIGIN) -> None:  # noqa: ARG002 (not kept)
        """Send messages; see the port."""
        with database.writing(self._engine, "queue: publish") as connection:
            for body in bodies:
                connection.execute(
                    _MESSAGES.insert().values(
                        message_id=uuid.uuid4().hex,
                        body=body,
                        published_at=_NOW,
                        visible_at=_NOW,
                        deliveries=0,
                    )
                )

    def receive(self, timeout: float) -> Received | None:
        """Return the next message; see the port."""
        deadline = time.monotonic() + timeout
        # Looking needs no lock, so those who wait do not stand in the way of those who write.
        with database.watching(self._engine, "queue: look", _NEXT) as has_next:
            while True:
                received = self._take() if has_next() else None
                left = deadline - time.monotonic()
                if received is not None or left <= 0:
                    return received
                time.sleep(min(left, POLL_INTERVAL))

    def extend(self, received: Received) -> None:
        """Hide a message for its full time again; see the port."""
        self._show_in(received, self.hidden)

    def ack(self, received: Received) -> None:
        """Say that a message is done with; see the port."""
        self._write(_MESSAGES.delete(), received)

    def retry(self, received: Received, delay: float = 0.0) -> None:
        """Give a message back; see the port."""
        self._show_in(received, delay)

    def close(self) -> None:
        """Nothing to do; see the port."""

    def _take(self) -> Received | None:
        """Take the next message; `None` if somebody else was quicker."""
        # On PostgreSQL receivers at the same time get different messages; on SQLite they come one by one.
        chosen = _NEXT.with_for_update(skip_locked=True).scalar_subquery()
        update = (
            _MESSAGES.update()
            .where(_MESSAGES.c.id == chosen)
            .values(visible_at=_NOW + self.hidden, deliveries=_MESSAGES.c.deliveries + 1)
            .returning(_MESSAGES.c.message_id, _MESSAGES.c.body, _MESSAGES.c.deliveries)
        )
        with database.writing(self._engine, "queue: receive") as connection:
            row = connection.execute(update).first()
        if row is None:
            return None
        message_id, body, count = row
        return Received(Delivery(message_id, body), f"{message_id}/{count}", count)

    def _show_in(self, received: Received, delay: float) -> None:
        self._write(_MESSAGES.update().values(visible_at=_NOW + delay), received)

    def _write(self, statement: Update | Delete, received: Received) -> None:
        """Change a message, unless it was delivered to somebody else meanwhile."""
        still_ours = and_(
            _MESSAGES.c.message_id == received.delivery.message_id, _MESSAGES.c.deliveries == received.count
        )
        with database.writing(self._engine, "queue: message") as connection:
            connection.execute(statement.where(still_ours))
