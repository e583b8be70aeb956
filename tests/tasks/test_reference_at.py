"""Reference stars at the time of an image."""

import numpy as np
import pytest
from astropy.table import Table
from astropy.time import Time

from prompt_processing.domain.errors import NoRefcatError
from prompt_processing.tasks.calibrate_image import reference_at

MJD = Time(2026.0, format="jyear", scale="tai").mjd


def refcat(**columns):
    table = Table({"id": [1, 2], "ra": [10.0, 20.0], "dec": [60.0, -60.0], "r_mag": [15.0, 16.0], **columns})
    table.meta["epoch"] = 2016.0
    return table


def test_proper_motion_is_applied_from_the_catalogue_s_epoch():
    moved = reference_at(refcat(pm_ra=[100.0, np.nan], pm_dec=[-50.0, 10.0]), "r", MJD)
    # 100 mas/yr for 10 years is 1 arcsec on the sky, 2 arcsec in right ascension at 60 deg.
    assert moved["ra"][0] == pytest.approx(10.0 + 2.0 / 3600, abs=1e-9)
    assert moved["dec"][0] == pytest.approx(60.0 - 0.5 / 3600, abs=1e-9)
    # A star of unknown motion stays where it is.
    assert moved["ra"][1] == 20.0


def test_without_proper_motion_the_positions_are_those_of_the_catalogue():
    same = reference_at(refcat(), "r", MJD)
    assert same["ra"].tolist() == [10.0, 20.0]
    assert same["mag"].tolist() == [15.0, 16.0]


def test_a_catalogue_without_the_band_is_named():
    with pytest.raises(NoRefcatError, match="band i, only in r"):
        reference_at(refcat(), "i", MJD)
