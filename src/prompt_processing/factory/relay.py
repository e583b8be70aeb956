"""What is plugged into what in a relay: it needs neither Butler nor APDB."""

from pathlib import Path

from prompt_processing.config import Settings
from prompt_processing.delivery.archive import AlertArchive
from prompt_processing.delivery.decisions import DecisionStore
from prompt_processing.delivery.metrics import FolderMetrics
from prompt_processing.delivery.relay import Relay
from prompt_processing.delivery.relay_metrics import RelayMetrics
from prompt_processing.domain.clock import NightClock, WallClock
from prompt_processing.ledger.sql import SqlLedger
from prompt_processing.storage import database, object_store


def open_relay(repo: Path) -> tuple[Relay, RelayMetrics]:
    """Open the relay of a repository, and what is measured of it.

    Parameters
    ----------
    repo
        Folder with the settings.

    Raises
    ------
    ConfigError
        If a setting is wrong.
    RepositoryError
        If the ledger has another version than this program.
    StoreError
        If the ledger does not answer.
    """
    settings = Settings.load(repo)
    places, offset = settings.repository, settings.worker.clock_offset_s
    ledger = SqlLedger(database.engine(places.ledger_url))
    metrics = RelayMetrics(ledger)
    relay = Relay(
        ledger=ledger,
        decisions=DecisionStore(object_store.root(places.decisions)),
        alerts=AlertArchive(object_store.root(places.alerts)),
        metrics=FolderMetrics(object_store.root(places.metrics)),
        clock=NightClock(offset) if offset else WallClock(),
        on_try=metrics.on_try,
    )
    return relay, metrics
