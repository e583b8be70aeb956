"""One way to reach an SQL database, for the ledger, the queue and the APDB."""

import sqlite3
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import (
    Connection,
    Double,
    Engine,
    Select,
    Table,
    create_engine,
    event,
    func,
    make_url,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from prompt_processing.domain.errors import ConfigError, StoreError

BUSY_TIMEOUT: Final = 30.0
"""How long a writer waits for another one on SQLite [s]."""
_BEGIN: Final = "sqlite_begin"
_SETTING_UP: Final = 0x70726F6D7074
"""Number of the lock under which tables are made on PostgreSQL."""


IDLE: Final = 1.0
"""Time without a transaction after which connections are closed [s]."""


class DatabaseTime(FunctionElement[float]):
    """The database's own time, as UNIX seconds, when the statement runs: the same for all its users."""

    type = Double()
    name = "database_time"
    inherit_cache = True


@compiles(DatabaseTime, "sqlite")
def _sqlite_time(*_: Any, **__: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(DatabaseTime, "postgresql")
def _postgresql_time(*_: Any, **__: Any) -> str:
    # Not now(), which stays the same for a whole transaction, however long it waited for a lock.
    return "CAST(extract(epoch FROM clock_timestamp()) AS DOUBLE PRECISION)"


def engine(url: str) -> Engine:
    """Return an engine for a database.

    On SQLite it uses the write-ahead log (readers and one writer do not block each other), waits for locks,
    checks foreign keys, and leaves transactions to SQLAlchemy instead of the driver.

    Parameters
    ----------
    url
        SQLAlchemy URL; for Cloud SQL see `prompt_processing.storage.cloud_sql`.

    Returns
    -------
    engine
        The engine; it connects on first use.

    Raises
    ------
    ConfigError
        If the URL is not valid or its driver is not installed.
    """
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite":
            made = create_engine(parsed, connect_args={"timeout": BUSY_TIMEOUT})
            event.listen(made, "connect", _prepare_sqlite)
            event.listen(made, "begin", _begin_sqlite)
            return made
        made = create_engine(parsed, pool_pre_ping=True, max_overflow=-1)
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise ConfigError(f"database URL: {error}") from error
    event.listen(made, "checkin", _IdleCloser(made).used)
    if made.driver == "pg8000":
        event.listen(made, "do_connect", _Encryption().connect)
    return made


@contextmanager
def reading(source: Engine, what: str) -> Iterator[Connection]:
    """Open a transaction for reading.

    Parameters
    ----------
    source
        The database.
    what
        What is read, for the error.

    Yields
    ------
    connection
        The connection, in a transaction.

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

    Yields
    ------
    connection
        The connection, in a transaction.

    Raises
    ------
    StoreError
        If the database does not answer or refuses.
    """
    with _translated(what), target.execution_options(**{_BEGIN: "IMMEDIATE"}).begin() as connection:
        yield connection


@contextmanager
def setting_up(target: Engine, what: str) -> Iterator[Connection]:
    """Open a transaction for creating tables; it excludes all others of its kind.

    Parameters
    ----------
    target
        The database.
    what
        What is made, for the error.

    Yields
    ------
    connection
        The connection, in a transaction that holds the lock.

    Raises
    ------
    StoreError
        If the database does not answer or refuses.
    """
    with writing(target, what) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(select(func.pg_advisory_xact_lock(_SETTING_UP)))
        yield connection


@contextmanager
def watching(source: Engine, what: str, query: Select[Any]) -> Iterator[Callable[[], bool]]:
    """Provide a function that returns whether a query has rows, for frequent polling.

    It holds one connection and bypasses SQLAlchemy, which takes several times as long.

    Parameters
    ----------
    source
        The database.
    what
        What is read, for the error.
    query
        The query.

    Yields
    ------
    finds
        Runs the query; `True` if it has rows.

    Raises
    ------
    StoreError
        If the database does not answer or refuses.
    """
    statement = str(query.compile(source, compile_kwargs={"literal_binds": True}))
    with _translated(what):
        connection = source.raw_connection()
    driver: Any = connection.driver_connection
    cursor = connection.cursor()
    # On SQLite the driver opens no transactions, see `_prepare_sqlite`.
    opens_transactions = source.dialect.name != "sqlite"

    def finds() -> bool:
        cursor.execute(statement)
        # All rows, because SQLite would otherwise keep looking at the present state of the file.
        return bool(cursor.fetchall())

    try:
        if opens_transactions:
            driver.autocommit = True
        yield finds
    except source.dialect.loaded_dbapi.Error as error:
        connection.invalidate()
        raise StoreError(f"{what}: {error}") from error
    finally:
        if opens_transactions:
            driver.autocommit = False
        connection.close()


class _Encryption:
    """Encrypts connections if the server can, as the driver does, which reads all certificates each time."""

    def __init__(self) -> None:
        self._context: ssl.SSLContext | bool = ssl.create_default_context()
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE

    def connect(self, dialect: Any, _record: Any, arguments: Any, options: dict[str, Any]) -> Any:
        """Return a new connection of the driver."""
        chosen = {"ssl_context": self._context} | options
        try:
            return dialect.connect(*arguments, **chosen)
        except dialect.loaded_dbapi.InterfaceError as error:
            if "ssl_context" in options or "refuses SSL" not in str(error):
                raise
        self._context = False
        return dialect.connect(*arguments, **options, ssl_context=False)


class _IdleCloser:
    """Closes idle connections of an engine.

    Hundreds of workers that mostly wait for images would otherwise hold as many connections; and a new one
    for each transaction would cost more than most transactions do.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._watching = False
        self._used_at = 0.0

    def used(self, *_: Any) -> None:
        """Take note that a connection was given back."""
        with self._lock:
            self._used_at = time.monotonic()
            if not self._watching:
                self._watching = True
                threading.Thread(target=self._watch, name="idle connections", daemon=True).start()

    def _watch(self) -> None:
        while True:
            with self._lock:
                left = self._used_at + IDLE - time.monotonic()
                if left <= 0:
                    self._watching = False
                    break
            time.sleep(left)
        self._engine.dispose()


def insert_new(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """Return an INSERT that skips existing rows; its row count is the number of new rows.

    Parameters
    ----------
    connection
        Connection to SQLite or PostgreSQL.
    table
        The table.

    Returns
    -------
    statement
        ``INSERT ... ON CONFLICT DO NOTHING``, without values.
    """
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table).on_conflict_do_nothing()
    return postgresql.insert(table).on_conflict_do_nothing()


@contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        raise StoreError(f"{what}: {error.orig}") from error


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    _use_write_ahead_log(cursor)
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _use_write_ahead_log(cursor: sqlite3.Cursor) -> None:
    """Switch to the write-ahead log; SQLite itself does not wait if several do so in a new file."""
    deadline = time.monotonic() + BUSY_TIMEOUT
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    mode = connection.get_execution_options().get(_BEGIN, "DEFERRED")
    connection.exec_driver_sql(f"BEGIN {mode}")
