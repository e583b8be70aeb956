"""Raws are put into a landing store, and never changed there."""

import shutil

import pytest

from prompt_processing.domain.errors import ConflictError, RawError, StoreError
from prompt_processing.night.files import find_raws
from prompt_processing.night.landing import Landing
from prompt_processing.night.upload import upload_raws
from prompt_processing.storage import object_store
from support.nights import contents


def found(*sources):
    skipped = []
    return find_raws(sources, skipped.append), skipped


def uploaded(night, incoming, landing=Landing):
    results = {}
    upload_raws(
        found(night.folder)[0],
        landing(object_store.root(incoming)),
        threads=4,
        on_raw=lambda result: results.update({str(result.raw): result}),
    )
    return results


@pytest.fixture
def incoming(tmp_path):
    return tmp_path / "incoming"


def test_of_a_night_only_its_raws_are_found(make_night):
    night = make_night()
    shutil.copytree(night.folder / "raw", night.folder / "calib")
    (night.folder / "raw" / "notes.txt").write_text("cloudy")
    raws, skipped = found(night.folder)
    assert [str(file.raw) for file in raws] == night.keys
    assert [file.path for file in raws] == night.raws
    assert skipped == [f"{night.folder / 'raw' / 'notes.txt'}: skipped, it is no raw and no sidecar of one"]


def test_folders_and_files_are_found_by_the_end_of_their_paths(make_night, monkeypatch):
    night = make_night()
    raws, skipped = found(night.raws[1].parent, night.raws[2], night.raws[1])
    assert ([str(file.raw) for file in raws], skipped) == (night.keys[1:], [])
    monkeypatch.chdir(night.raws[0].parent)
    (raw,) = found(night.raws[0].relative_to(night.raws[0].parent))[0]
    assert str(raw.raw) == night.keys[0]


def test_odd_files_are_refused(make_night, tmp_path):
    night = make_night(1)
    odd = tmp_path / "image.fits"
    shutil.copy(night.raws[0], odd)
    with pytest.raises(RawError, match=r"image\.fits: .* must end with INSTRUMENT/DAY_OBS/OBS_ID"):
        found(night.folder, odd)
    with pytest.raises(RawError, match="there is no raw"):
        found(night.folder.parent / "night" / "raw" / "LATISS" / "20260315" / "..")
    twin = tmp_path / "elsewhere" / night.keys[0]
    shutil.copytree(night.raws[0].parent, twin.parent)
    with pytest.raises(RawError, match="two files"):
        found(night.folder, twin)


def test_a_repeated_upload_changes_nothing(make_night, incoming):
    night = make_night()
    assert all(result.new for result in uploaded(night, incoming).values())
    before = contents(incoming)
    assert before == contents(night.folder / "raw")
    stamps = {path: path.stat().st_mtime_ns for path in incoming.rglob("*.fits")}
    again = uploaded(night, incoming)
    assert again.keys() == set(night.keys)
    assert not any(result.new or result.error for result in again.values())
    assert contents(incoming) == before
    assert {path: path.stat().st_mtime_ns for path in incoming.rglob("*.fits")} == stamps


def test_an_interrupted_upload_is_continued(make_night, incoming):
    night = make_night()
    uploaded(night, incoming)
    (incoming / night.keys[1]).unlink()
    assert [key for key, result in uploaded(night, incoming).items() if result.new] == [night.keys[1]]
    assert contents(incoming) == contents(night.folder / "raw")


def test_another_object_is_left_alone_and_told(make_night, incoming):
    night = make_night()
    there = incoming / night.keys[1]
    there.parent.mkdir(parents=True)
    there.write_bytes(b"half of it")
    results = uploaded(night, incoming)
    assert isinstance(results[night.keys[1]].error, ConflictError)
    assert "of 10 bytes instead of" in str(results[night.keys[1]].error)
    assert there.read_bytes() == b"half of it"
    assert sum(result.new for result in results.values()) == 2


def test_a_raw_without_sidecar_is_uploaded(make_night, incoming):
    night = make_night(1)
    night.sidecar(0).unlink()
    assert uploaded(night, incoming)[night.keys[0]].new
    assert list(contents(incoming)) == night.keys


def test_an_image_is_not_uploaded_when_its_sidecar_was_not(make_night, incoming):
    class Failing(Landing):
        def put_sidecar(self, file):
            if file.raw.obs_id.endswith("2"):
                raise StoreError("no answer")
            return super().put_sidecar(file)

    night = make_night()
    results = uploaded(night, incoming, Failing)
    assert [key for key, result in results.items() if result.error] == [night.keys[1]]
    assert not (incoming / night.keys[1]).exists()
    assert (incoming / night.keys[2]).exists()


def test_an_image_can_be_truncated(make_night, incoming):
    night = make_night(1)
    (file,), _ = found(night.folder)
    landing = Landing(object_store.root(incoming))
    whole = night.raws[0].read_bytes()
    assert landing.put_image(file, keep=0.25)
    assert (incoming / night.keys[0]).read_bytes() == whole[: len(whole) // 4]
    assert not landing.put_image(file, keep=0.25)
    with pytest.raises(ConflictError):
        landing.put_image(file)


def test_a_file_that_has_gone_is_told(make_night, incoming):
    night = make_night(1)
    (file,), _ = found(night.folder)
    night.raws[0].unlink()
    for keep in (1.0, 0.5):
        with pytest.raises(RawError, match="cannot be read"):
            Landing(object_store.root(incoming)).put_image(file, keep)
