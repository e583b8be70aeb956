"""What is known of a repository's night, gathered from ledger, decisions, alert archive and APDB."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Final

import pandas as pd

from prompt_processing.apdb.sql import SqlApdb
from prompt_processing.config import RepositorySettings, Settings
from prompt_processing.delivery.decisions import DecisionStore
from prompt_processing.domain.outcome import StageTimes
from prompt_processing.images.dia_flags import DISQUALIFYING_FLAGS
from prompt_processing.ledger.port import DetectorVisitRecord
from prompt_processing.ledger.sql import SqlLedger
from prompt_processing.storage import database, object_store
from prompt_processing.views.alerts import AlertSummary, cutouts, read_alert, read_alerts, summarise
from prompt_processing.views.assess import Assessment, Measured, assess
from prompt_processing.views.truth import read_truth

MAX_STAMPS: Final = 24
"""Alerts shown with their pictures."""
ALERTS_STAGE: Final = "alerts"
"""Stage at whose end the alerts are out: where the latency ends."""


@dataclass(frozen=True, slots=True)
class VisitSummary:
    """One visit on one detector."""

    instrument: str
    group: str
    detector: int
    visit: int | None
    """Number of the visit; None if nothing was decided."""
    status: str
    """``processed``, ``skipped``, ``failed``, or while there is no outcome ``working`` or ``queued``."""
    reason: str | None
    detail: str
    flags: tuple[str, ...]
    n_alerts: int
    attempts: int
    stages: Mapping[str, float]
    """Wall time of each stage of the last attempt [s], in the order they ran."""
    latency_s: float | None
    """From shutter close to the alerts being out, or to the end of a visit without alerts [s]."""
    shutter_close_s: float | None
    """When the shutter closed, counted from the start of the first stage [s]; None if that is not known."""


@dataclass(frozen=True, slots=True)
class Point:
    """One measurement of a light curve."""

    mjd: float
    """TAI [d]."""
    flux: float
    """Difference flux [nJy]."""
    flux_err: float
    """[nJy]"""
    detected: bool
    """Whether it is a detection; else it was forced."""
    visit: int


@dataclass(frozen=True, slots=True)
class ObjectCurve:
    """The light curve of one object."""

    object_id: int
    ra: float
    """[deg]"""
    dec: float
    """[deg]"""
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class NightReport:
    """Everything that the page shows."""

    title: str
    subtitle: str
    repository: str
    night: str | None
    visits: tuple[VisitSummary, ...]
    n_alerts: int
    median_latency_s: float | None
    """From shutter close to the alerts being out [s]."""
    best: tuple[AlertSummary, ...]
    """Alerts of the highest S/N without a disqualifying flag, at most `MAX_STAMPS`, with their pictures."""
    alerts: tuple[AlertSummary, ...]
    """All alerts, without pictures."""
    assessment: Assessment | None
    """Comparison with the truth; None if that is not known."""
    light_curve: ObjectCurve | None
    images_without_visit: tuple[str, ...] = field(default=())
    """Keys of raws that arrived though nobody announced their visit."""


def collect(repo: Path, night: Path | None = None) -> NightReport:
    """Gather what is known of a repository.

    Parameters
    ----------
    repo
        Folder of the repository.
    night
        Folder of the night; if it has a truth, the alerts are compared with it.

    Raises
    ------
    PromptError
        If something in the repository cannot be read.
    """
    settings = Settings.load(repo)
    visits = visits_of(repo)
    groups = {visit.visit: visit.group for visit in visits if visit.visit is not None}
    alerts = alerts_of(settings.repository)
    assessment = _assess(night, visits, alerts, groups)
    if assessment is not None:
        alerts = [replace(alert, truth=assessment.labels.get(alert.id)) for alert in alerts]
    latencies = [
        visit.latency_s for visit in visits if visit.latency_s is not None and visit.status == "processed"
    ]
    return NightReport(
        title=_title(visits),
        subtitle=_subtitle(visits),
        repository=str(repo.absolute()),
        night=str(night.absolute()) if night is not None else None,
        visits=tuple(visits),
        n_alerts=len(alerts),
        median_latency_s=median(latencies) if latencies else None,
        best=_best(settings.repository, alerts),
        alerts=tuple(alerts),
        assessment=assessment,
        light_curve=_light_curve(settings, alerts),
        images_without_visit=_images_without_visit(settings.repository),
    )


def visits_of(repo: Path) -> list[VisitSummary]:
    """Return every visit on every detector that a repository has heard of, in order.

    Raises
    ------
    PromptError
        If the ledger or a decision cannot be read.
    """
    places = Settings.load(repo).repository
    ledger = _ledger(places)
    if ledger is None:
        return []
    decisions = DecisionStore(object_store.root(places.decisions))
    return [_visit(record, decisions) for record in ledger.detector_visits()]


def alerts_of(places: RepositorySettings) -> list[AlertSummary]:
    """Return all alerts of a repository's archive, without pictures, in the order of their ids.

    Raises
    ------
    PromptError
        If an alert cannot be read.
    """
    return [summarise(alert, frozenset(DISQUALIFYING_FLAGS)) for alert in read_alerts(places.alerts)]


def _ledger(places: RepositorySettings) -> SqlLedger | None:
    """Return the ledger, None if there is none yet."""
    if not places.may_have_ledger():
        return None
    return SqlLedger(database.engine(places.ledger_url))


def _visit(record: DetectorVisitRecord, decisions: DecisionStore) -> VisitSummary:
    """Return a visit with what was decided for it."""
    key, outcome, times = record.visit.key, record.outcome, record.times
    decision = decisions.find(key)
    return VisitSummary(
        instrument=key.instrument,
        group=key.group,
        detector=key.detector,
        visit=None if decision is None else decision.info.visit,
        status=_status(record),
        reason=None if outcome is None else outcome.reason,
        detail="" if outcome is None else outcome.detail,
        flags=() if outcome is None else outcome.flags,
        n_alerts=0 if decision is None else len(decision.packets),
        attempts=len(record.attempts),
        stages=dict(times.seconds),
        latency_s=times.latency,
        shutter_close_s=_shutter_close(times),
    )


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


def _assess(
    night: Path | None,
    visits: Sequence[VisitSummary],
    alerts: Sequence[AlertSummary],
    groups: Mapping[int, str],
) -> Assessment | None:
    """Compare the alerts with the truth, if the night has one."""
    truth = None if night is None else read_truth(night)
    if truth is None:
        return None
    measured = [
        Measured(alert.id, groups[alert.visit], alert.ra, alert.dec, alert.flux, alert.disqualified)
        for alert in alerts
        if alert.visit in groups
    ]
    processed = [visit.group for visit in visits if visit.status == "processed"]
    return assess(truth.events, measured, list(dict.fromkeys(processed)), truth.pixel_scale)


def _best(places: RepositorySettings, alerts: Sequence[AlertSummary]) -> tuple[AlertSummary, ...]:
    """Return the alerts of the highest S/N, with their pictures."""
    usable = sorted((alert for alert in alerts if not alert.disqualified), key=lambda alert: -alert.snr)
    return tuple(
        replace(alert, cutouts=cutouts(read_alert(places.alerts, alert.id))) for alert in usable[:MAX_STAMPS]
    )


def _light_curve(settings: Settings, alerts: Sequence[AlertSummary]) -> ObjectCurve | None:
    """Return the light curve of the object with the most alerts, of equal ones the brightest."""
    usable = [alert for alert in alerts if alert.object_id is not None and not alert.disqualified]
    if not usable:
        return None
    counts = Counter(alert.object_id for alert in usable)
    chosen = max(usable, key=lambda alert: (counts[alert.object_id], alert.snr))
    curve = SqlApdb(settings.apdb.database_url).light_curve(int(chosen.object_id or 0))
    points = _points(curve.sources, detected=True)
    seen = {point.visit for point in points}
    points += [point for point in _points(curve.forced, detected=False) if point.visit not in seen]
    points.sort(key=lambda point: point.mjd)
    return ObjectCurve(int(chosen.object_id or 0), chosen.ra, chosen.dec, tuple(points))


def _points(rows: pd.DataFrame, *, detected: bool) -> list[Point]:
    """Return the measurements in rows of the APDB."""
    columns = ("midpointMjdTai", "psfFlux", "psfFluxErr", "visit")
    return [
        Point(float(mjd), float(flux), float(error), detected, int(visit))
        for mjd, flux, error, visit in rows.loc[:, columns].itertuples(index=False)
    ]


def _images_without_visit(places: RepositorySettings) -> tuple[str, ...]:
    """Return the keys of raws whose visit nobody announced."""
    ledger = _ledger(places)
    if ledger is None:
        return ()
    return tuple(arrival.pointer.key for arrival in ledger.arrivals(without_visit=True))


def _title(visits: Sequence[VisitSummary]) -> str:
    """Return the title of the page: instruments and days."""
    if not visits:
        return "No visit yet"
    instruments = ", ".join(dict.fromkeys(visit.instrument for visit in visits))
    days = dict.fromkeys(_day(visit.group) for visit in visits)
    known = [day for day in days if day]
    return f"{instruments}, {known[0]}" if len(known) == 1 else instruments


def _subtitle(visits: Sequence[VisitSummary]) -> str:
    """Return what the page is about, in one line."""
    groups = {visit.group for visit in visits}
    counts = Counter(visit.status for visit in visits)
    outcomes = ", ".join(f"{count} {status}" for status, count in counts.items())
    return f"{len(groups)} visits: {outcomes}" if visits else "Nothing has been played into this repository."


def _day(group: str) -> str | None:
    """Return the date in a group's name, None if it holds none."""
    match = re.match(r"\d{4}-\d\d-\d\d(?=T)", group)
    return match.group() if match else None
