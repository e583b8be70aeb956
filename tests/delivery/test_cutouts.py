"""Cutouts."""

import io

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData, VarianceUncertainty
from astropy.wcs import WCS

from prompt_processing.delivery.cutouts import cutout_sizes, make_cutouts
from prompt_processing.images.exposure import Exposure, MaskedImage
from prompt_processing.images.masks import MASK_DTYPE, MaskPlane
from prompt_processing.images.psf import PsfModel

NY, NX = 90, 120


def make_wcs():
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"]
    wcs.wcs.crpix = [60.0, 45.0]
    wcs.wcs.crval = [0.0005, -35.0]
    angle, scale = np.radians(30.0), 0.0957 / 3600
    wcs.wcs.cd = scale * np.array([[-np.cos(angle), np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    from astropy.wcs import Sip

    a = np.zeros((3, 3))
    a[2, 0] = 1e-6
    wcs.sip = Sip(a, a.T.copy(), None, None, [60.0, 45.0])
    return wcs


def make_psf():
    y, x = np.mgrid[-7:8, -7:8]
    return PsfModel(np.exp(-(x**2 + y**2) / 8)[None], 0, (NY, NX))


@pytest.fixture
def exposure():
    image = np.arange(NY * NX, dtype=np.float32).reshape(NY, NX)
    mask = np.zeros((NY, NX), dtype=np.uint16)
    mask[40, 50] = MaskPlane.CR | MaskPlane.SAT_TEMPLATE
    planes = MaskedImage(image, image + 1, mask)
    return Exposure(planes, "nJy", make_wcs(), make_psf(), {"rotation": 123.5})


def read(cutout):
    return CCDData.read(io.BytesIO(cutout), format="fits")


def test_a_cutout_holds_the_pixels_around_the_source(exposure):
    (cutout,) = make_cutouts(exposure, [50.2], [40.4], [30])
    data = read(cutout)
    assert data.unit == u.nJy
    assert data.shape == (30, 30)
    np.testing.assert_array_equal(data.data, exposure.masked_image.image[25:55, 35:65])
    assert isinstance(data.uncertainty, VarianceUncertainty)
    np.testing.assert_array_equal(data.uncertainty.array, exposure.masked_image.variance[25:55, 35:65])
    assert data.mask[15, 15]
    assert data.mask.sum() == 1
    assert data.psf.shape == (15, 15)
    assert data.psf.sum() == pytest.approx(1.0, abs=1e-6)
    assert data.psf.argmax() == 7 * 15 + 7
    assert data.header["ROTPA"] == 123.5


def test_the_mask_keeps_its_bits_and_names_them(exposure):
    (cutout,) = make_cutouts(exposure, [50.2], [40.4], [30])
    with fits.open(io.BytesIO(cutout)) as hdus:
        hdus.verify("exception")
        mask = hdus["MASK"]
        assert mask.data[15, 15] == 1 << mask.header["MP_CR"] | 1 << mask.header["MP_SAT_TEMPLATE"]


def test_every_plane_fits_into_the_mask():
    # Masks are stored as signed 16-bit integers.
    assert max(MaskPlane) < np.iinfo(np.int16).max
    assert MASK_DTYPE.itemsize == 2


@pytest.mark.parametrize("position", [(50.2, 40.4), (3.0, 86.9), (60.0, 45.0)])
def test_the_linear_wcs_agrees_with_the_image(exposure, position):
    (cutout,) = make_cutouts(exposure, [position[0]], [position[1]], [31])
    data = read(cutout)
    assert data.wcs.wcs.ctype[0] == "RA---TAN"
    corner = data.header["CUTMINX"], data.header["CUTMINY"]
    grid = np.array([[x, y] for x in (2.0, 15.0, 28.0) for y in (2.0, 15.0, 28.0)])
    sky = data.wcs.all_pix2world(grid, 0)
    expected = exposure.wcs.all_pix2world(grid + corner, 0)
    difference = (sky - expected + 180) % 360 - 180
    assert np.abs(difference).max() * 3600 < 1e-3
    at_source = data.wcs.all_pix2world([[position[0] - corner[0], position[1] - corner[1]]], 0)
    source = exposure.wcs.all_pix2world([position], 0)
    np.testing.assert_allclose(at_source, source, rtol=0, atol=1e-10)


def test_outside_the_image_there_is_nothing(exposure):
    cutouts = make_cutouts(exposure, [0.0, 119.4, 500.0], [0.0, 89.4, 40.0], [30, 31, 30])
    corner, other, far = map(read, cutouts)
    assert np.isnan(corner.data[:15, :]).all()
    assert np.isnan(corner.data[:, :15]).all()
    np.testing.assert_array_equal(corner.data[15:, 15:], exposure.masked_image.image[:15, :15])
    np.testing.assert_array_equal(other.data[:16, :16], exposure.masked_image.image[74:, 104:])
    assert np.isnan(other.uncertainty.array[16:, :]).all()
    assert np.isnan(far.data).all()
    with fits.open(io.BytesIO(cutouts[2])) as hdus:
        assert (hdus["MASK"].data == MaskPlane.NO_DATA).all()


def test_an_image_without_psf_has_a_cutout_without(exposure):
    exposure.psf = None
    (cutout,) = make_cutouts(exposure, [50.0], [40.0], [30])
    assert read(cutout).psf is None


def test_sizes_are_bounded():
    assert cutout_sizes([1, 30, 50, 1000]).tolist() == [30, 30, 50, 102]


def test_cutouts_need_calibrated_pixels(exposure):
    exposure.unit = "electron"
    with pytest.raises(ValueError, match="electron"):
        make_cutouts(exposure, [1.0], [1.0], [30])
