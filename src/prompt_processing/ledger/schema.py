"""Versions of the ledger's tables: setting them up, checking and upgrading them.

The scripts that lead from one version to the next are in `migrations.versions`; Alembic runs them. The
version stands in a table with a name of its own, because other systems in the same database may use Alembic
too.
"""

import threading
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, Engine, inspect, text

from prompt_processing.domain.errors import RepositoryError
from prompt_processing.ledger.tables import DETECTOR_VISITS
from prompt_processing.storage import database

VERSION_TABLE: Final = "ledger_version"
VERSIONS: Final = ("0001", "0002", "0003", "0004")
"""Every version, oldest first; the last one is that of `tables`."""
_UNNUMBERED: Final = VERSIONS[0]
"""The version of tables that were made before versions were kept."""
_COMMAND: Final = "prompt repo upgrade REPO"
_ALEMBIC: Final = threading.Lock()
"""Alembic keeps what it works on in global variables."""


def prepare(engine: Engine) -> None:
    """Set the tables up in a database that has none, else check their version.

    Safe when several processes do it at the same time.

    Raises
    ------
    RepositoryError
        If the tables are of another version than this program.
    StoreError
        If the database does not answer.
    """
    if version(engine) is None:
        upgrade(engine)
    check(engine)


def check(engine: Engine) -> None:
    """Make sure that the tables are those that this program works with.

    Raises
    ------
    RepositoryError
        If they are of another version, or not there.
    StoreError
        If the database does not answer.
    """
    found = version(engine)
    if found is None:
        raise RepositoryError(f"ledger: there are no tables; make them with: {_COMMAND}")
    _refuse_newer(found)
    if found != VERSIONS[-1]:
        raise RepositoryError(
            f"ledger: the tables have version {found}, this program needs {VERSIONS[-1]}; "
            f"stop the workers, then: {_COMMAND}"
        )


def upgrade(engine: Engine) -> str | None:
    """Bring the tables to the version of this program; nothing is lost, and nothing happens if they are.

    All is done in one transaction. Of several processes one does it, and the others wait.

    Returns
    -------
    before
        The version before; `None` if there were no tables.

    Raises
    ------
    RepositoryError
        If the tables are newer than this program.
    StoreError
        If the database does not answer.
    """
    with database.setting_up(engine, "ledger: upgrade") as connection:
        before = _version(connection)
        if before is not None:
            _refuse_newer(before)
        if before != VERSIONS[-1]:
            _run_scripts(connection, before)
        return before


def version(engine: Engine) -> str | None:
    """Return the version of the tables; `None` if there are none.

    Raises
    ------
    StoreError
        If the database does not answer.
    """
    with database.reading(engine, "ledger: version") as connection:
        return _version(connection)


def _version(connection: Connection) -> str | None:
    tables = inspect(connection).get_table_names()
    if VERSION_TABLE in tables:
        return str(connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar_one())  # noqa: S608 (a constant)
    return _UNNUMBERED if DETECTOR_VISITS.name in tables else None


def _refuse_newer(found: str) -> None:
    if found not in VERSIONS:
        raise RepositoryError(
            f"ledger: the tables have version {found}, newer than this program ({VERSIONS[-1]}); "
            f"use the program that did: {_COMMAND}"
        )


def _run_scripts(connection: Connection, before: str | None) -> None:
    # Alembic is slow to import, and rarely needed.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config(attributes={"connection": connection})
    folder = str(Path(__file__).parent / "migrations")
    config.set_main_option("script_location", folder.replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    with _ALEMBIC:
        if before is not None:
            command.stamp(config, before)
        command.upgrade(config, VERSIONS[-1])
