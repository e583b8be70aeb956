"""Forced photometry at known objects."""

import numpy as np
import pytest
from astropy.wcs import WCS
from difference_scenes import gaussian_psf, white

from prompt_processing.images.forced import measure_forced
from prompt_processing.images.masks import MaskPlane

SHAPE = (300, 320)
SIGMA = 3.5


@pytest.fixture(scope="module")
def wcs():
    result = WCS(naxis=2)
    result.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    result.wcs.crval = [10.0, 5.0]
    result.wcs.crpix = [160.0, 150.0]
    result.wcs.cd = np.array([[-1.0, 0.0], [0.0, 1.0]]) * 0.0957 / 3600
    result.wcs.set()
    return result


def run(wcs, x, y, difference, science):
    ra, dec = wcs.all_pix2world(x, y, 0)
    psf = gaussian_psf(SHAPE, SIGMA)
    return measure_forced(difference, science, difference_psf=psf, science_psf=psf, wcs=wcs, ra=ra, dec=dec)


def test_fluxes_on_both_images_and_only_inside(wcs):
    difference, _ = white(SHAPE, SIGMA, [(100.4, 120.2, 5000.0)])
    science, _ = white(SHAPE, SIGMA, [(100.4, 120.2, 9000.0), (200.0, 50.0, 4000.0)], seed=6)
    difference.mask[250:, :] |= np.uint16(MaskPlane.NO_DATA)
    x, y = np.array([-50.0, 100.4, 200.0, 160.0]), np.array([10.0, 120.2, 50.0, 280.0])
    table = run(wcs, x, y, difference, science)
    assert list(table["index"]) == [1, 2]
    for name, expected in (("psf", [5000.0, 0.0]), ("science", [9000.0, 4000.0])):
        deviation = (table[f"{name}Flux"] - expected) / table[f"{name}FluxErr"]
        assert (np.abs(deviation) < 4).all()
        np.testing.assert_allclose(table[f"{name}FluxErr"], 10 * np.sqrt(4 * np.pi) * SIGMA, rtol=0.05)


def test_of_no_objects_there_are_no_rows(wcs):
    image, _ = white(SHAPE, SIGMA)
    assert len(run(wcs, np.empty(0), np.empty(0), image, image)) == 0
