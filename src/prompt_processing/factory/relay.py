"""What is plugged into what in a relay: it needs neither Butler nor APDB."""

from pathlib import Path

from prompt_processing.config import Settings
from prompt_processing.delivery.relay import Relay
from prompt_processing.delivery.relay_metrics import RelayMetrics
from prompt_processing.domain.clock import NightClock, WallClock
from prompt_processing.factory.stores import Stores


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
    offset = settings.worker.clock_offset_s
    clock = NightClock(offset) if offset else WallClock()
    stores = Stores(repo, settings, clock)
    metrics = RelayMetrics(stores.ledger)
    relay = Relay(
        ledger=stores.ledger,
        decisions=stores.decisions,
        alerts=stores.alerts,
        metrics=stores.metrics,
        clock=clock,
        on_try=metrics.on_try,
    )
    return relay, metrics
