"""Where the events of a night that is played go."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from prompt_processing.config import Settings
from prompt_processing.domain.errors import ConfigError
from prompt_processing.factory.stores import Stores, open_lines, open_nowhere, open_topic
from prompt_processing.messaging.port import Publisher
from prompt_processing.night.plan import Publish

KINDS: Final = "queue:REPO, pubsub:projects/PROJECT/topics/TOPIC, kafka:REPO, stdout, none"
"""The kinds of destinations that there are, for messages and help texts."""
_TOPIC: Final = re.compile(r"projects/[^/\s]+/topics/[^/\s]+")


def open_destination(where: str) -> Callable[[Publish], None]:
    """Return what makes events known: as the messages of each, or on Kafka, as the observatory does it.

    Parameters
    ----------
    where
        One of `KINDS`.

    Raises
    ------
    ConfigError
        If there is no destination of this kind, or it lacks its name.
    """
    kind, _, name = where.partition(":")
    if kind == "kafka" and name:
        return _kafka(Settings.load(Path(name).resolve()))
    publisher = _publisher(where)
    return lambda action: publisher.publish(action.bodies)


def _kafka(settings: Settings) -> Callable[[Publish], None]:
    # Not for those who have no Kafka.
    from prompt_processing.messaging.kafka import KafkaWriter, connection, open_registry  # noqa: PLC0415
    from prompt_processing.night.sal_events import SalEvents  # noqa: PLC0415

    client = connection(settings.kafka)
    events = SalEvents(
        open_registry(settings.kafka),
        visits=KafkaWriter(client, settings.bridge.visits_topic),
        cancellations=KafkaWriter(client, settings.bridge.cancel_topic),
    )
    return lambda action: events.announce(action.event)


def _publisher(where: str) -> Publisher:
    kind, _, name = where.partition(":")
    match kind:
        case "queue" if name:
            return Stores.open(Path(name).resolve()).publisher
        case "pubsub" if _TOPIC.fullmatch(name):
            return open_topic(name)
        case "stdout" if where == kind:
            return open_lines()
        case "none" if where == kind:
            return open_nowhere()
    raise ConfigError(f"events cannot go to {where!r}; there is {KINDS}")


def settings_for(where: str, night: Path) -> Settings:
    """Return the settings of those who process the events.

    Parameters
    ----------
    where
        Where events go.
    night
        Folder of the night. It has no settings of its own: without a repository, those of the environment
        hold.

    Raises
    ------
    ConfigError
        If a setting is wrong.
    """
    kind, _, name = where.partition(":")
    return Settings.load(Path(name) if kind in {"queue", "kafka"} else night)
