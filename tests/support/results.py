"""A small repository with results, written through the real sinks, for tests of pages and commands."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from astropy.table import Table
from astropy.wcs import WCS

from local_cloud.visits import detector_visit
from prompt_processing.apdb.port import History
from prompt_processing.apdb.sql import SqlApdb
from prompt_processing.apdb.tables import conform, empty
from prompt_processing.config import Settings
from prompt_processing.delivery.archive import AlertArchive
from prompt_processing.delivery.decision import Decision
from prompt_processing.delivery.decisions import DecisionStore
from prompt_processing.delivery.packets import AlertImages, AlertSchema, build_packets
from prompt_processing.domain.decision import DecisionInfo
from prompt_processing.domain.errors import RawError
from prompt_processing.domain.outcome import Delivery, Outcome, StageTimes
from prompt_processing.factory.create import create_repository
from prompt_processing.images.exposure import Exposure, MaskedImage
from prompt_processing.images.psf import PsfModel
from prompt_processing.ledger.port import DecisionSummary
from prompt_processing.ledger.sql import SqlLedger
from prompt_processing.storage import database, object_store

MJD = 61115.25
OBJECT_ID = 77
RA, DEC = 10.0, -30.0
GROUPS = ("2026-03-15T01:00:00.000", "2026-03-15T01:01:00.000")
STAGES = {"preload": 3.0, "wait": 8.0, "isr": 2.0, "alerts": 0.5, "products": 1.5}
LATENCY = 4.0


@dataclass(frozen=True)
class Results:
    """A night and the repository that it was played into."""

    repo: Path
    night: Path
    alert_ids: tuple[int, ...]
    """The object twice, a false alert, one with a disqualifying flag."""


def exposure(level, peak):
    shape = (200, 200)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crpix = [100.0, 100.0]
    wcs.wcs.crval = [RA, DEC]
    wcs.wcs.cd = np.diag([-0.0957 / 3600, 0.0957 / 3600])
    image = np.random.default_rng(1).normal(level, 10.0, shape)
    image[98:101, 98:101] += peak
    planes = MaskedImage(image, np.full(shape, 100.0), np.zeros(shape))
    return Exposure(planes, "nJy", wcs, PsfModel(np.ones((1, 25, 25)) / 625, 0, shape), {"rotation": 5.0})


def source_rows(ids, visit, mjd, **columns):
    return pd.DataFrame(
        {
            "diaSourceId": np.array(ids, dtype=np.int64),
            "visit": visit,
            "detector": 0,
            "diaObjectId": pd.array(np.array(ids) * 0 + OBJECT_ID, dtype="Int64"),
            "midpointMjdTai": mjd,
            "ra": RA,
            "dec": DEC,
            "x": 99.0,
            "y": 99.0,
            "psfFlux": np.float32(1020.0),
            "psfFluxErr": np.float32(50.0),
            "snr": np.float32(20.4),
            "psfNdata": 441,
            "bboxSize": 12,
            "band": "r",
            "timeProcessedMjdTai": mjd + 0.01,
            **columns,
        }
    )


def decision(group, visit, mjd, sources, history):
    day_obs = detector_visit(groupId=group).day_obs
    object_ids = sorted(set(sources["diaObjectId"]))
    dia_objects = pd.DataFrame(
        {
            "diaObjectId": np.array(object_ids, dtype=np.int64),
            "ra": RA,
            "dec": DEC,
            "validityStartMjdTai": mjd,
            "firstDiaSourceMjdTai": MJD,
            "nDiaSources": 1,
        }
    )
    packets = build_packets(
        visit_time=mjd,
        sources=sources,
        objects=dia_objects,
        forced=empty("DiaForcedSource"),
        history=history,
        images=AlertImages(exposure(0.0, 300.0), exposure(50.0, 400.0), exposure(50.0, 100.0)),
        schema=AlertSchema.load(),
    )
    info = DecisionInfo(
        instrument="LATISS",
        group=group,
        detector=0,
        day_obs=day_obs,
        exposure=visit,
        visit=visit,
        midpoint_mjd_tai=mjd,
        shutter_close_mjd_tai=mjd + 0.0002,
        raws=(f"LATISS/20260314/{visit}.fits",),
        attempt=1,
        pipeline="ApPipe",
        alert_schema_id=1101,
    )
    return Decision(info, dia_objects, sources, empty("DiaForcedSource"), tuple(packets))


def write_truth(night):
    folder = night / "truth"
    folder.mkdir(parents=True)
    rows = [(f"obs{index}", "science", group) for index, group in enumerate(GROUPS)]
    Table(rows=[(*row, 0.1) for row in rows], names=["obs_id", "kind", "group", "pixel_scale"]).write(
        folder / "exposures.ecsv"
    )
    # One transient that is found in both visits, and one that is missed; no other events.
    events = Table(
        {
            "id": [1, 2],
            "ra": [RA, RA],
            "dec": [DEC, DEC + 30 / 3600],
            "x": [99.0, 99.0],
            "y": [99.0, 400.0],
            "flux": [1000.0, 900.0],
            "flux_err": [50.0, 50.0],
            "snr": [20.0, 18.0],
            "electrons": [1.0, 1.0],
            "persistent": [True, False],
        }
    )
    for index in range(len(GROUPS)):
        (folder / f"obs{index}").mkdir()
        for name, table in (("transients", events), ("variables", events[:0]), ("moving", events[:0])):
            table.write(folder / f"obs{index}" / f"{name}.ecsv")


def make_results(repo: Path, night: Path) -> Results:
    """Write two processed visits with four alerts and one that failed into new folders."""
    create_repository(repo)
    write_truth(night)
    places = Settings.load(repo).repository
    ledger = SqlLedger(database.engine(places.ledger_url))
    decisions = DecisionStore(object_store.root(places.decisions))
    apdb = SqlApdb(Settings.load(repo).apdb.database_url)
    archive = AlertArchive(object_store.root(places.alerts))
    nothing = History(empty("DiaObject"), empty("DiaSource"), empty("DiaForcedSource"))
    first = source_rows([10**17 + 1], 101, MJD)
    second = pd.concat(
        [
            source_rows([10**17 + 2], 102, MJD + 0.001, snr=np.float32(25.0)),
            source_rows([10**17 + 3], 102, MJD + 0.001, diaObjectId=78, dec=DEC + 0.01, snr=np.float32(7.0)),
            source_rows(
                [10**17 + 4],
                102,
                MJD + 0.001,
                diaObjectId=79,
                dec=DEC - 0.01,
                snr=np.float32(90.0),
                psfFluxErr=np.float32(np.nan),
                pixelFlags_saturatedCenter=True,
            ),
        ],
        ignore_index=True,
    )
    known = History(empty("DiaObject"), conform("DiaSource", first), empty("DiaForcedSource"))
    for index, (sources, history) in enumerate(((first, nothing), (second, known))):
        visit = detector_visit(groupId=GROUPS[index])
        claim = ledger.claim(visit, Delivery(f"m{index}", visit.model_dump_json()), owner="test")
        made = decision(GROUPS[index], 101 + index, MJD + 0.001 * index, sources, history)
        decisions.store(made)
        ledger.record_step(claim, "decision", DecisionSummary(made.info.visit, len(made.packets)))
        apdb.store(made.info.midpoint_mjd_tai, made.dia_object, made.dia_source, made.dia_forced_source)
        archive.send(made.packets)
        ledger.record_times(claim, StageTimes(STAGES, LATENCY))
        ledger.record_outcome(claim, Outcome.processed(*(("fallback",) if index else ())))
    lost = detector_visit(groupId="2026-03-15T01:02:00.000")
    claim = ledger.claim(lost, Delivery("m9", lost.model_dump_json()), owner="test")
    ledger.record_outcome(claim, Outcome.failed(RawError("raw.fits: truncated <at> byte 9")))
    return Results(repo, night, tuple(10**17 + number for number in (1, 2, 3, 4)))
