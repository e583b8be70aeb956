"""A small night as evidence: four visits, two of them processed, with the APDB's twin in memory."""

from dataclasses import replace

import numpy as np
import pandas as pd

from prompt_processing.apdb.memory import MemoryApdb
from prompt_processing.apdb.tables import conform, empty
from prompt_processing.audit.evidence import (
    RAW,
    TABLES,
    Claimed,
    Decided,
    Evidence,
    MetricsRecord,
    Product,
    ProductType,
    identifiers,
)
from prompt_processing.delivery.decision import Decision
from prompt_processing.domain.decision import DecisionInfo
from prompt_processing.domain.errors import PsfError
from prompt_processing.domain.outcome import Outcome
from prompt_processing.domain.visit import DetectorVisitKey
from prompt_processing.images.association import summarise

DAY = 20260314
MJD = 61114.25
FIRST, SECOND, DARK, BROKEN = (DetectorVisitKey("LATISS", f"2026-03-15T01:0{n}:00.000", 0) for n in range(4))
"""The visits: two that are processed, one without an image, one that has failed."""
PIPELINES = {
    "LATISS/ApPipe": frozenset(
        {RAW, ProductType("difference_image", "visit"), ProductType("regionTimeInfo", "group")}
    ),
    "LATISS/SingleFrame": frozenset({RAW, ProductType("preliminary_visit_image", "visit")}),
}
RUN = "LATISS/prompt/output-2026-03-14/ApPipe"


def raw(exposure):
    obs_id = f"AT_O_{DAY}_{exposure % 100_000:06d}"
    return f"LATISS/{DAY}/{obs_id}/{obs_id}_R00_S00.fits"


def rows(table, exposure, time, ids, object_ids, flux=100.0):
    """Measurements of a visit, all at one place."""
    frame = pd.DataFrame(
        {
            "diaSourceId" if table == "DiaSource" else "diaForcedSourceId": np.array(ids, dtype=np.int64),
            "diaObjectId": pd.array(object_ids, dtype="Int64"),
            "visit": exposure,
            "detector": 0,
            "midpointMjdTai": time,
            "timeProcessedMjdTai": time + 0.001,
            "ra": 10.0,
            "dec": -30.0,
            "psfFlux": np.float32(flux),
            "psfFluxErr": np.float32(10.0),
            "band": "r",
        }
    )
    more = {"x": 1.0, "y": 2.0, "bboxSize": 30, "raErr": 1e-5, "decErr": 1e-5}
    return conform(table, frame.assign(**more) if table == "DiaSource" else frame)


def decision(key, seq_num, time, sources, forced, history=(), **info):
    """A decision with the summaries that a worker would make of its sources and of earlier ones."""
    exposure = DAY * 100_000 + seq_num
    objects = conform(
        "DiaObject", summarise(pd.concat([*history, sources]), forced).assign(validityStartMjdTai=time)
    )
    fields = {
        "instrument": key.instrument,
        "group": key.group,
        "detector": key.detector,
        "day_obs": DAY,
        "exposure": exposure,
        "visit": exposure,
        "midpoint_mjd_tai": time,
        "shutter_close_mjd_tai": time + 0.0002,
        "raws": (raw(exposure),),
        "attempt": 1,
        "pipeline": "ApPipe",
        "alert_schema_id": 1101,
    }
    packets = tuple((int(number), b"alert %d" % number) for number in sources["diaSourceId"])
    return Decision(DecisionInfo(**{**fields, **info}), objects, sources, forced, packets)


def first_decision(**info):
    exposure = DAY * 100_000 + 7
    sources = rows("DiaSource", exposure, MJD, [11, 12], [11, 12])
    forced = rows("DiaForcedSource", exposure, MJD, [11, 12], [11, 12])
    return decision(FIRST, 7, MJD, sources, forced, **info)


def second_decision(*, knows_the_first=True):
    exposure, time = DAY * 100_000 + 8, MJD + 0.001
    sources = rows("DiaSource", exposure, time, [21, 22], [11, 22], flux=150.0)
    forced = rows("DiaForcedSource", exposure, time, [21, 22], [11, 22])
    earlier = first_decision().dia_source
    history = [earlier[earlier["diaObjectId"] == 11]] if knows_the_first else []
    return decision(SECOND, 8, time, sources, forced, history)


def decision_without_rows():
    """What a pipeline without association decides."""
    no_sources, no_forced = empty("DiaSource"), empty("DiaForcedSource")
    made = first_decision(pipeline="SingleFrame", flags=("fallback",))
    return Decision(made.info, empty("DiaObject"), no_sources, no_forced)


def evidence(*decisions):
    """The evidence of a night in which all went well: everything that was decided stands where it must."""
    decisions = decisions or (first_decision(), second_decision())
    apdb = MemoryApdb()
    for made in decisions:
        apdb.store(made.info.midpoint_mjd_tai, made.dia_object, made.dia_source, made.dia_forced_source)
    decided = {
        DetectorVisitKey(made.info.instrument, made.info.group, made.info.detector): Decided.of(made)
        for made in decisions
    }
    outcomes = {
        **{key: Outcome.processed(*found.info.flags) for key, found in decided.items()},
        DARK: Outcome.skipped("no-image"),
        BROKEN: Outcome.failed(PsfError("no stars")),
    }
    broken_raw = raw(DAY * 100_000 + 9)
    return Evidence(
        expected=frozenset(outcomes),
        claims=tuple(Claimed(key, outcome, attempts=1) for key, outcome in outcomes.items()),
        decisions=decided,
        rows={table: apdb.rows(table, MJD - 1, MJD + 1) for table in TABLES},
        archived={number: mark for found in decided.values() for number, mark in found.packets},
        pipelines=PIPELINES,
        products={product: (run,) for found in decided.values() for product, run in products_of(found)},
        metrics={
            key: (MetricsRecord(found.info.visit, len(found.packets)),) for key, found in decided.items()
        },
        raws={
            **{name: key for key, found in decided.items() for name in found.info.raws},
            broken_raw: BROKEN,
        },
    )


def products_of(found):
    info = found.info
    for kind in PIPELINES[f"LATISS/{info.pipeline}"]:
        run = "LATISS/raw/all" if kind == RAW else RUN.replace("ApPipe", info.pipeline)
        yield Product(kind, info.instrument, identifiers(info)[kind.dimension][0], info.detector), run


def without(mapping, *keys):
    return {key: value for key, value in mapping.items() if key not in keys}


def with_rows(night, table, change):
    """The night with other rows in a table of the APDB."""
    return replace(night, rows={**night.rows, table: change(night.rows[table])})


def with_outcome(night, key, outcome, **fields):
    """The night with another outcome of a detector-visit."""
    claims = [
        replace(claim, outcome=outcome, **fields) if claim.key == key else claim for claim in night.claims
    ]
    return replace(night, claims=tuple(claims))


def with_info(night, key, **changes):
    """The night with a decision that says something else of itself."""
    decided = night.decisions[key]
    changed = replace(decided, info=decided.info.model_copy(update=changes))
    return replace(night, decisions={**night.decisions, key: changed})
