"""Messages as lines of text."""

import sys
from collections.abc import Mapping, Sequence

from prompt_processing.domain.errors import StoreError
from prompt_processing.messaging.port import NO_ORIGIN


class Lines:
    """A `~prompt_processing.messaging.port.Publisher` that prints a line per message on standard output."""

    def publish(self, bodies: Sequence[str], origin: Mapping[str, str] = NO_ORIGIN) -> None:  # noqa: ARG002 (not printed)
        """Print messages; see the port."""
        try:
            sys.stdout.writelines(f"{body}\n" for body in bodies)
            sys.stdout.flush()
        except OSError as error:
            raise StoreError(f"standard output: cannot be written: {error}") from error


class Nowhere:
    """A `~prompt_processing.messaging.port.Publisher` that nobody listens to."""

    def publish(self, bodies: Sequence[str], origin: Mapping[str, str] = NO_ORIGIN) -> None:
        """Drop messages; see the port."""
