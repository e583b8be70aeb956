"""Association as a task: what comes out for a visit, and for the same visit once more."""

import numpy as np
import pandas as pd
import pytest

from prompt_processing.images.exposure import Exposure, MaskedImage
from prompt_processing.images.psf import PsfModel
from prompt_processing.instruments.pointing import predicted_wcs
from prompt_processing.tasks.associate import AssociateConfig, AssociateTask

SHAPE = (120, 140)
MIDPOINT = 61000.5
WCS = predicted_wcs(150.0, -30.0, 0.0, SHAPE, 0.1)
POSITIONS = np.array([[40.0, 50.0], [100.0, 70.0]])


def exposure():
    y, x = np.mgrid[-10:11, -10:11]
    stamp = np.exp(-0.5 * (x**2 + y**2) / 9.0)
    psf = PsfModel((stamp / stamp.sum())[np.newaxis], 0, SHAPE)
    rng = np.random.default_rng(3)
    masked = MaskedImage(rng.normal(0, 1, SHAPE), np.ones(SHAPE), np.zeros(SHAPE, np.uint16))
    info = {"exposure": 2026031500001, "visit": 2026031500001, "detector": 0, "band": "r"}
    info["mjd_mid_tai"] = MIDPOINT
    return Exposure(masked, "nJy", WCS, psf, info)


def new_sources():
    ra, dec = WCS.all_pix2world(POSITIONS, 0).T
    return pd.DataFrame(
        {
            "diaSourceId": [1001, 1002], "ra": ra, "dec": dec, "raErr": 1e-6, "decErr": 1e-6, "band": "r",
            "midpointMjdTai": MIDPOINT, "psfFlux": [50.0, 80.0], "psfFluxErr": 1.0, "scienceFlux": 1.0,
            "scienceFluxErr": 1.0, "visit": 2026031500001, "detector": 0,
        }
    )  # fmt: skip


def old(first_seen, object_id=7):
    """An object at the first position with one source."""
    source = new_sources().iloc[[0]].assign(diaSourceId=7, diaObjectId=object_id, midpointMjdTai=first_seen)
    known = source[["diaObjectId", "ra", "dec"]].assign(firstDiaSourceMjdTai=first_seen)
    forced = source.drop(columns=["diaSourceId"]).assign(diaForcedSourceId=7)
    return known, source, forced


def associate(objects, sources, forced):
    image = exposure()
    return AssociateTask(config=AssociateConfig()).run(
        sources=new_sources(), science=image, difference=image,
        old_objects=objects, old_sources=sources, old_forced=forced,
    )  # fmt: skip


def test_known_objects_get_their_sources_and_all_objects_are_measured():
    result = associate(*old(MIDPOINT - 1.0))
    assert result.dia_sources["diaObjectId"].tolist() == [7, 1002]
    objects = result.dia_objects.set_index("diaObjectId")
    assert objects["nDiaSources"].to_dict() == {7: 2, 1002: 1}
    assert objects.loc[7, "firstDiaSourceMjdTai"] == pytest.approx(MIDPOINT - 1.0)
    assert sorted(result.dia_forced_sources["diaObjectId"]) == [7, 1002]
    assert result.dia_forced_sources["diaForcedSourceId"].is_unique


def test_history_from_the_visit_itself_or_later_is_not_looked_at():
    fresh = associate(*(table.iloc[:0] for table in old(MIDPOINT - 1.0)))
    for seen in (MIDPOINT, MIDPOINT + 1.0):
        again = associate(*old(seen, object_id=1001))
        pd.testing.assert_frame_equal(again.dia_sources, fresh.dia_sources)
        pd.testing.assert_frame_equal(again.dia_objects, fresh.dia_objects)
        pd.testing.assert_frame_equal(again.dia_forced_sources, fresh.dia_forced_sources)
