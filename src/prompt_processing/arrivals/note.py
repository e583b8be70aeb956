"""Noting a raw that arrived: its pointer for whoever waits, and the ledger for whoever asks later."""

from typing import Final

import structlog

from prompt_processing.arrivals.pointers import Arrivals, detector_number
from prompt_processing.domain.errors import StoreError
from prompt_processing.domain.raws import parse_raw_key
from prompt_processing.domain.visit import DetectorVisitKey
from prompt_processing.ledger.port import Ledger
from prompt_processing.messaging.port import Publisher

_LOG: Final = structlog.get_logger(__name__)


def note_arrival(key: str, arrivals: Arrivals, ledger: Ledger, publisher: Publisher) -> None:
    """Write the pointer of a raw and note it in the ledger; safe to repeat.

    A visit that was given up for want of this image is reopened, and its message is published again. If the
    message gets lost on the way, a sweep finds the visit.

    Parameters
    ----------
    key
        Key in the landing store; one that is no raw is ignored.

    Raises
    ------
    RawError
        If it cannot be told to which visit the raw belongs.
    StoreError
        If a store does not answer.
    """
    raw = parse_raw_key(key)
    pointer = arrivals.record(key)
    if raw is None or pointer is None:
        return
    visit = DetectorVisitKey(raw.instrument, pointer.group, detector_number(raw))
    if pointer.key != key:
        _LOG.warning("a second raw for the same snap is not used", key=key, used=pointer.key)
    try:
        reopened = ledger.record_arrival(visit, pointer)
    except StoreError:
        arrivals.forget(key)
        raise
    if reopened:
        record = ledger.find(visit)
        if record is not None:
            _LOG.info("visit reopened by its image", key=key, **visit._asdict())
            publisher.publish([record.visit.model_dump_json()])
