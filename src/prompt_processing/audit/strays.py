"""What stands in the stores though nothing has decided it, and what several decisions have in common."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from prompt_processing.audit.effects import LookUp, versions_in
from prompt_processing.audit.evidence import RAW, Decided, Evidence, identifiers
from prompt_processing.audit.findings import Finding, Kind, name, some
from prompt_processing.domain.visit import DetectorVisitKey


def strays(evidence: Evidence, look_up: LookUp) -> Iterator[Finding]:
    """Yield everything that no decision has made, and what is decided more than once.

    Parameters
    ----------
    evidence
        The night.
    look_up
        Its rows, sorted.
    """
    yield from _decided_twice(evidence)
    yield from _rows(evidence, look_up)
    yield from _versions(evidence, look_up)
    yield from _alerts(evidence)
    yield from _products(evidence)
    yield from _metrics(evidence)


def _decided_twice(evidence: Evidence) -> Iterator[Finding]:
    """Yield what must be in one decision only, and is in several: an exposure, a raw, an alert, a source."""
    makers: dict[tuple[str, Any], set[DetectorVisitKey]] = defaultdict(set)
    for key, decided in evidence.decisions.items():
        for what in _own(decided):
            makers[what].add(key)
    shared: dict[tuple[str, tuple[DetectorVisitKey, ...]], list[Any]] = defaultdict(list)
    for (kind, value), keys in makers.items():
        if len(keys) > 1:
            shared[kind, tuple(sorted(keys))].append(value)
    for (kind, (first, *others)), values in shared.items():
        text = f"{kind} {some(values)} also in the decision on {some(map(name, others))}"
        yield Finding(Kind.DUPLICATED, name(first), text)


def _own(decided: Decided) -> Iterator[tuple[str, Any]]:
    """Yield everything that only one decision may hold."""
    info = decided.info
    yield "exposure", f"{info.instrument} {info.exposure} detector {info.detector}"
    yield "visit", f"{info.instrument} {info.visit} detector {info.detector}"
    for raw in info.raws:
        yield "raw", raw
    for number, _ in decided.packets:
        yield "alert", number
    for number in decided.tables["DiaSource"]["diaSourceId"]:
        yield "DiaSource", int(number)


def _rows(evidence: Evidence, look_up: LookUp) -> Iterator[Finding]:
    known = {(decided.info.visit, decided.info.detector) for decided in evidence.decisions.values()}
    for table, by_visit in look_up.measurements.items():
        for (visit, detector), rows in by_visit.items():
            if (visit, detector) not in known:
                text = f"{table}: {len(rows)} rows that no decision has made"
                yield Finding(Kind.DUPLICATED, f"APDB visit {visit} detector {detector}", text)


def _versions(evidence: Evidence, look_up: LookUp) -> Iterator[Finding]:
    decided = {
        version
        for decision in evidence.decisions.values()
        for version in versions_in(decision.tables["DiaObject"])
    }
    by_time: dict[float, list[int]] = defaultdict(list)
    for number, start in sorted(look_up.versions - decided):
        by_time[start].append(number)
    for start, numbers in sorted(by_time.items()):
        text = f"{len(numbers)} versions that no decision has made: {some(numbers)}"
        yield Finding(Kind.DUPLICATED, f"APDB DiaObject at MJD {start:.6f}", text)


def _alerts(evidence: Evidence) -> Iterator[Finding]:
    decided = {number for decision in evidence.decisions.values() for number, _ in decision.packets}
    unknown = sorted(evidence.archived.keys() - decided)
    if unknown:
        text = f"{len(unknown)} alerts that no decision has made: {some(unknown)}"
        yield Finding(Kind.DUPLICATED, "alert archive", text)


def _products(evidence: Evidence) -> Iterator[Finding]:
    known = {
        (decided.info.instrument, dimension, value, decided.info.detector)
        for decided in evidence.decisions.values()
        for dimension, values in identifiers(decided.info).items()
        for value in values
    }
    unknown: dict[tuple[str, str, int | str, int], list[str]] = defaultdict(list)
    for product in evidence.products:
        place = (product.instrument, product.type.dimension, product.value, product.detector)
        # Raws are in the central Butler for other reasons too, for example those of templates.
        if product.type != RAW and place not in known:
            unknown[place].append(product.type.name)
    for (instrument, dimension, value, detector), types in unknown.items():
        where = f"central Butler {instrument} {dimension} {value} detector {detector}"
        text = f"{len(types)} products that belong to no decision: {some(sorted(types))}"
        yield Finding(Kind.DUPLICATED, where, text)


def _metrics(evidence: Evidence) -> Iterator[Finding]:
    for key in sorted(evidence.metrics.keys() - evidence.decisions.keys()):
        yield Finding(Kind.METRICS, name(key), "there are metrics, but no decision")
    for text in evidence.damaged_metrics:
        yield Finding(Kind.METRICS, "metrics", text)
