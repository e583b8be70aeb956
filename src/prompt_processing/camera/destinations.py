"""Where the events of a night that is played go."""

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from prompt_processing.config import Settings
from prompt_processing.domain.errors import ConfigError, StoreError
from prompt_processing.messaging.port import Publisher

KINDS: Final = "queue:REPO, pubsub:projects/PROJECT/topics/TOPIC, stdout, none"
"""The kinds of destinations that there are, for messages and help texts."""
_TOPIC: Final = re.compile(r"projects/[^/\s]+/topics/[^/\s]+")


class Lines:
    """A `~prompt_processing.messaging.port.Publisher` that prints a line per message on standard output."""

    def publish(self, bodies: Sequence[str]) -> None:
        """Print messages; see the port."""
        try:
            sys.stdout.writelines(f"{body}\n" for body in bodies)
            sys.stdout.flush()
        except OSError as error:
            raise StoreError(f"standard output: cannot be written: {error}") from error


class Nowhere:
    """A `~prompt_processing.messaging.port.Publisher` that nobody listens to."""

    def publish(self, bodies: Sequence[str]) -> None:
        """Drop messages; see the port."""


def open_destination(where: str, open_queue: Callable[[Path], Publisher]) -> Publisher:
    """Return where events go.

    Parameters
    ----------
    where
        One of `KINDS`.
    open_queue
        Returns where the visit messages of a repository are sent.

    Raises
    ------
    ConfigError
        If there is no destination of this kind, or it lacks its name.
    """
    kind, _, name = where.partition(":")
    match kind:
        case "queue" if name:
            return open_queue(Path(name).resolve())
        case "pubsub" if _TOPIC.fullmatch(name):
            from prompt_processing.messaging.pubsub import PubSubPublisher  # noqa: PLC0415 (not on a laptop)

            return PubSubPublisher(name)
        case "stdout" if where == kind:
            return Lines()
        case "none" if where == kind:
            return Nowhere()
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
    return Settings.load(Path(name) if kind == "queue" else night)
