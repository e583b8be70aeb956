"""The evidence of a night, from the stores of a repository. Nothing is written."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prompt_processing.audit.central import pipeline_products, products
from prompt_processing.audit.evidence import TABLES, Claimed, Decided, Evidence, fingerprint
from prompt_processing.audit.landing import raws
from prompt_processing.audit.metrics import metrics
from prompt_processing.config import RepositorySettings, Settings
from prompt_processing.delivery.archive import AlertArchive
from prompt_processing.domain.clock import mjd_tai
from prompt_processing.domain.decision import ENDING, decision_path
from prompt_processing.domain.errors import PromptError, RawError, RepositoryError
from prompt_processing.domain.ids import (
    CONTROLLERS,
    RANK_BITS,
    ObservationNumber,
    detector_exposure_id,
    exposure_id,
    source_id,
)
from prompt_processing.domain.raws import unescape_group
from prompt_processing.domain.visit import DetectorVisit, DetectorVisitKey, parse_event
from prompt_processing.factory.stores import Stores
from prompt_processing.instruments.detector_map import DetectorMap
from prompt_processing.instruments.fan_out import Active, detector_visits
from prompt_processing.instruments.ingest import day_timespan
from prompt_processing.ledger.nights import every
from prompt_processing.ledger.sql import SqlLedger
from prompt_processing.storage import object_store

EVENTS: Final = "events.jsonl"
"""File of the events in the folder of a night."""

# 15 bits of a source's number are its sequence number in the day, 8 are its detector.
_SOURCES_OF_DAY: Final = 1 << (15 + 8 + RANK_BITS)


@dataclass(frozen=True, slots=True)
class Expected:
    """What the events of a night announce."""

    visits: dict[DetectorVisitKey, DetectorVisit]
    not_observed: tuple[str, ...]
    """Lines that are no event, and events that cannot be observed, each with what is wrong."""

    @property
    def days(self) -> tuple[int, ...]:
        """The observing days, as YYYYMMDD, in order."""
        return tuple(sorted({visit.day_obs for visit in self.visits.values()}))


def collect(repo: Path, events: Path) -> Evidence:
    """Gather the evidence of the observing days of some events.

    Parameters
    ----------
    repo
        Folder of the repository.
    events
        File with one ``nextVisit`` event per line, or the folder of a night that has it as ``events.jsonl``.

    Raises
    ------
    RepositoryError
        If there is no repository, or the events cannot be read, or announce nothing.
    StoreError
        If a store does not answer.
    """
    settings = Settings.load(repo)
    file = events / EVENTS if events.is_dir() else events
    active = DetectorMap(settings.instruments).active()
    expected = read_expected(file, active)
    places = settings.repository
    stores = Stores.open(repo)
    central = stores.central
    ledger = _ledger(stores)
    days = expected.days
    # First the count, then the list: a visit that comes in between cannot look like a second outcome.
    n_outcomes = sum(count for day in days for count in ledger.counts(day).values())
    records = [record for day in days for record in every(ledger, day)]
    claims = tuple(Claimed.of(record) for record in records)
    subjects = {record.visit.key: record.visit for record in records} | expected.visits
    decisions, damaged = _decisions(stores, subjects)
    begin, end = (mjd_tai(day_timespan(day).begin) for day in (days[0], days[-1]))
    end += 1.0
    apdb = stores.apdb
    instruments = sorted({key.instrument for key in subjects})
    found, unreadable = products(central, instruments, days)
    measured, damaged_metrics = metrics(places, instruments, days)
    arrived, damaged_pointers = raws(places, ledger.arrivals(), subjects, instruments, days, active)
    return Evidence(
        expected=frozenset(expected.visits),
        not_observed=expected.not_observed,
        claims=claims,
        surplus_outcomes=n_outcomes - len(records),
        decisions=decisions,
        damaged_decisions=damaged,
        rows={table: apdb.rows(table, begin, end) for table in TABLES},
        begin=begin,
        archived=_archived(stores.archive, decisions.values(), days),
        pipelines=pipeline_products(central, stores.selection, stores.overrides, instruments),
        products=found,
        unreadable_products=unreadable,
        metrics=measured,
        damaged_metrics=damaged_metrics,
        raws=arrived,
        damaged_pointers=damaged_pointers,
    )


def read_expected(file: Path, active: Active | None = None) -> Expected:
    """Read events and return the detector-visits that they announce; a repeated event counts once.

    Parameters
    ----------
    file
        One event per line.
    active
        Detectors that are processed, by instrument, as in `~prompt_processing.instruments.fan_out`.

    Raises
    ------
    RepositoryError
        If the file cannot be read, or no event of it announces anything.
    """
    try:
        lines = file.read_bytes().split(b"\n")
    except OSError as error:
        raise RepositoryError(f"{file}: cannot be read: {error}") from error
    visits: dict[DetectorVisitKey, DetectorVisit] = {}
    problems = []
    for number, line in enumerate(lines, start=1):
        try:
            found = detector_visits(parse_event(line), active) if line.strip() else []
        except PromptError as error:
            problems.append(f"{file.name} line {number}: {error}")
        else:
            visits |= {visit.key: visit for visit in found}
    if not visits:
        reason = f" ({problems[0]})" if problems else ""
        raise RepositoryError(f"{file}: no event announces a visit{reason}")
    return Expected(visits, tuple(problems))


def _ledger(stores: Stores) -> SqlLedger:
    places = stores.settings.repository
    # Opening would make an empty one, and with it a night in which everything is lost.
    if not places.may_have_ledger():
        raise RepositoryError(f"{places.ledger}: there is no ledger")
    return stores.ledger


def _decisions(
    stores: Stores, subjects: Mapping[DetectorVisitKey, DetectorVisit]
) -> tuple[dict[DetectorVisitKey, Decided], dict[DetectorVisitKey, str]]:
    """Return the decisions of the night, and why some cannot be read.

    The folders of its days are listed, because there may be decisions on visits that are not known. Those
    of its visits are also looked for under the neighbouring day and the keys of earlier versions.
    """
    store = stores.decisions
    listed = dict(_listed(stores.settings.repository, subjects.values()))
    decided, damaged = {}, {}
    for key in {*subjects, *listed}:
        try:
            path = listed.get(key)
            decision = store.find(subjects[key]) if path is None else store.read(path)
            if decision is not None:
                decided[key] = Decided.of(decision)
        except RepositoryError as error:
            damaged[key] = str(error)
    return decided, damaged


def _listed(
    places: RepositorySettings, visits: Iterable[DetectorVisit]
) -> Iterator[tuple[DetectorVisitKey, str]]:
    """Yield the detector-visits that have a decision under the days of some visits, with its key."""
    decisions = object_store.root(places.decisions)
    for instrument, day in sorted({(visit.instrument, visit.day_obs) for visit in visits}):
        folder = f"{instrument}/{day}"
        for name in object_store.list_after(object_store.root(object_store.child(decisions, folder))):
            parts = name.removesuffix(ENDING).split("/")
            if len(parts) != 2 or not parts[1].isdecimal():
                continue
            try:
                key = DetectorVisitKey(instrument, unescape_group(parts[0]), int(parts[1]))
            except RawError:
                continue
            if decision_path(instrument, day, key.group, key.detector) == f"{folder}/{name}":
                yield key, f"{folder}/{name}"


def _archived(
    archive: AlertArchive, decisions: Iterable[Decided], days: Iterable[int]
) -> dict[int, str | None]:
    """Return the fingerprint of each alert that was decided or has a number of these days."""
    decided = {number for decision in decisions for number, _ in decision.packets}
    spans = [span for day in days for span in _source_ids(day)]
    return {
        number: _read(archive, number)
        for number in archive.ids()
        if number in decided or any(number in span for span in spans)
    }


def _source_ids(day_obs: int) -> Iterator[range]:
    """Yield the numbers that sources of an observing day may have, for each controller."""
    for controller in CONTROLLERS:
        first = exposure_id(ObservationNumber(day_obs, 0, controller))
        start = source_id(detector_exposure_id(first, 0), 0)
        yield range(start, start + _SOURCES_OF_DAY)


def _read(archive: AlertArchive, number: int) -> str | None:
    try:
        return fingerprint(archive.read(number))
    except RepositoryError:
        return None
