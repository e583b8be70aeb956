"""Opens the stores of a repository from its settings: for those who need one of them and no worker."""

# A command that shows a ledger must not wait for the LSST middleware, astropy and pandas: what needs them
# imports them itself.
# ruff: noqa: PLC0415

from pathlib import Path
from typing import TYPE_CHECKING

from prompt_processing.config import RepositorySettings, Settings
from prompt_processing.ledger import schema
from prompt_processing.ledger.sql import SqlLedger
from prompt_processing.repository.central import require_repository
from prompt_processing.storage import database

if TYPE_CHECKING:
    from prompt_processing.delivery.decisions import DecisionStore
    from prompt_processing.messaging.port import Publisher
    from prompt_processing.selection.override import Overrides
    from prompt_processing.selection.selection import Selection


def open_ledger(repo: Path) -> SqlLedger:
    """Open the ledger of a repository.

    Raises
    ------
    RepositoryError
        If there is no repository.
    """
    return SqlLedger(database.engine(_places(repo).ledger_url))


def find_ledger(repo: Path) -> SqlLedger | None:
    """Open the ledger of a repository, `None` if there is none yet: looking must not make one.

    Raises
    ------
    RepositoryError
        If there is no repository.
    """
    places = _places(repo)
    return SqlLedger(database.engine(places.ledger_url)) if places.may_have_ledger() else None


def open_decisions(repo: Path) -> "DecisionStore":
    """Open the decisions of a repository.

    Raises
    ------
    RepositoryError
        If there is no repository.
    """
    from prompt_processing.delivery.decisions import DecisionStore
    from prompt_processing.storage import object_store

    return DecisionStore(object_store.root(_places(repo).decisions))


def open_queue(repo: Path) -> "Publisher":
    """Return where the visit messages of a repository are sent.

    Raises
    ------
    RepositoryError
        If there is no repository.
    """
    require_repository(repo)
    return open_publisher(Settings.load(repo))


def open_publisher(settings: Settings) -> "Publisher":
    """Return where visit messages are sent: a topic of Pub/Sub, or the SQL queue."""
    if settings.pubsub.topic:
        from prompt_processing.messaging.pubsub import PubSubPublisher

        return PubSubPublisher(settings.pubsub.topic)
    from prompt_processing.messaging.sql import SqlQueue

    return SqlQueue(database.engine(settings.repository.queue_url))


def upgrade_ledger(repo: Path) -> tuple[str | None, str]:
    """Bring the ledger of a repository to the version of this program.

    Returns
    -------
    before, after
        The versions; `None` if there was no ledger.

    Raises
    ------
    RepositoryError
        If there is no repository, or its ledger is newer than this program.
    """
    return schema.upgrade(database.engine(_places(repo).ledger_url)), schema.VERSIONS[-1]


def _places(repo: Path) -> RepositorySettings:
    """Return where things are kept; a database is not made by looking at a folder that is no repository."""
    require_repository(repo)
    return Settings.load(repo).repository


def open_selection(repo: Path) -> "Selection":
    """Read and check the rules that choose the pipelines of a repository's visits.

    Raises
    ------
    ConfigError
        If something is wrong with them; the message names file and line.
    """
    from prompt_processing.selection.selection import Selection

    settings = Settings.load(repo).pipelines
    file = settings.find(settings.selection, repo)
    return Selection.load(file, lambda name: settings.find(name, repo), settings.deployment)


def open_overrides(repo: Path) -> "Overrides":
    """Open what operators have said about the choice of pipelines.

    Raises
    ------
    RepositoryError
        If there is no repository.
    """
    from prompt_processing.selection.override import Overrides
    from prompt_processing.storage import object_store

    return Overrides(object_store.root(_places(repo).overrides))
