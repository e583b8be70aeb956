"""One way to reach an SQL database, for the ledger and the APDB."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from prompt_processing.domain.errors import ConfigError, StoreError

BUSY_TIMEOUT: Final = 30.0
"""How long a writer waits for another one on SQLite [s]."""
_BEGIN: Final = "sqlite_begin"


def engine(url: str, creator: Callable[[], Any] | None = None) -> Engine:
    """Return an engine for a database.

    On SQLite it uses the write-ahead log (readers and one writer do not block each other), waits for locks,
    checks foreign keys, and leaves transactions to SQLAlchemy instead of the driver.

    Parameters
    ----------
    url
        SQLAlchemy URL.
    creator
        Makes a new connection of the driver, where an address is not enough (a cloud database's connector).

    Raises
    ------
    ConfigError
        If the URL makes no sense or its driver is not installed.
    """
    try:
        parsed = make_url(url)
        arguments: dict[str, Any] = {} if creator is None else {"creator": creator}
        if parsed.get_backend_name() == "sqlite":
            made = create_engine(parsed, connect_args={"timeout": BUSY_TIMEOUT}, **arguments)
            event.listen(made, "connect", _prepare_sqlite)
            event.listen(made, "begin", _begin_sqlite)
            return made
        return create_engine(parsed, pool_pre_ping=True, **arguments)
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise ConfigError(f"database URL: {error}") from error


@contextmanager
def reading(source: Engine, what: str) -> Iterator[Connection]:
    """Open a transaction for reading.

    Parameters
    ----------
    source
        The database.
    what
        What is read, for the error.

    Raises
    ------
    StoreError
        If the database does not answer or refuses.
    """
    with _translated(what), source.begin() as connection:
        yield connection


@contextmanager
def writing(target: Engine, what: str) -> Iterator[Connection]:
    """Open a transaction for writing; it is committed at the end, or undone by an error.

    On SQLite the write lock is taken at once: two transactions that read first and write later would
    otherwise end in a deadlock, which SQLite resolves by failing one without waiting.

    Parameters
    ----------
    target
        The database.
    what
        What is written, for the error.

    Raises
    ------
    StoreError
        If the database does not answer or refuses.
    """
    with _translated(what), target.execution_options(**{_BEGIN: "IMMEDIATE"}).begin() as connection:
        yield connection


@contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except (DBAPIError, PoolTimeoutError) as error:
        reason = error.orig if isinstance(error, DBAPIError) else error
        raise StoreError(f"{what}: {reason}") from error


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    mode = connection.get_execution_options().get(_BEGIN, "DEFERRED")
    connection.exec_driver_sql(f"BEGIN {mode}")
