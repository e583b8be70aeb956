"""Keys of raws and arrival pointers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompt_processing.domain.errors import RawError
from prompt_processing.domain.raws import (
    ArrivalPointer,
    RawKey,
    escape_group,
    parse_raw_key,
    pointer_path,
    unescape_group,
)

KEY = "LATISS/20240624/AT_O_20240624_000106/AT_O_20240624_000106_R00_S00.fits"


def test_a_key_is_taken_apart():
    raw = parse_raw_key(KEY)
    assert raw == RawKey("LATISS", 20240624, "AT_O_20240624_000106", "R00", "S00", ".fits")
    assert raw.detector_name == "R00_S00"
    assert raw.sidecar == KEY.removesuffix(".fits") + ".json"


@pytest.mark.parametrize("extension", [".fits", ".fits.fz", ".fz", ".fit"])
def test_a_key_survives_its_trip(extension):
    key = KEY.removesuffix(".fits") + extension
    assert str(parse_raw_key(key)) == key


@pytest.mark.parametrize(
    "key",
    [
        "",
        KEY.removesuffix(".fits") + ".json",
        KEY + ".tmp",
        KEY + "\n",
        "/" + KEY,
        KEY.replace("20240624/AT", "20240624/../AT"),
        KEY.replace("LATISS", "LAT ISS"),
        KEY.replace("_000106_R", "_000107_R"),
        KEY.replace("R00", "R0é"),
        KEY.replace("/", "\\"),
        "LATISS/20240624/x#y/x#y_R00_S00.fits",
    ],
)
def test_other_objects_are_no_raws(key):
    assert parse_raw_key(key) is None


@pytest.mark.parametrize(
    ("group", "escaped"),
    [
        ("2024-06-25T01:26:31.895#1", "2024-06-25T01_3A26_3A31.895_231"),
        ("a_b", "a_5Fb"),
        ("a/b", "a_2Fb"),
        ("é", "_C3_A9"),
        ("..", "_2E."),
        (".", "_2E"),
    ],
)
def test_groups_are_escaped(group, escaped):
    assert escape_group(group) == escaped
    assert unescape_group(escaped) == group


@given(st.text(min_size=1, alphabet=st.characters(exclude_categories=["Cs"])))
def test_every_group_survives_and_is_one_safe_part(group):
    escaped = escape_group(group)
    assert unescape_group(escaped) == group
    assert escaped not in {".", ".."}
    assert not set(escaped) & set("/#?%\\: ")


def test_a_group_needs_a_name():
    with pytest.raises(RawError):
        escape_group("")
    with pytest.raises(RawError):
        unescape_group("a/b")


def test_pointers():
    assert pointer_path("LATISS", 20260315, "a#1", 0, 2) == "LATISS/20260315/a_231/0/2.json"
    pointer = ArrivalPointer(
        key=KEY,
        generation=5,
        size=10,
        exposure_id=2024062400106,
        obs_id="AT_O_20240624_000106",
        group="a#1",
        snap=0,
        arrived_at="2024-06-25T01:27:10.000",
    )
    assert ArrivalPointer.from_json(pointer.to_json(), "x") == pointer
    with pytest.raises(RawError, match=r"somewhere.*snap"):
        ArrivalPointer.from_json({**pointer.model_dump(), "snap": -1}, "somewhere")
