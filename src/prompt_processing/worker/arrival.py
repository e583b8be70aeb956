"""Noting a raw that arrived: its pointer for whoever waits, and the ledger for whoever asks later."""

from prompt_processing.arrivals.pointers import Arrivals, detector_number
from prompt_processing.domain.raws import parse_raw_key
from prompt_processing.domain.visit import DetectorVisitKey
from prompt_processing.ledger.port import Ledger


def note_arrival(key: str, arrivals: Arrivals, ledger: Ledger) -> None:
    """Write the pointer of a raw and note it in the ledger; safe to repeat.

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
    if raw is not None and pointer is not None:
        visit = DetectorVisitKey(raw.instrument, pointer.group, detector_number(raw))
        ledger.record_arrival(visit, pointer)
