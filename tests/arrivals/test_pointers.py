"""Pointers to raws that arrived."""

import json
import os

import numpy as np
import pytest
from astropy.io import fits
from astropy.time import Time

from local_cloud.visits import detector_visit
from prompt_processing.arrivals.pointers import Arrivals
from prompt_processing.domain.clock import WallClock
from prompt_processing.domain.errors import HeaderError, RawError
from prompt_processing.storage import object_store

OBS_ID = "AT_O_20260315_000007"
KEY = f"LATISS/20260315/{OBS_ID}/{OBS_ID}_R00_S00.fits"
GROUP = "2026-03-16T02:01:03.123#1"
VISIT = detector_visit(groupId=GROUP, startTime=1773626463.0)


class FixedClock:
    def now(self):
        return Time("2026-03-16T02:02:00.5", scale="utc")


@pytest.fixture
def store(tmp_path):
    return tmp_path / "incoming"


@pytest.fixture
def arrivals(store, tmp_path):
    return Arrivals(object_store.root(store), object_store.root(tmp_path / "arrivals"), FixedClock())


def write_raw(store, key=KEY, *, sidecar=None, content=None, **cards):
    path = store / key
    path.parent.mkdir(parents=True, exist_ok=True)
    if content is None:
        header = fits.Header({name.upper(): value for name, value in cards.items()})
        amplifier = fits.ImageHDU(np.zeros((4, 4), dtype=np.int32))
        fits.HDUList([fits.PrimaryHDU(header=header), amplifier]).writeto(path)
    else:
        path.write_bytes(content)
    if sidecar is not None:
        (path.parent / path.name.replace(".fits", ".json")).write_text(sidecar)
    return path


def test_a_raw_gets_its_pointer(arrivals, store, tmp_path):
    path = write_raw(store, groupid=GROUP, curindex=2)
    pointer = arrivals.record(KEY)
    assert pointer.model_dump() == {
        "key": KEY,
        "generation": path.stat().st_mtime_ns,
        "size": path.stat().st_size,
        "exposure_id": 2026031500007,
        "obs_id": OBS_ID,
        "group": GROUP,
        "snap": 1,
        "arrived_at": "2026-03-16T02:02:00.500",
    }
    file = tmp_path / "arrivals/LATISS/20260315/2026-03-16T02_3A01_3A03.123_231/0/1.json"
    assert json.loads(file.read_text()) == pointer.model_dump()
    assert arrivals.find(VISIT, 1) == pointer
    assert arrivals.find(VISIT, 0) is None


def test_the_sidecar_tells_the_group(arrivals, store):
    write_raw(store, sidecar=json.dumps({"GROUPID": GROUP}))
    assert (arrivals.record(KEY).group, arrivals.record(KEY).snap) == (GROUP, 0)


def test_the_header_tells_if_the_sidecar_does_not(arrivals, store):
    write_raw(store, sidecar="{half", groupid=GROUP, curindex=1)
    assert arrivals.record(KEY).group == GROUP


def test_recording_again_changes_nothing(arrivals, store, tmp_path):
    write_raw(store, groupid=GROUP, curindex=1)
    first = arrivals.record(KEY)
    later = Arrivals(object_store.root(store), object_store.root(tmp_path / "arrivals"), WallClock())
    assert later.record(KEY) == first


def test_the_first_raw_of_a_snap_stands(arrivals, store):
    write_raw(store, groupid=GROUP, curindex=1)
    other = KEY.replace("000007", "000008")
    write_raw(store, other, groupid=GROUP, curindex=1)
    first = arrivals.record(KEY)
    assert arrivals.record(other) == first


def test_other_objects_have_no_pointer(arrivals):
    assert arrivals.record(KEY.replace(".fits", ".json")) is None
    assert arrivals.record("strange/thing") is None


@pytest.mark.parametrize("content", [b"", b"not FITS at all", b"SIMPLE  =                    T"])
def test_a_broken_raw_whose_group_is_known_still_ends_its_visit(arrivals, store, content):
    write_raw(store, content=content, sidecar=json.dumps({"GROUPID": GROUP}))
    assert arrivals.record(KEY).group == GROUP
    assert arrivals.find(VISIT, 0).key == KEY


@pytest.mark.parametrize("hours", [-6.0, 6.0])
def test_a_pointer_is_found_from_the_other_side_of_noon(arrivals, store, hours):
    write_raw(store, groupid=GROUP)
    pointer = arrivals.record(KEY)
    noon = 1773662400.0 if hours > 0 else 1773576000.0  # the raw's day ends, or begins
    other = detector_visit(groupId=GROUP, startTime=noon + hours * 3600)
    assert other.day_obs != VISIT.day_obs
    assert arrivals.find(other, 0) == pointer
    assert arrivals.find_all(other) == [pointer]


def test_a_pointer_under_a_key_without_the_day_stands(arrivals, store, tmp_path):
    write_raw(store, groupid=GROUP)
    pointer = arrivals.record(KEY)
    (new,) = (tmp_path / "arrivals").rglob("0.json")
    old = tmp_path / "arrivals" / "LATISS" / new.parents[1].name / "0" / "0.json"
    old.parent.mkdir(parents=True)
    new.rename(old)
    assert arrivals.find(VISIT, 0) == pointer
    assert arrivals.find_all(VISIT) == [pointer]
    assert arrivals.record(KEY) == pointer
    assert list((tmp_path / "arrivals").rglob("0.json")) == [old]


@pytest.mark.parametrize("content", [b"", b"not FITS at all"])
def test_a_broken_raw_of_no_known_group_is_named(arrivals, store, content):
    write_raw(store, content=content)
    with pytest.raises(RawError, match=OBS_ID):
        arrivals.record(KEY)


def test_what_is_wrong_is_named(arrivals, store):
    with pytest.raises(RawError, match="no such raw"):
        arrivals.record(KEY)
    write_raw(store, curindex=1)
    with pytest.raises(HeaderError, match="GROUPID"):
        arrivals.record(KEY)
    other = KEY.replace("000007", "000008")
    write_raw(store, other, groupid=GROUP, curindex=0)
    with pytest.raises(HeaderError, match="CURINDEX is 0"):
        arrivals.record(other)
    with pytest.raises(RawError, match="no detector R22_S11"):
        arrivals.record(KEY.replace("R00_S00", "R22_S11"))
    unnumbered = KEY.replace(OBS_ID, "odd")
    write_raw(store, unnumbered, groupid=GROUP)
    with pytest.raises(HeaderError, match="odd"):
        arrivals.record(unnumbered)


def test_the_index_of_a_raw_goes_up_to_a_thousand(arrivals, store):
    write_raw(store, groupid=GROUP, curindex=1000)
    assert arrivals.record(KEY).snap == 999
    other = KEY.replace("000007", "000008")
    write_raw(store, other, groupid=GROUP, curindex=1001)
    with pytest.raises(HeaderError, match="CURINDEX is 1001, not a number from 1 to 1000"):
        arrivals.record(other)


def test_a_listing_finds_what_was_not_recorded(arrivals, store):
    assert arrivals.list_new() == []
    write_raw(store, groupid=GROUP, curindex=1, sidecar="{}")
    second = KEY.replace("000007", "000008")
    write_raw(store, second, groupid="other", curindex=1)
    tomorrow = KEY.replace("20260315", "20260316")
    write_raw(store, tomorrow, groupid="tomorrow", curindex=1)
    assert arrivals.list_new() == [KEY, second, tomorrow]
    assert arrivals.list_new("LATISS/20260315") == [KEY, second]
    arrivals.record(KEY)
    assert arrivals.list_new("LATISS/20260315/") == [second]


def test_a_broken_raw_is_listed_again_when_it_was_replaced(arrivals, store):
    path = write_raw(store, content=b"not FITS")
    with pytest.raises(RawError):
        arrivals.record(KEY)
    assert arrivals.list_new() == []
    path.unlink()
    write_raw(store, groupid=GROUP, curindex=1)
    os.utime(path, ns=(1, 1))
    assert arrivals.list_new() == [KEY]
    assert arrivals.record(KEY).group == GROUP
