"""Raws appear in the landing store as they came from the telescope."""

import json
import threading

import pytest
from astropy.io import fits
from astropy.time import Time, TimeDelta

from prompt_processing.domain.clock import seconds_between
from prompt_processing.night.camera import READOUT, Camera, SkippingClock, find_shots

START = Time("2026-03-16T02:00:00", scale="tai")


def test_the_clock_goes_forward_only():
    clock = SkippingClock(START)
    clock.skip_to(START + TimeDelta(3600, format="sec"))
    assert seconds_between(START, clock.now()) == pytest.approx(3600, abs=5)
    clock.skip_to(START)
    assert seconds_between(START, clock.now()) == pytest.approx(3600, abs=5)


def test_whoever_waits_wakes_when_the_clock_is_moved():
    clock = SkippingClock(START)
    moment = START + TimeDelta(3600, format="sec")
    waiter = threading.Thread(target=clock.wait_until, args=(moment, threading.Event()))
    waiter.start()
    clock.skip_to(moment)
    waiter.join(timeout=10)
    assert not waiter.is_alive()


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
    assert seconds_between(early + READOUT, shots[0].at) == pytest.approx(0, abs=0.01)


def test_the_camera_delivers_sidecar_and_image_once(tmp_path):
    night, incoming = tmp_path / "night", tmp_path / "incoming"
    key = write_raw(night, 1, START + TimeDelta(40, format="sec"))
    arrived = []

    def on_arrival(name):
        files = sorted(path.name for path in (incoming / name).parent.iterdir())
        arrived.append((name, files))

    for _ in range(2):
        clock = SkippingClock(START)
        with Camera(
            folder=night,
            incoming=incoming,
            shots=find_shots(night, {}, START),
            clock=clock,
            on_arrival=on_arrival,
        ) as camera:
            camera.finish()
    stem = key.rpartition("/")[2].removesuffix(".fits")
    assert arrived == [(key, [f"{stem}.fits", f"{stem}.json"])]
    assert (incoming / key).read_bytes() == (night / key).read_bytes()
