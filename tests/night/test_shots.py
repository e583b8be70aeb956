"""Raws appear in the landing store as they came from the telescope."""

import json

import pytest
from astropy.io import fits
from astropy.time import Time, TimeDelta

from prompt_processing.domain.clock import seconds_between
from prompt_processing.instruments.cameras import LATISS
from prompt_processing.night.shots import find_shots

START = Time("2026-03-16T02:00:00", scale="tai")


def write_raw(root, seq, end, *, group="g", sidecar=True):
    obs_id = f"AT_O_20260315_{seq:06d}"
    path = root / "LATISS" / "20260315" / obs_id / f"{obs_id}_R00_S00.fits"
    path.parent.mkdir(parents=True)
    cards = {
        "INSTRUME": "LATISS", "OBSID": obs_id, "DAYOBS": "20260315", "SEQNUM": seq, "CONTRLLR": "O",
        "GROUPID": group, "IMGTYPE": "OBJECT", "EXPTIME": 30.0, "DARKTIME": 30.0, "TIMESYS": "TAI",
        "MJD-BEG": end.mjd - 30 / 86400, "MJD-END": end.mjd, "FILTER": "SDSSr_65mm", "GRATING": "empty",
        "RA": 10.0, "DEC": -20.0, "ROTPA": 0.0, "TRACKSYS": "RADEC", "RAFTBAY": "R00", "CCDSLOT": "S00",
        "DATE-BEG": Time(end.mjd - 30 / 86400, format="mjd").isot, "DATE-END": end.isot,
    }  # fmt: skip
    fits.PrimaryHDU(header=fits.Header(list(cards.items()))).writeto(path)
    if sidecar:
        path.with_suffix(".json").write_text(json.dumps({"GROUPID": group}))
    return path.relative_to(root).as_posix()


def test_raws_come_in_the_order_of_their_read_out_and_damaged_ones_at_the_predicted_time(tmp_path):
    late, early = START + TimeDelta(120, format="sec"), START + TimeDelta(40, format="sec")
    keys = [write_raw(tmp_path, 1, late, group="late"), write_raw(tmp_path, 2, early, group="early")]
    damaged = write_raw(tmp_path, 3, early, group="damaged")
    (tmp_path / damaged).write_bytes(b"")
    predicted = {"damaged": START + TimeDelta(80, format="sec")}
    shots = find_shots(tmp_path, predicted, START)
    assert [str(shot.raw) for shot in shots] == [keys[1], damaged, keys[0]]
    assert [shot.group for shot in shots] == ["early", "damaged", "late"]
    assert seconds_between(early, shots[0].at) == pytest.approx(LATISS.readout, abs=0.01)
