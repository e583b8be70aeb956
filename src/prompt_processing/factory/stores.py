"""Opens the stores of a repository: the only place that picks the adapter behind a port.

A store is opened when it is asked for the first time, and its library is imported then: a command that reads
the ledger imports neither the LSST middleware nor the client of a cloud.
"""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from prompt_processing.config import Settings, check_confidential, reveal
from prompt_processing.domain.errors import ConfigError, RepositoryError

if TYPE_CHECKING:
    from lsst.daf.butler import Butler
    from lsst.resources import ResourcePath

    from prompt_processing.apdb.port import Apdb
    from prompt_processing.arrivals.pointers import Arrivals
    from prompt_processing.delivery.archive import AlertArchive
    from prompt_processing.delivery.decisions import DecisionStore
    from prompt_processing.delivery.port import AlertSink, MetricsSink, ProductSink
    from prompt_processing.domain.clock import Clock
    from prompt_processing.ledger.sql import SqlLedger
    from prompt_processing.messaging.port import HintSource, Publisher, VisitQueue
    from prompt_processing.selection.override import Overrides
    from prompt_processing.selection.selection import Selection

# ruff: noqa: PLC0415 (what nobody asks for is not imported)


class Stores:
    """The stores of one repository, each opened once, when it is first asked for.

    Parameters
    ----------
    repo
        Folder of the repository.
    settings
        Its settings.
    clock
        Clock of the night; the wall clock if it is `None`.
    """

    def __init__(self, repo: Path, settings: Settings, clock: "Clock | None" = None) -> None:
        self.settings = settings
        self._repo = repo
        self._clock = clock

    @classmethod
    def open(cls, repo: Path, clock: "Clock | None" = None) -> "Stores":
        """Return the stores of a repository that exists.

        Parameters
        ----------
        repo
            Folder of the repository.
        clock
            Clock of the night; the wall clock if it is `None`.

        Returns
        -------
        stores
            Its stores. No database has been made by looking.

        Raises
        ------
        ConfigError
            If a setting is wrong.
        RepositoryError
            If there is no repository.
        """
        from prompt_processing.repository.central import require_repository

        require_repository(repo)
        return cls(repo, Settings.load(repo), clock)

    @cached_property
    def central(self) -> "Butler":
        """Central Butler, for reading."""
        from prompt_processing.repository.central import open_central

        return open_central(self._repo, writeable=False)

    @cached_property
    def writeable_central(self) -> "Butler":
        """Central Butler, for what writes products."""
        from prompt_processing.repository.central import open_central

        return open_central(self._repo)

    @cached_property
    def incoming(self) -> "ResourcePath":
        """Landing store."""
        return _place(self.settings.repository.incoming)

    @cached_property
    def ledger(self) -> "SqlLedger":
        """Ledger."""
        from prompt_processing.ledger.sql import SqlLedger
        from prompt_processing.storage import database

        return SqlLedger(database.engine(self.settings.repository.ledger_url))

    @property
    def existing_ledger(self) -> "SqlLedger | None":
        """Ledger; `None` if there is none yet: looking must not make one."""
        return self.ledger if self.settings.repository.may_have_ledger() else None

    @cached_property
    def apdb(self) -> "Apdb":
        """APDB."""
        from prompt_processing.apdb.sql import SqlApdb

        return SqlApdb(self.settings.apdb.database_url, months=self.settings.worker.history_months)

    @cached_property
    def decisions(self) -> "DecisionStore":
        """Decisions."""
        from prompt_processing.delivery.decisions import DecisionStore

        return DecisionStore(_place(self.settings.repository.decisions))

    @cached_property
    def archive(self) -> "AlertArchive":
        """Alert archive, which can be read too."""
        from prompt_processing.delivery.archive import AlertArchive

        return AlertArchive(_place(self.settings.repository.alerts))

    @property
    def alerts(self) -> "AlertSink":
        """Where alerts are sent."""
        return self.archive

    @cached_property
    def metrics(self) -> "MetricsSink":
        """Where metrics are sent."""
        from prompt_processing.delivery.metrics import FolderMetrics

        return FolderMetrics(_place(self.settings.repository.metrics))

    @cached_property
    def products(self) -> "ProductSink":
        """Where products are stored."""
        from prompt_processing.delivery.products import ButlerProducts

        return ButlerProducts(self.writeable_central, Path(self.settings.repository.work))

    @cached_property
    def arrivals(self) -> "Arrivals":
        """Arrival pointers of the landing store."""
        from prompt_processing.arrivals.pointers import Arrivals
        from prompt_processing.domain.clock import WallClock

        place = _place(self.settings.repository.arrivals)
        return Arrivals(self.incoming, place, self._clock or WallClock())

    @cached_property
    def publisher(self) -> "Publisher":
        """Where visit messages are sent: a topic of Pub/Sub, or the SQL queue."""
        topic = self.settings.pubsub.topic
        return open_topic(topic) if topic else _sql_queue(self.settings)

    @cached_property
    def queue(self) -> "VisitQueue":
        """Where visit messages come from."""
        settings = self.settings
        if settings.pubsub.subscription:
            from prompt_processing.messaging.pubsub import PubSubQueue

            return PubSubQueue(settings.pubsub.subscription, hidden=settings.pubsub.lease_s)
        from prompt_processing.messaging.sql import SqlQueue
        from prompt_processing.storage import database

        # Hidden as long as a claim holds: whoever gets the message of a dead worker can claim its visit.
        return SqlQueue(database.engine(settings.repository.queue_url), hidden=settings.worker.lease_s)

    @cached_property
    def hints(self) -> "HintSource | None":
        """Hints of arrivals; `None` if there are none."""
        if not self.settings.pubsub.hints:
            return None
        from prompt_processing.messaging.pubsub import PubSubHints

        return PubSubHints(self.settings.pubsub.hints)

    @cached_property
    def overrides(self) -> "Overrides":
        """What operators have said about the choice of pipelines."""
        from prompt_processing.selection.override import Overrides

        return Overrides(_place(self.settings.repository.overrides))

    @cached_property
    def selection(self) -> "Selection":
        """Rules that choose the pipelines, read and checked; a mistake is told with file and line."""
        from prompt_processing.selection.selection import Selection

        pipelines = self.settings.pipelines
        file = pipelines.find(pipelines.selection, self._repo)
        return Selection.load(file, lambda name: pipelines.find(name, self._repo), pipelines.deployment)


def make_databases(repo: Path) -> None:
    """Make APDB and ledger of a repository, unless they are there.

    Parameters
    ----------
    repo
        Folder of the repository.

    Raises
    ------
    RepositoryError
        If there is no repository.
    StoreError
        If a database does not answer.
    """
    from prompt_processing.apdb import sql

    stores = Stores.open(repo)
    try:
        _ = stores.apdb
    except RepositoryError:
        sql.init(stores.settings.apdb.database_url)
    _ = stores.ledger


def upgrade_ledger(repo: Path) -> tuple[str | None, str]:
    """Bring the ledger of a repository to the version of this program.

    Parameters
    ----------
    repo
        Folder of the repository.

    Returns
    -------
    before, after
        The versions; `None` if there was no ledger.

    Raises
    ------
    RepositoryError
        If there is no repository, or its ledger is newer than this program.
    """
    from prompt_processing.ledger import schema
    from prompt_processing.storage import database

    settings = Stores.open(repo).settings
    return schema.upgrade(database.engine(settings.repository.ledger_url)), schema.VERSIONS[-1]


def open_topic(topic: str) -> "Publisher":
    """Return a topic of Pub/Sub, ``projects/P/topics/T``."""
    from prompt_processing.messaging.pubsub import PubSubPublisher

    return PubSubPublisher(topic)


def open_lines() -> "Publisher":
    """Return what prints messages."""
    from prompt_processing.messaging.lines import Lines

    return Lines()


def open_nowhere() -> "Publisher":
    """Return what drops messages."""
    from prompt_processing.messaging.lines import Nowhere

    return Nowhere()


def open_sink(settings: Settings) -> "Publisher":
    """Return where the bridge sends messages; it needs no repository.

    Parameters
    ----------
    settings
        Settings of the bridge.

    Returns
    -------
    sink
        The sink of the setting ``bridge.sink``.

    Raises
    ------
    ConfigError
        If a setting of the sink is missing.
    """
    match settings.bridge.sink:
        case "pubsub":
            return open_topic(_given("pubsub.topic", settings.pubsub.topic))
        case "redis":
            from prompt_processing.messaging.redis import RedisPublisher

            options = settings.redis
            return RedisPublisher(reveal(options.url), stream=options.stream, max_length=options.max_length)
        case "webhook":
            from prompt_processing.messaging.webhook import WebhookPublisher

            hook = settings.webhook
            check_confidential("webhook.url", hook.url, hook.token.get_secret_value())
            return WebhookPublisher(
                _given("webhook.url", hook.url),
                token=reveal(hook.token),
                concurrency=hook.concurrency,
                timeout=hook.timeout_s,
            )
        case "kafka":
            from prompt_processing.messaging.kafka import KafkaPublisher, KafkaWriter, connection

            return KafkaPublisher(KafkaWriter(connection(settings.kafka), settings.bridge.messages_topic))
        case "queue":
            return _sql_queue(settings)
        case "stdout":
            return open_lines()


def _sql_queue(settings: Settings) -> "Publisher":
    from prompt_processing.messaging.sql import SqlQueue
    from prompt_processing.storage import database

    return SqlQueue(database.engine(settings.repository.queue_url))


def _place(uri: str) -> "ResourcePath":
    from prompt_processing.storage import object_store

    return object_store.root(uri)


def _given(name: str, value: str) -> str:
    if not value:
        raise ConfigError(f"{name}: is needed for this bridge.sink, and not given")
    return value
