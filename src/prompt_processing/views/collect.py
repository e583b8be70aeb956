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
from prompt_processing.domain.raws import parse_raw_key
from prompt_processing.images.dia_flags import DISQUALIFYING_FLAGS
from prompt_processing.ledger.nights import every
from prompt_processing.ledger.port import DetectorVisitRecord
from prompt_processing.ledger.sql import SqlLedger
from prompt_processing.storage import database, object_store
from prompt_processing.views.alerts import AlertSummary, alerts_of, cutouts, read_alert, summarise
from prompt_processing.views.assess import Assessment, Measured, assess
from prompt_processing.views.nights import VisitSummary, summarise_visit
from prompt_processing.views.truth import read_truth

MAX_STAMPS: Final = 24
"""Alerts shown with their pictures."""


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


def collect(repo: Path, night: Path | None = None, *, day_obs: int | None = None) -> NightReport:
    """Gather what is known of a night of a repository.

    Parameters
    ----------
    repo
        Folder of the repository.
    night
        Folder of the night; if it has a truth, the alerts are compared with it.
    day_obs
        Observing day, YYYYMMDD; the newest one by default.

    Raises
    ------
    PromptError
        If something in the repository cannot be read.
    """
    settings = Settings.load(repo)
    places = settings.repository
    ledger = _ledger(places)
    if ledger is not None and day_obs is None:
        day_obs = ledger.newest_night()
    records = [] if ledger is None or day_obs is None else list(every(ledger, day_obs))
    visits = [summarise_visit(record) for record in records]
    alerts, groups = _alerts(places, records)
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
        best=_best(places, alerts),
        alerts=tuple(alerts),
        assessment=assessment,
        light_curve=_light_curve(settings, alerts),
        images_without_visit=_images_without_visit(ledger, day_obs),
    )


def _alerts(
    places: RepositorySettings, records: Sequence[DetectorVisitRecord]
) -> tuple[list[AlertSummary], dict[int, str]]:
    """Return the alerts of detector-visits, without pictures, and the group of each visit that has some."""
    decisions = DecisionStore(object_store.root(places.decisions))
    alerts, groups = [], {}
    for record, alert in alerts_of(records, decisions):
        alerts.append(summarise(alert, frozenset(DISQUALIFYING_FLAGS)))
        groups[alerts[-1].visit] = record.visit.groupId
    return alerts, groups


def _ledger(places: RepositorySettings) -> SqlLedger | None:
    """Return the ledger, None if there is none yet."""
    if not places.may_have_ledger():
        return None
    return SqlLedger(database.engine(places.ledger_url))


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


def _images_without_visit(ledger: SqlLedger | None, day_obs: int | None) -> tuple[str, ...]:
    """Return the keys of raws of a night that belong to no announced visit; of all nights without a night."""
    if ledger is None:
        return ()
    keys = [arrival.pointer.key for arrival in ledger.arrivals(without_visit=True)]
    raws = ((key, parse_raw_key(key)) for key in keys)
    return tuple(key for key, raw in raws if day_obs is None or raw is None or raw.day_obs == day_obs)


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
