"""Making a repository and filling it with calibs and reference stars."""

import numpy as np
import pytest
from astropy.table import Table
from astropy.time import Time
from lsst.daf.butler import Butler, CollectionType, Timespan

from prompt_processing.domain import collections
from prompt_processing.domain.errors import NoCalibError, RepositoryError
from prompt_processing.factory.create import create_repository
from prompt_processing.repository.calibs import CalibRaws, _certify
from prompt_processing.repository.raws import DescribedRaw, describe_raws
from prompt_processing.repository.refcat import ingest_refcat
from support.nights import silent


@pytest.fixture(scope="module")
def repo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("repo")
    create_repository(folder)
    return folder


def test_creating_a_repository_again_changes_nothing(repo):
    with Butler.from_config(repo) as butler:
        before = sorted(butler.collections.query("*"))
    create_repository(repo)
    with Butler.from_config(repo) as butler:
        assert sorted(butler.collections.query("*")) == before
        assert butler.get("skyMap", skymap="rings_v1", collections=collections.SKYMAPS)["rings"] == 180


def test_calibs_are_valid_from_their_day_until_the_next_and_the_oldest_before_as_well(repo):
    days = {20260210: 2.0, 20260110: 1.0, 20260310: 3.0}
    with Butler.from_config(repo, writeable=True) as butler:
        # Not built in the order of their days.
        for day, value in days.items():
            run = f"LATISS/calib/{day}-test"
            butler.collections.register(run, CollectionType.RUN)
            image = np.full((2, 2), value, dtype=np.float32)
            ref = butler.put(image, "bias", instrument="LATISS", detector=0, run=run)
            for _ in range(2):
                _certify(butler, ref)

        def at(day):
            moment = Timespan.fromInstant(Time(f"{day}T03:00:00", scale="tai"))
            ref = butler.find_dataset(
                "bias", instrument="LATISS", detector=0, collections="LATISS/calib", timespan=moment
            )
            return butler.get(ref)[0, 0]

        dates = (
            "2025-06-01",
            "2026-01-11",
            "2026-02-10",
            "2026-02-11",
            "2026-03-10",
            "2026-03-11",
            "2030-01-01",
        )
        assert [at(date) for date in dates] == [1.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0]


def test_missing_calibration_frames_are_named(tmp_path):
    frames = CalibRaws(
        "LATISS", 0, [DescribedRaw(tmp_path / "d" / "o" / "x.fits", {"observation_type": "bias"})]
    )
    with pytest.raises(NoCalibError, match="there is no dark frame of detector 0"):
        frames.of("dark")


def test_a_folder_without_raws_is_named(tmp_path):
    with pytest.raises(RepositoryError, match="no such folder"):
        describe_raws(tmp_path / "calib")
    (tmp_path / "calib").mkdir()
    with pytest.raises(RepositoryError, match="no raw image"):
        describe_raws(tmp_path / "calib")


def write_refcat(path, **columns):
    table = {
        "id": [1, 2, 3], "ra": [10.0, 10.001, 190.0], "dec": [0.0, 0.001, 45.0], "r_mag": [15.0, 16.0, 17.0],
        "r_magErr": [0.01, 0.01, 0.01], **columns,
    }  # fmt: skip
    Table({name: value for name, value in table.items() if value is not None}).write(path)
    return path


def test_a_refcat_is_cut_into_shards_and_the_newest_wins(repo, tmp_path):
    first = write_refcat(tmp_path / "first.ecsv")
    assert ingest_refcat(repo, first, progress=silent) == 3
    assert ingest_refcat(repo, first, progress=silent) == 3
    with Butler.from_config(repo) as butler:
        refs = butler.query_datasets("refcat", collections=collections.REFCATS)
        assert sorted(len(butler.get(ref)) for ref in refs) == [1, 2]
    ingest_refcat(repo, write_refcat(tmp_path / "second.ecsv", r_mag=[18.0, 18.0, 18.0]), progress=silent)
    with Butler.from_config(repo) as butler:
        refs = butler.query_datasets("refcat", collections=collections.REFCATS)
        assert {value for ref in refs for value in butler.get(ref)["r_mag"]} == {18.0}


@pytest.mark.parametrize(
    ("columns", "word"),
    [
        ({"dec": None}, "column dec"),
        ({"r_mag": None, "r_magErr": None}, "<band>_mag"),
        ({"r_magErr": None}, "r_magErr"),
        ({"dec": [0.0, 95.0, 0.0]}, "row 1"),
        ({"ra": [np.nan, 0.0, 0.0]}, "row 0"),
    ],
)
def test_what_is_wrong_with_a_refcat_is_named(repo, tmp_path, columns, word):
    with pytest.raises(RepositoryError, match=word):
        ingest_refcat(repo, write_refcat(tmp_path / "bad.ecsv", **columns), progress=silent)


def test_a_file_that_is_no_table_is_named(repo, tmp_path):
    (tmp_path / "x.ecsv").write_text("nothing of the kind")
    with pytest.raises(RepositoryError, match="not a table"):
        ingest_refcat(repo, tmp_path / "x.ecsv", progress=silent)
