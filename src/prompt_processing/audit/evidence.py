"""What an audit judges: plain data about a night, from real stores or from their twins in memory."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import pandas as pd

from prompt_processing.apdb.tables import TableName, conform
from prompt_processing.delivery.decision import Decision
from prompt_processing.domain.decision import DecisionInfo
from prompt_processing.domain.errors import HeaderError
from prompt_processing.domain.ids import exposure_id, parse_obs_id
from prompt_processing.domain.outcome import Outcome
from prompt_processing.domain.raws import parse_raw_key
from prompt_processing.domain.visit import DetectorVisitKey
from prompt_processing.ledger.port import DetectorVisitRecord

MEASUREMENTS: Final[tuple[TableName, ...]] = ("DiaSource", "DiaForcedSource")
"""Tables whose rows must stand in the APDB as they were decided."""
TABLES: Final[tuple[TableName, ...]] = ("DiaObject", "DiaObjectLast", *MEASUREMENTS)
"""Tables of the APDB that are read."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """What the ledger says of a detector-visit: claims, to be checked."""

    key: DetectorVisitKey
    outcome: Outcome | None
    """The current outcome; `None` if there is none."""
    attempts: int = 0
    error: str | None = None
    """With what the last attempt ended, if it ended without an outcome."""
    working: str | None = None
    """Who works on it now."""

    pending: frozenset[str] = frozenset()
    """Effects that are left to the relay."""

    @classmethod
    def of(cls, record: DetectorVisitRecord) -> "Claimed":
        """Return what a record of the ledger says."""
        last = record.attempts[-1] if record.attempts else None
        return cls(
            key=record.visit.key,
            outcome=record.outcome,
            attempts=len(record.attempts),
            error=last.error if last is not None else None,
            working=record.working,
            pending=frozenset(record.pending),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Decided:
    """A decision, with fingerprints in place of its packets, which are mostly pictures."""

    info: DecisionInfo
    tables: Mapping[TableName, pd.DataFrame]
    """Its rows of the tables DiaObject, DiaSource and DiaForcedSource, in the form of the APDB."""
    packets: tuple[tuple[int, str], ...]
    """``diaSourceId`` and `fingerprint` of each alert."""

    @classmethod
    def of(cls, decision: Decision) -> "Decided":
        """Return what an audit needs of a decision.

        Raises
        ------
        RepositoryError
            If its rows are not such as the APDB could hold.
        """
        tables: dict[TableName, pd.DataFrame] = {
            "DiaObject": decision.dia_object,
            "DiaSource": decision.dia_source,
            "DiaForcedSource": decision.dia_forced_source,
        }
        return cls(
            info=decision.info,
            tables={table: conform(table, frame) for table, frame in tables.items()},
            packets=tuple((number, fingerprint(data)) for number, data in decision.packets),
        )


class ProductType(NamedTuple):
    """A dataset type that a detector-visit leaves in the central Butler."""

    name: str
    dimension: str
    """Which number of the visit its data id has: ``visit``, ``exposure`` or ``group``."""


RAW: Final = ProductType("raw", "exposure")
"""The raws, which are products like all others but in a run of their own."""


class Product(NamedTuple):
    """A dataset of the central Butler, whatever its run."""

    type: ProductType
    instrument: str
    value: int | str
    """Value of the type's dimension."""
    detector: int


class MetricsRecord(NamedTuple):
    """What one file of metrics says of a detector-visit."""

    visit: int
    n_alerts: float | None
    """Number of alerts; `None` if it does not tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything about a night that an audit looks at."""

    expected: frozenset[DetectorVisitKey]
    """The detector-visits of all events."""
    not_observed: tuple[str, ...] = ()
    """Lines that are no event, and events that cannot be observed, each with what is wrong."""
    claims: tuple[Claimed, ...]
    """What the ledger says of these detector-visits, and of those that no event has announced."""
    surplus_outcomes: int = 0
    """How many current outcomes the ledger counts beyond one for each detector-visit."""
    decisions: Mapping[DetectorVisitKey, Decided]
    """Decisions by the detector-visit under whose key they are stored."""
    damaged_decisions: Mapping[DetectorVisitKey, str] = field(default_factory=dict)
    """Decisions that cannot be read, with the reason."""
    rows: Mapping[TableName, pd.DataFrame]
    """All rows of the night in the APDB, by table of `TABLES`."""
    begin: float = -math.inf
    """First moment of the night [MJD, TAI, d]: what is older is not among the rows."""
    archived: Mapping[int, str | None]
    """`fingerprint` of each alert in the archive; `None` if it cannot be read."""
    pipelines: Mapping[str, frozenset[ProductType]]
    """Products that a pipeline leaves, by ``instrument/name``."""
    products: Mapping[Product, tuple[str, ...]]
    """The runs in which each product of the night stands."""
    unreadable_products: frozenset[Product] = frozenset()
    """Products that are registered, but whose file is gone."""
    metrics: Mapping[DetectorVisitKey, tuple[MetricsRecord, ...]]
    """Every file of metrics of the night, by the detector-visit that it says it is about."""
    damaged_metrics: tuple[str, ...] = ()
    """Files of metrics that cannot be read, each with the reason."""
    raws: Mapping[str, DetectorVisitKey | None]
    """Raws that have arrived, by key, each with its detector-visit, `None` if that cannot be told."""
    damaged_pointers: tuple[str, ...] = ()
    """Arrival pointers that cannot be read, each with the reason."""


def fingerprint(data: bytes) -> str:
    """Return what stands for a packet: equal packets have equal ones, others never."""
    return hashlib.sha256(data).hexdigest()


def identifiers(info: DecisionInfo) -> dict[str, tuple[int | str, ...]]:
    """Return the numbers by which data ids name a detector-visit, by dimension; the first snap's first."""
    exposures = (info.exposure, *(raw_exposure(raw) for raw in info.raws))
    return {
        "visit": (info.visit,),
        "exposure": tuple(dict.fromkeys(number for number in exposures if number is not None)),
        "group": (info.group,),
    }


def raw_exposure(key: str) -> int | None:
    """Return the number of the exposure that a raw's key names, `None` if it names none."""
    raw = parse_raw_key(key)
    try:
        return None if raw is None else exposure_id(parse_obs_id(raw.obs_id))
    except HeaderError:
        return None
