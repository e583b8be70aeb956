"""Making an empty repository."""

from pathlib import Path

from lsst.daf.butler import Butler
from sqlalchemy import text

from prompt_processing.config import Settings, write_default
from prompt_processing.domain.errors import ConfigError
from prompt_processing.factory.stores import make_databases
from prompt_processing.instruments.butler import make_butler, prepare_butler
from prompt_processing.storage import database, object_store


def create_repository(repo: Path) -> None:
    """Make a repository: settings, central Butler, APDB, ledger and the folders; safe to repeat.

    Parameters
    ----------
    repo
        Folder of the repository; made if needed.

    Raises
    ------
    ConfigError
        If its ``prompt.yaml`` has a setting that is wrong.
    """
    repo.mkdir(parents=True, exist_ok=True)
    write_default(repo)
    places = Settings.load(repo).repository
    for place in (
        places.incoming,
        places.arrivals,
        places.decisions,
        places.alerts,
        places.metrics,
        places.work,
    ):
        _make_place(place)
    if object_store.root(places.butler).join("butler.yaml").exists():
        with Butler.from_config(places.butler, writeable=True) as butler:
            prepare_butler(butler)
    else:
        if places.registry_url:
            _prepare_registry(places.registry_url)
        make_butler(places.butler, places.registry_url)
    make_databases(repo)


def _make_place(place: str) -> None:
    """Make a folder; a bucket must be there."""
    try:
        object_store.root(place).mkdir()
    except ValueError as error:
        raise ConfigError(f"{place}: {error}") from error


def _prepare_registry(url: str) -> None:
    """Add to a PostgreSQL database what the Butler needs there."""
    engine = database.engine(url)
    if engine.dialect.name == "postgresql":
        with database.setting_up(engine, "registry: extension btree_gist") as connection:
            connection.execute(text("CREATE EXTENSION IF NOT EXISTS btree_gist"))
