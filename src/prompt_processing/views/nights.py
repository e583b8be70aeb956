"""What became of the detector-visits of a night, from the ledger alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from prompt_processing.domain.outcome import StageTimes, Status
from prompt_processing.ledger.port import DetectorVisitRecord, Ledger, NightSummary

ALERTS_STAGE: Final = "alerts"
"""Stage at whose end the alerts are out: where the latency ends."""


@dataclass(frozen=True, slots=True)
class VisitSummary:
    """One visit on one detector."""

    instrument: str
    group: str
    detector: int
    visit: int | None
    """Number of the visit; None if nothing was decided, or the ledger does not know it."""
    status: str
    """``processed``, ``skipped``, ``failed``, or while there is no outcome ``working`` or ``queued``."""
    reason: str | None
    detail: str
    flags: tuple[str, ...]
    n_alerts: int | None
    """None if the ledger does not know it: the visit was decided by an earlier version."""
    attempts: int
    stages: Mapping[str, float]
    """Wall time of each stage of the last attempt [s], in the order they ran."""
    latency_s: float | None
    """From shutter close to the alerts being out, or to the end of a visit without alerts [s]."""
    shutter_close_s: float | None
    """When the shutter closed, counted from the start of the first stage [s]; None if that is not known."""


@dataclass(frozen=True, slots=True)
class NightStatus:
    """What became of a night."""

    day_obs: int
    """The night, YYYYMMDD."""
    summary: NightSummary
    visits: tuple[VisitSummary, ...]
    """The first detector-visits of the night."""

    @property
    def total(self) -> int:
        """Number of detector-visits of the night."""
        return sum(self.summary.counts.values())


def night_status(ledger: Ledger, day_obs: int | None, limit: int) -> NightStatus | None:
    """Return what became of a night.

    Parameters
    ----------
    ledger
        The ledger.
    day_obs
        The night, YYYYMMDD; `None`: the newest one.
    limit
        How many detector-visits are shown.

    Returns
    -------
    status
        `None` if there is no detector-visit at all.

    Raises
    ------
    StoreError
        If the ledger does not answer.
    """
    night = ledger.newest_night() if day_obs is None else day_obs
    if night is None:
        return None
    records = ledger.night(night, limit=limit).records
    return NightStatus(night, ledger.summary(night), tuple(map(summarise_visit, records)))


def summarise_visit(record: DetectorVisitRecord) -> VisitSummary:
    """Return what lists show of a detector-visit."""
    key, outcome, times, decision = record.visit.key, record.outcome, record.times, record.decision
    return VisitSummary(
        instrument=key.instrument,
        group=key.group,
        detector=key.detector,
        visit=None if decision is None else decision.visit_id,
        status=_status(record),
        reason=None if outcome is None else outcome.reason,
        detail="" if outcome is None else outcome.detail,
        flags=() if outcome is None else outcome.flags,
        n_alerts=_n_alerts(record),
        attempts=len(record.attempts),
        stages=dict(times.seconds),
        latency_s=times.latency,
        shutter_close_s=_shutter_close(times),
    )


def may_have_alerts(record: DetectorVisitRecord) -> bool:
    """Tell whether alerts of a detector-visit were sent, as far as the ledger knows."""
    sent = is_processed(record) or ALERTS_STAGE in record.steps
    return sent and (record.decision is None or record.decision.n_alerts > 0)


def is_processed(record: DetectorVisitRecord) -> bool:
    """Tell whether a detector-visit was processed."""
    return record.outcome is not None and record.outcome.status is Status.PROCESSED


def _n_alerts(record: DetectorVisitRecord) -> int | None:
    if record.decision is not None:
        return record.decision.n_alerts
    return None if is_processed(record) or "decision" in record.steps else 0


def _status(record: DetectorVisitRecord) -> str:
    if record.outcome is not None:
        return str(record.outcome.status)
    return "queued" if record.working is None else "working"


def _shutter_close(times: StageTimes) -> float | None:
    """Return when the shutter closed, counted from the start of the first stage [s]."""
    if times.latency is None or ALERTS_STAGE not in times.seconds:
        return None
    names = list(times.seconds)
    until_alerts = names[: names.index(ALERTS_STAGE) + 1]
    return sum(times.seconds[name] for name in until_alerts) - times.latency
