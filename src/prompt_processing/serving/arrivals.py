"""The arrivals service: notes each raw that appears in the landing store."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog
from lsst.resources import ResourcePath

from prompt_processing.arrivals.events import ObjectEvent, from_google, from_s3
from prompt_processing.config import Settings
from prompt_processing.domain.errors import BadRequestError, PermanentError, RawError
from prompt_processing.domain.raws import parse_raw_key, raws_of_sidecar
from prompt_processing.factory.worker import Factory, night_clock
from prompt_processing.serving.border import NO_CONTENT, Border
from prompt_processing.serving.envelope import S3, Pushed
from prompt_processing.serving.identity import TokenVerifier

_LOG: Final = structlog.get_logger(__name__)


class ArrivalsService:
    """Notes raws by what the object store says of them.

    Parameters
    ----------
    incoming
        Root of the landing store.
    note
        Notes a raw, given its key.
    exists
        Tells whether there is an object of some key.
    """

    def __init__(
        self, incoming: ResourcePath, note: Callable[[str], None], exists: Callable[[str], bool]
    ) -> None:
        self._bucket = incoming.netloc
        above: str = incoming.relativeToPathRoot.strip("/")
        self._prefix = "" if above in {"", "."} else f"{above}/"
        self._note = note
        self._exists = exists

    def handle(self, pushed: Pushed) -> int:
        """Handle a message, and return the status that tells Pub/Sub what became of it.

        A notification says only that it is worth looking: what counts is the object as it is now. So it does
        not matter whether it comes twice, late, out of order, or of an object that is gone.
        """
        try:
            events = from_s3(pushed.data) if pushed.subscription == S3 else from_google(pushed.attributes)
        except BadRequestError as error:
            # It came by our own subscription, and would only come again.
            _LOG.error("message is no notification", message_id=pushed.message_id, error=str(error))
            return NO_CONTENT
        for event in events:
            self._look_at(event)
        return NO_CONTENT

    def _look_at(self, event: ObjectEvent) -> None:
        if event.bucket != self._bucket:
            _LOG.warning("object of another bucket ignored", bucket=event.bucket, key=event.key)
            return
        if not event.key.startswith(self._prefix):
            return
        key = event.key.removeprefix(self._prefix)
        # A sidecar that came after its image may be the one that tells the group.
        for raw in [key] if parse_raw_key(key) else filter(self._exists, raws_of_sidecar(key)):
            try:
                self._note(raw)
            except RawError as error:
                _LOG.error("raw cannot be used", key=raw, error=str(error))
            except PermanentError:
                _LOG.exception("raw not noted", key=raw)


def start_arrivals(repo: Path) -> Border:
    """Return what serves the requests of the arrivals service.

    Parameters
    ----------
    repo
        Folder of the repository.

    Raises
    ------
    ConfigError
        If a setting is wrong.
    StoreError
        If the ledger does not answer.
    """
    settings = Settings.load(repo)
    verifier = TokenVerifier(settings.push, dict(os.environ))
    factory = Factory(repo, night_clock(settings))

    def note(key: str) -> None:
        try:
            factory.note_arrival(key)
        finally:
            # Nothing is listed here, so nothing has to be remembered of all the raws of a season.
            factory.stores.arrivals.forget(key)

    service = ArrivalsService(factory.stores.incoming, note, factory.stores.arrivals.exists)
    _ = (
        factory.stores.ledger,
        factory.stores.publisher,
    )  # wrong settings fail at the start
    return Border(settings.push, verifier, handle=service.handle, is_ready=lambda: True)
