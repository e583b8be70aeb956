"""All that read raws agree on whose they are: the arrivals service, the worker and the player of nights."""

import pytest

from prompt_processing.arrivals.pointers import Arrivals
from prompt_processing.domain.clock import WallClock
from prompt_processing.domain.errors import HeaderError
from prompt_processing.domain.identity import MAX_SNAPS, RawIdentity, raw_group, raw_identity
from prompt_processing.domain.raws import MAX_GROUP, SIDECAR_BYTES, parse_raw_key
from prompt_processing.instruments.ingest import read_observation
from prompt_processing.night.shots import find_shots
from prompt_processing.storage import object_store
from support import latiss_files as files

KEY = "LATISS/20240624/AT_O_20240624_000106/AT_O_20240624_000106_R00_S00.fits"
A, B = "2024-06-25T01:26:31.895#1", "2024-06-25T01:30:00.000#1"
NAMED = f'{{"GROUPID": " {B} "}}'.encode()
BROKEN = {
    "absent": None,
    "not JSON": b"{half",
    "not UTF-8": b"\xff\xfe",
    "too deep": b"[" * 60_000,
    "too large": NAMED[:-1] + b', "x": "' + b"x" * SIDECAR_BYTES + b'"}',
    "a text": f'"{B}"'.encode(),
    "a number": b"17",
    "without GROUPID": b'{"SNAP": 1}',
    "blank GROUPID": b'{"GROUPID": "  "}',
    "GROUPID no text": b'{"GROUPID": [1]}',
}


def by_arrivals(root, tmp_path):
    store = object_store.root(root)
    arrivals = Arrivals(store, object_store.root(tmp_path / "arrivals"), WallClock())
    return arrivals.identify(parse_raw_key(KEY))[0]


def by_worker(root, tmp_path):
    return read_observation(root / KEY).exposure_group


def by_player(root, tmp_path):
    (shot,) = find_shots(root, {}, start=None)
    return shot.group


CALLERS = [by_arrivals, by_worker, by_player]


def write(root, card, sidecar):
    path = files.write(root / KEY, files.primary_header(GROUPID=card))
    if sidecar is not None:
        path.with_suffix(".json").write_bytes(sidecar)


@pytest.mark.parametrize("caller", CALLERS)
class TestCallers:
    @pytest.mark.parametrize("card", [A, B, "  ", None, "x" * 300])
    def test_a_sidecar_that_names_a_group_wins(self, caller, card, tmp_path):
        write(tmp_path / "raw", card, NAMED)
        assert caller(tmp_path / "raw", tmp_path) == B

    @pytest.mark.parametrize("sidecar", BROKEN.values(), ids=BROKEN)
    def test_another_sidecar_counts_as_none(self, caller, sidecar, tmp_path):
        write(tmp_path / "raw", A, sidecar)
        assert caller(tmp_path / "raw", tmp_path) == A


@pytest.mark.parametrize("caller", [by_arrivals, by_worker])
@pytest.mark.parametrize("card", [None, "  "])
def test_a_science_raw_without_a_group_is_refused(caller, card, tmp_path):
    write(tmp_path / "raw", card, b"{}")
    with pytest.raises(HeaderError, match="GROUPID"):
        caller(tmp_path / "raw", tmp_path)


@pytest.mark.parametrize("group", ["x" * (MAX_GROUP + 1), "\ud800", "a\0b"])
def test_a_name_that_cannot_be_stored_is_refused(group):
    with pytest.raises(HeaderError, match="group name"):
        raw_group({"GROUPID": group}, None)


@pytest.mark.parametrize(
    ("header", "snap"), [(None, 0), ({}, 0), ({"CURINDEX": 1}, 0), ({"CURINDEX": MAX_SNAPS}, MAX_SNAPS - 1)]
)
def test_the_snap_is_counted_from_zero(header, snap):
    assert raw_identity(header, NAMED) == RawIdentity(B, snap)


@pytest.mark.parametrize("index", [0, -1, MAX_SNAPS + 1, True, 1.0, "1"])
def test_an_index_that_is_no_number_of_a_snap_is_refused(index):
    with pytest.raises(HeaderError, match="CURINDEX"):
        raw_identity({"CURINDEX": index}, NAMED)
