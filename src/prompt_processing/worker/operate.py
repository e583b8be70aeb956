"""What an operator may do with a detector-visit by hand."""

from typing import Final

from prompt_processing.domain.errors import GivenUpError, OperationError
from prompt_processing.domain.outcome import Delivery, Outcome, Status
from prompt_processing.ledger.port import Claim, DetectorVisitRecord, Ledger
from prompt_processing.messaging.port import Publisher

OPERATOR: Final = "operator"
"""Owner of the claims that are made by hand."""


def select(ledger: Ledger, group: str, detector: int | None) -> list[DetectorVisitRecord]:
    """Return the detector-visits of a group, or that of one detector.

    Raises
    ------
    OperationError
        If there is none.
    StoreError
        If the ledger does not answer.
    """
    found = [
        record
        for record in ledger.detector_visits(group=group)
        if detector is None or record.visit.detector == detector
    ]
    if not found:
        where = group if detector is None else f"{group}, detector {detector}"
        raise OperationError(f"{where}: no worker has ever heard of this visit")
    return found


def retry(
    ledger: Ledger, publisher: Publisher, record: DetectorVisitRecord, *, dry_run: bool = False
) -> None:
    """Let a detector-visit be processed again that was skipped or has failed, or that is queued.

    Raises
    ------
    OperationError
        If it is processed (what was decided stands), or somebody is working on it.
    StoreError
        If the ledger or the queue does not answer.
    """
    _refuse_in_work(record)
    if record.outcome is not None and record.outcome.status is Status.PROCESSED:
        raise OperationError(f"{name(record)} is processed, and what was decided stands")
    if not dry_run:
        ledger.reopen(record.visit.key)
        publisher.publish([record.visit.model_dump_json()])


def give_up(ledger: Ledger, record: DetectorVisitRecord, why: str, *, dry_run: bool = False) -> None:
    """End a detector-visit that has no outcome, and that nobody is working on.

    Raises
    ------
    OperationError
        If it has an outcome, or somebody is working on it.
    StoreError
        If the ledger does not answer.
    """
    _refuse_in_work(record)
    if record.outcome is not None:
        raise OperationError(f"{name(record)} has an outcome already: {record.outcome}")
    if dry_run:
        return
    message = Delivery(record.message_id, record.visit.model_dump_json())
    claim = ledger.claim(record.visit, message, owner=OPERATOR)
    if not isinstance(claim, Claim):
        raise OperationError(f"{name(record)} was taken up by a worker just now")
    ledger.record_outcome(claim, Outcome.failed(GivenUpError(f"by the operator: {why}")))


def name(record: DetectorVisitRecord) -> str:
    """Return the name of a detector-visit for a person."""
    key = record.visit.key
    return f"{key.group} {key.instrument} detector {key.detector}"


def _refuse_in_work(record: DetectorVisitRecord) -> None:
    if record.working is not None:
        raise OperationError(f"{name(record)} is being worked on by {record.working}")
