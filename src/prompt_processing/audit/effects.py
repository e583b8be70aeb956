"""What a decision must have brought about: rows, alerts, products and metrics."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from prompt_processing.apdb.port import row_key
from prompt_processing.apdb.tables import TableName, records
from prompt_processing.audit.evidence import MEASUREMENTS, RAW, Decided, Evidence, Product, identifiers
from prompt_processing.audit.findings import Finding, Kind, name, some
from prompt_processing.domain.visit import DetectorVisitKey

_Rows = dict[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True, slots=True, eq=False)
class LookUp:
    """The rows of the APDB, sorted once for all decisions."""

    measurements: Mapping[TableName, Mapping[tuple[int, int], pd.DataFrame]]
    """Rows of each table by visit and detector."""
    versions: frozenset[tuple[int, float]]
    """``diaObjectId`` and ``validityStartMjdTai`` of every version of an object."""

    @classmethod
    def of(cls, evidence: Evidence) -> "LookUp":
        """Sort the rows."""
        return cls(
            measurements={table: by_visit(evidence.rows[table]) for table in MEASUREMENTS},
            versions=frozenset(versions_in(evidence.rows["DiaObject"])),
        )


def by_visit(frame: pd.DataFrame) -> dict[tuple[int, int], pd.DataFrame]:
    """Return rows by visit and detector."""
    places = set(zip(frame["visit"].tolist(), frame["detector"].tolist(), strict=True))
    parts = frame.groupby(["visit", "detector"])
    return {place: parts.get_group(place) for place in sorted(places)}


def versions_in(objects: pd.DataFrame) -> list[tuple[int, float]]:
    """Return ``diaObjectId`` and ``validityStartMjdTai`` of rows of the DiaObject table."""
    pairs = zip(objects["diaObjectId"], objects["validityStartMjdTai"], strict=True)
    return [(int(number), float(start)) for number, start in pairs]


def effects(
    key: DetectorVisitKey,
    decided: Decided,
    evidence: Evidence,
    look_up: LookUp,
    *,
    complete: bool,
    pending: frozenset[str] = frozenset(),
) -> Iterator[Finding]:
    """Yield where the world differs from a decision.

    Parameters
    ----------
    key
        The detector-visit under whose key the decision is stored.
    decided
        The decision.
    evidence
        The night.
    look_up
        Its rows, sorted.
    complete
        Whether everything must be there, because the ledger says that the detector-visit was processed. Else
        an attempt may have ended anywhere, but not without what comes before in the order of the effects.
    pending
        Effects that the ledger has left to the relay: they are reported as that, and need not be there.
    """
    archived = [number for number, _ in decided.packets if number in evidence.archived]
    products = _products_of(decided, evidence)
    stored = any(evidence.products.get(product) for product in products if product.type != RAW)
    yield from _rows(key, decided, look_up, needed=complete or stored or bool(archived))
    if "alerts" in pending:
        yield Finding(Kind.PENDING, name(key), f"{len(decided.packets)} alerts are left to the relay")
    yield from _alerts(key, decided, evidence, needed=(complete or stored) and "alerts" not in pending)
    yield from _products(key, decided, products, evidence, needed=complete or stored)
    if "metrics" in pending:
        yield Finding(Kind.METRICS, name(key), "the metrics are left to the relay")
    elif complete:
        yield from _metrics(key, decided, evidence)


def _rows(key: DetectorVisitKey, decided: Decided, look_up: LookUp, *, needed: bool) -> Iterator[Finding]:
    """Yield where the APDB differs. Rows are stored in one transaction: if one is there, all must be."""
    place = decided.info.visit, decided.info.detector
    absent: dict[TableName, list[Any]] = {}
    for table in MEASUREMENTS:
        frame = decided.tables[table]
        wanted, standing = _by_key(table, frame), _by_key(table, look_up.measurements[table].get(place))
        needed = needed or bool(wanted.keys() & standing.keys())
        absent[table] = sorted(wanted.keys() - standing.keys())
        if len(wanted) < len(frame):
            yield _mismatch(key, f"{table}: {len(frame) - len(wanted)} rows are decided twice")
        differing = [text for row in wanted if (text := _difference(row, wanted, standing))]
        if differing:
            yield _mismatch(key, f"{table}: the APDB has other values than the decision: {some(differing)}")
        surplus = sorted(standing.keys() - wanted.keys())
        if surplus:
            text = f"{table}: the APDB has rows that were not decided: {_list(surplus)}"
            yield Finding(Kind.DUPLICATED, name(key), text)
    absent["DiaObject"] = sorted(set(versions_in(decided.tables["DiaObject"])) - look_up.versions)
    for table, rows in absent.items():
        if needed and rows:
            yield _mismatch(key, f"{table}: not in the APDB: {_list(rows)}")


def _by_key(table: TableName, frame: pd.DataFrame | None) -> _Rows:
    return {} if frame is None else {row_key(table, row): row for row in records(frame)}


def _difference(row: tuple[Any, ...], wanted: _Rows, standing: _Rows) -> str:
    """Return in which columns a row stands with other values, nothing if it does not."""
    if row not in standing:
        return ""
    names = [column for column, value in wanted[row].items() if standing[row][column] != value]
    if not names:
        return ""
    first = names[0]
    values = f"{first} {standing[row][first]!r} instead of {wanted[row][first]!r}"
    return f"{'/'.join(map(str, row))} ({values}{f', {len(names)} columns' if len(names) > 1 else ''})"


def _list(rows: list[tuple[Any, ...]]) -> str:
    return f"{len(rows)} rows ({some('/'.join(map(str, row)) for row in rows)})"


def _alerts(
    key: DetectorVisitKey, decided: Decided, evidence: Evidence, *, needed: bool
) -> Iterator[Finding]:
    absent = [number for number, _ in decided.packets if number not in evidence.archived]
    if absent and needed:
        yield _mismatch(key, f"{len(absent)} alerts are not in the archive: {some(absent)}")
    found = [(number, wanted, evidence.archived.get(number, wanted)) for number, wanted in decided.packets]
    damaged = [number for number, _, standing in found if standing is None]
    if damaged:
        yield _mismatch(key, f"{len(damaged)} alerts in the archive cannot be read: {some(damaged)}")
    other = [number for number, wanted, standing in found if standing not in {None, wanted}]
    if other:
        yield _mismatch(key, f"{len(other)} alerts in the archive are not those decided: {some(other)}")


def _products_of(decided: Decided, evidence: Evidence) -> list[Product]:
    """Return the products that a decision's pipeline leaves."""
    types = evidence.pipelines.get(_pipeline(decided), frozenset())
    numbers = identifiers(decided.info)
    return [
        Product(kind, decided.info.instrument, number, decided.info.detector)
        for kind in sorted(types)
        # Of several snaps only the first is processed, but all raws are kept.
        for number in (numbers[kind.dimension] if kind == RAW else numbers[kind.dimension][:1])
    ]


def _pipeline(decided: Decided) -> str:
    return f"{decided.info.instrument}/{decided.info.pipeline}"


def _products(
    key: DetectorVisitKey, decided: Decided, products: list[Product], evidence: Evidence, *, needed: bool
) -> Iterator[Finding]:
    pipeline = decided.info.pipeline
    if needed and _pipeline(decided) not in evidence.pipelines:
        yield _mismatch(key, f"pipeline {pipeline} is not known, so its products cannot be looked for")
    runs = {product: evidence.products.get(product, ()) for product in products}
    absent = [product.type.name for product, found in runs.items() if not found]
    if absent and needed:
        yield _mismatch(key, f"{len(absent)} products are not in the central Butler: {some(absent)}")
    doubled = [
        f"{product.type.name} in {' and '.join(runs[product])}"
        for product in products
        if len(runs[product]) > 1
    ]
    if doubled:
        yield Finding(Kind.DUPLICATED, name(key), f"products: {some(doubled)}")
    elsewhere = [
        f"{product.type.name} in {found[0]}"
        for product, found in runs.items()
        if product.type != RAW and len(found) == 1 and f"/{pipeline}/" not in f"{found[0]}/"
    ]
    if elsewhere:
        yield _mismatch(key, f"products of another pipeline than {pipeline}: {some(elsewhere)}")
    unreadable = [product.type.name for product in products if product in evidence.unreadable_products]
    if unreadable:
        yield _mismatch(key, f"products whose file is gone: {some(unreadable)}")


def _metrics(key: DetectorVisitKey, decided: Decided, evidence: Evidence) -> Iterator[Finding]:
    """Yield what is wrong with the metrics, which never hurt processing and so are no fault."""
    found = evidence.metrics.get(key, ())
    if not found:
        yield Finding(Kind.METRICS, name(key), "there are no metrics")
    if len(found) > 1:
        yield Finding(Kind.METRICS, name(key), f"there are {len(found)} files of metrics")
    for record in found:
        if record.visit != decided.info.visit:
            yield Finding(Kind.METRICS, name(key), f"the metrics are those of visit {record.visit}")
        if record.n_alerts is not None and record.n_alerts != len(decided.packets):
            text = f"the metrics tell {record.n_alerts:g} alerts instead of {len(decided.packets)}"
            yield Finding(Kind.METRICS, name(key), text)


def _mismatch(key: DetectorVisitKey, what: str) -> Finding:
    return Finding(Kind.MISMATCHING, name(key), what)
