"""Alert packets."""

import io
import struct

import numpy as np
import pandas as pd
import pytest
from astropy.nddata import CCDData
from astropy.wcs import WCS
from lsst.alert.packet import Schema

from prompt_processing.apdb.port import History
from prompt_processing.apdb.tables import conform, empty
from prompt_processing.delivery.packets import (
    AlertImages,
    AlertSchema,
    build_packets,
    decode,
    schema_id_of,
)
from prompt_processing.domain.errors import RepositoryError
from prompt_processing.images.exposure import Exposure, MaskedImage
from prompt_processing.images.psf import PsfModel

NIGHT = 61115.25


def exposure(value):
    shape = (200, 200)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crpix = [100.0, 100.0]
    wcs.wcs.crval = [10.0, -30.0]
    wcs.wcs.cd = np.diag([-0.0957 / 3600, 0.0957 / 3600])
    planes = MaskedImage(np.full(shape, value), np.ones(shape), np.zeros(shape))
    psf = PsfModel(np.ones((1, 25, 25)) / 625, 0, shape)
    return Exposure(planes, "nJy", wcs, psf, {"rotation": 5.0})


@pytest.fixture(scope="module")
def images():
    return AlertImages(exposure(1.0), exposure(2.0), exposure(3.0))


def sources(ids, object_ids, time=NIGHT, **columns):
    return pd.DataFrame(
        {
            "diaSourceId": np.array(ids, dtype=np.int64),
            "visit": 2026031500001,
            "detector": 0,
            "diaObjectId": pd.array(object_ids, dtype="Int64"),
            "midpointMjdTai": time,
            "ra": 10.0,
            "dec": -30.0,
            "x": 100.5,
            "y": 99.0,
            "psfFlux": np.float32(1234.5),
            "psfFluxErr": np.nan,
            "isDipole": pd.array([True] * len(ids), dtype="boolean"),
            "psfNdata": 441,
            "bboxSize": 12,
            "band": "r",
            "timeProcessedMjdTai": NIGHT + 0.01,
            **columns,
        }
    )


def objects(ids):
    return pd.DataFrame(
        {"diaObjectId": np.array(ids, dtype=np.int64), "ra": 10.0, "dec": -30.0, "nDiaSources": 3}
    )


def forced(ids, object_ids, time):
    return pd.DataFrame(
        {
            "diaForcedSourceId": np.array(ids, dtype=np.int64),
            "diaObjectId": np.array(object_ids, dtype=np.int64),
            "visit": np.arange(len(ids)) + int(time),
            "detector": 0,
            "ra": 10.0,
            "dec": -30.0,
            "midpointMjdTai": time,
            "timeProcessedMjdTai": NIGHT,
            "psfFlux": 7.0,
        }
    )


def history(old_sources=None, old_forced=None):
    return History(
        objects=empty("DiaObject"),
        sources=empty("DiaSource") if old_sources is None else conform("DiaSource", old_sources),
        forced=empty("DiaForcedSource") if old_forced is None else conform("DiaForcedSource", old_forced),
    )


def build(images, **changes):
    given = {
        "visit_time": NIGHT,
        "sources": sources([2**62 + 5], [77]),
        "objects": objects([77]),
        "forced": empty("DiaForcedSource"),
        "history": history(),
        "images": images,
        "schema": AlertSchema.load(),
        **changes,
    }
    return build_packets(**given)


def test_a_packet_is_avro_with_a_wire_header(images):
    ((source_id, packet),) = build(images)
    assert source_id == 2**62 + 5
    assert packet[:5] == struct.pack(">bI", 0, 1101)
    # The reader of the observatory's own package agrees with ours.
    alert = Schema.from_uri().deserialize(packet[5:])
    assert alert == decode(packet)
    assert alert["diaSourceId"] == alert["diaSource"]["diaSourceId"] == 2**62 + 5
    assert alert["diaSource"]["visit"] == 2026031500001
    assert alert["diaSource"]["diaObjectId"] == alert["diaObject"]["diaObjectId"] == 77
    assert alert["diaSource"]["psfFlux"] == 1234.5
    assert alert["diaSource"]["isDipole"] is True
    assert alert["diaSource"]["band"] == "r"
    assert alert["diaObject"]["validityStartMjdTai"] == NIGHT
    assert alert["diaObject"]["nDiaSources"] == 3


def test_what_is_missing_is_null(images):
    alert = decode(build(images)[0][1])
    for field in ("psfFluxErr", "apFlux", "ssObjectId", "centroid_flag", "reliabilityVersion"):
        assert alert["diaSource"][field] is None
    assert alert["diaSource"]["dipoleNdata"] == 0
    assert alert["prvDiaSources"] is None
    assert alert["prvDiaForcedSources"] is None
    assert alert["ssSource"] is None


def test_history_of_the_object_is_told_in_order(images):
    old = pd.concat(
        [
            sources([3], [77], NIGHT - 1),
            sources([1, 4], [77, 78], NIGHT - 3),
            sources([2], [77], NIGHT - 2),
        ]
    )
    old_forced = pd.concat([forced([9], [77], NIGHT - 1), forced([8, 7], [77, 78], NIGHT - 2)])
    packets = build(
        images,
        sources=sources([10, 11], [77, 79]),
        objects=objects([77, 79]),
        forced=forced([10], [77], NIGHT),
        history=history(old, old_forced),
    )
    first, second = (decode(packet) for _, packet in packets)
    assert [source["diaSourceId"] for source in first["prvDiaSources"]] == [1, 2, 3]
    assert [source["diaForcedSourceId"] for source in first["prvDiaForcedSources"]] == [8, 9, 10]
    assert second["prvDiaSources"] is None
    assert second["diaObject"]["diaObjectId"] == 79


def test_cutouts_are_of_the_three_images(images):
    alert = decode(build(images)[0][1])
    for field, value in (("cutoutDifference", 1), ("cutoutScience", 2), ("cutoutTemplate", 3)):
        cutout = CCDData.read(io.BytesIO(alert[field]), format="fits")
        assert cutout.shape == (30, 30)
        assert (cutout.data == value).all()


def test_the_same_input_gives_the_same_packets(images):
    assert build(images) == build(images)


def test_no_sources_no_packets(images):
    assert build(images, sources=empty("DiaSource"), objects=empty("DiaObject")) == []


def test_every_source_needs_its_object(images):
    with pytest.raises(RepositoryError, match="no object"):
        build(images, objects=objects([78]))
    with pytest.raises(RepositoryError, match="no object"):
        build(images, sources=sources([1], [None]))


def test_a_missing_column_is_named(images):
    with pytest.raises(RepositoryError, match=r"DiaSource\.timeProcessedMjdTai"):
        build(images, sources=sources([1], [77]).drop(columns="timeProcessedMjdTai"))


def test_what_is_no_packet_is_refused(images):
    packet = build(images)[0][1]
    assert schema_id_of(packet) == 1101
    for wrong in (b"", b"\1" + packet[1:], packet[:300]):
        with pytest.raises(RepositoryError, match="alert packet"):
            decode(wrong)
    with pytest.raises(RepositoryError, match="9999"):
        decode(struct.pack(">bI", 0, 9999) + packet[5:])


def test_older_schemas_can_be_loaded():
    assert AlertSchema.load(1100).schema_id == 1100
    assert AlertSchema.load() is AlertSchema.load()
    assert AlertSchema.load().schema_id == 1101
