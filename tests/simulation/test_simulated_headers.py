import json

import pytest
from astropy.time import Time


def test_headers_ids_and_folders_agree(night, raws, exposures):
    for row in exposures:
        header, path = raws.header(row["obs_id"]), raws.path(row["obs_id"])
        assert header["INSTRUME"] == "LATISS"
        assert header["OBSID"] == row["obs_id"] == path.parent.name
        assert header["OBSID"] == f"AT_{header['CONTRLLR']}_{header['DAYOBS']}_{header['SEQNUM']:06d}"
        assert path.parent.parent.name == header["DAYOBS"]
        assert row["exposure"] == int(f"{header['DAYOBS']}{header['SEQNUM']:05d}")
        sidecar = path.with_name(f"{row['obs_id']}_R00_S00.json")
        assert json.loads(sidecar.read_text())["GROUPID"] == header["GROUPID"] == row["group"]
        assert header["FILTER"] == "SDSSr_65mm"
        assert (header["RAFTBAY"], header["CCDSLOT"]) == ("R00", "S00")


def test_image_types(raws, exposures):
    expected = {"bias": "BIAS", "dark": "DARK", "flat": "FLAT", "template": "OBJECT", "science": "OBJECT"}
    for row in exposures:
        assert raws.header(row["obs_id"])["IMGTYPE"] == expected[row["kind"]]


def test_times_are_tai_and_end_is_shutter_close(raws, exposures):
    for row in exposures:
        header = raws.header(row["obs_id"])
        assert header["TIMESYS"] == "TAI"
        seconds = (Time(header["DATE-END"]) - Time(header["DATE-BEG"])).to_value("s")
        assert seconds == pytest.approx(header["DARKTIME"], abs=2e-3)
        assert 0 <= seconds - header["EXPTIME"] < 0.05
        for name in ("BEG", "END"):
            assert Time(header[f"DATE-{name}"]).mjd == pytest.approx(header[f"MJD-{name}"], abs=1e-9)
        assert header["DATE-END"] == row["end"]


def test_sky_exposures_point_and_calibs_do_not(raws, exposures):
    for row in exposures:
        header = raws.header(row["obs_id"])
        assert "CTYPE1" in header
        assert header["CTYPE1"] is None
        if row["kind"] in {"science", "template"}:
            assert header["RA"] == row["ra"]
            assert header["ROTPA"] == row["rotation"]
            # The field is up, and the airmass is that of the elevation.
            assert header["ELSTART"] > 35
            assert 1.0 <= header["AMSTART"] < 1.8
        else:
            assert header["RA"] is None
            assert header["ROTPA"] is None


def test_templates_and_calibs_are_earlier(exposures):
    days = {kind: exposures["begin"][exposures["kind"] == kind] for kind in ("flat", "template", "science")}
    assert max(days["flat"]) < min(days["template"])
    assert max(days["template"]) < min(days["science"])
