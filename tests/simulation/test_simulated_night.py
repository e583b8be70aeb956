import json
import re
import shutil

import pytest
from astropy.io import fits

from prompt_processing.domain.errors import ConfigError, ConflictError
from prompt_processing.images.amplifier import assemble
from prompt_processing.instruments.raw import read_raw
from prompt_processing.simulation.cameras import LATISS
from prompt_processing.simulation.frames import plan_frames
from prompt_processing.simulation.night import simulate_night
from prompt_processing.simulation.profiles import PROFILES

KEY = re.compile(r"LATISS/\d{8}/(AT_O_\d{8}_\d{6})/\1_R00_S00\.f\w+(\.fz)?")


def files(night):
    return {path.relative_to(night).as_posix(): path for path in night.rglob("*") if path.is_file()}


def test_layout_is_complete(night, exposures):
    found = files(night)
    counts = {"bias": 5, "dark": 3, "flat": 4, "template": 4, "science": 3}
    assert {kind: int((exposures["kind"] == kind).sum()) for kind in counts} == counts
    folders = {"bias": "calib", "dark": "calib", "flat": "calib", "template": "template", "science": "raw"}
    for row in exposures:
        stem = f"{folders[row['kind']]}/LATISS/{row['obs_id'][5:13]}/{row['obs_id']}/{row['obs_id']}_R00_S00"
        suffix = ".fits.fz" if row["kind"] == "template" else ".fits"
        assert f"{stem}{suffix}" in found
        assert f"{stem}.json" in found
        assert KEY.fullmatch(f"{stem}{suffix}".partition("/")[2])
    for name in ("refcat.ecsv", "events.jsonl", "truth/exposures.ecsv", "truth/amplifiers.ecsv"):
        assert name in found
    for obs_id in exposures["obs_id"][exposures["kind"] == "science"]:
        for name in ("transients", "variables", "moving", "stars", "cosmic_rays", "streaks"):
            assert f"truth/{obs_id}/{name}.ecsv" in found


def test_both_forms_of_raws_are_there(raws, exposures):
    with fits.open(raws.path(exposures["obs_id"][exposures["kind"] == "science"][0])) as hdus:
        assert [type(hdu) for hdu in hdus[1:]] == [fits.ImageHDU] * 16
        assert hdus[1].name.upper() == "SEGMENT10"
        assert hdus[1].header["EXTNAME"] == "Segment10"
    with fits.open(raws.path(exposures["obs_id"][exposures["kind"] == "template"][0])) as hdus:
        assert [type(hdu) for hdu in hdus[1:]] == [fits.CompImageHDU] * 16
        assert hdus[1].header["EXTNAME"] == "Segment10"
        assert hdus[16].data.dtype.kind == "i"


def test_the_reader_sees_the_detector_as_the_simulator_does(raws, exposures, gains):
    obs_id = exposures["obs_id"][exposures["kind"] == "science"][-1]
    raw = read_raw(raws.path(obs_id))
    detector = assemble(raw.amplifiers, [amplifier.pixels[amplifier.data] for amplifier in raw.amplifiers])
    ones = dict.fromkeys(gains, 1.0)
    mine = raws.assemble(obs_id, ones)
    assert detector.shape == mine.shape == (600, 640)
    # They differ by the overscan, which only one of them takes away: smooth within an amplifier.
    for rows, columns in ((slice(300), slice(80)), (slice(300, 600), slice(560, 640))):
        assert (detector - mine)[rows, columns].std() < 10


def test_deleted_files_are_made_again_identically_and_no_others(night, seed, tmp_path, exposures):
    copy = tmp_path / "night"
    shutil.copytree(night, copy)
    names = [name for name in files(copy) if name.endswith("01_R00_S00.fits") and name.startswith("raw")]
    names += [
        name for name in files(copy) if name.startswith("template") and name.endswith("60_R00_S00.fits.fz")
    ]
    names += [name for name in files(copy) if name.startswith("calib") and name.endswith("07_R00_S00.fits")]
    names += ["refcat.ecsv", "events.jsonl", f"truth/{exposures['obs_id'][-1]}/transients.ecsv"]
    assert len(names) == 6
    for name in names:
        (copy / name).unlink()
    before = {name: path.stat().st_mtime_ns for name, path in files(copy).items()}

    summary = simulate_night(copy, seed=seed, visits=3, size="small")

    assert (summary.files_written, summary.files_kept) == (6, len(before) + 6 - 7)
    after = files(copy)
    assert set(after) == set(files(night))
    for name, path in after.items():
        if name in names:
            assert path.read_bytes() == (night / name).read_bytes(), name
        else:
            assert path.stat().st_mtime_ns == before[name], name


def test_a_complete_night_is_left_alone(night, seed):
    told = []
    summary = simulate_night(
        night, seed=seed, visits=3, size="small", progress=lambda *step: told.append(step)
    )
    assert summary.files_written == 0
    assert told == []
    assert summary.transients == (15, 15, 15)
    assert len(summary.visits) == 3


@pytest.mark.parametrize("other", [{"seed": 6}, {"visits": 2}, {"size": "full"}])
def test_a_folder_holds_one_night_only(night, seed, other):
    with pytest.raises(ConflictError, match="holds another simulated night"):
        simulate_night(night, **({"seed": seed, "visits": 3, "size": "small"} | other))


def test_a_folder_with_other_things_is_refused(tmp_path):
    (tmp_path / "letter.txt").write_text("not a night")
    with pytest.raises(ConflictError, match="not a simulated night"):
        simulate_night(tmp_path, seed=1, size="small")
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"instrument": "HSC"}, "HSC"),
        ({"seed": -1}, "-1"),
        ({"visits": 0}, "0 visits"),
        ({"size": "big"}, "big"),
    ],
)
def test_senseless_arguments_are_refused(tmp_path, wrong, named):
    with pytest.raises(ConfigError, match=named):
        simulate_night(tmp_path / "night", **({"seed": 1, "size": "small"} | wrong))
    assert not (tmp_path / "night").exists()


def test_seeds_give_other_nights():
    first, second = (plan_frames(PROFILES["small"], seed, 2, LATISS) for seed in (1, 2))
    assert first[-1].obs_id != second[-1].obs_id
    assert first[-1].aim.ra != second[-1].aim.ra


def test_what_the_night_is_stands_in_its_truth(night, seed):
    stated = json.loads((night / "truth" / "simulation.json").read_text())
    assert stated == {"instrument": "LATISS", "seed": seed, "visits": 3, "size": "small"}
