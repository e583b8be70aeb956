"""Warping keeps fluxes, positions, noise and masks."""

import numpy as np
import pytest
from astropy.wcs import WCS

from prompt_processing.images.exposure import MaskedImage
from prompt_processing.images.masks import MaskPlane
from prompt_processing.images.warp import mosaic, warp

SCALE = 0.0957 / 3600
SHAPE = (180, 200)


def make_wcs(shape=SHAPE, *, rotation=0.0, dx=0.0, dy=0.0, scale=SCALE, sip=0.0):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"] if sip else ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [359.9999, -30.0]
    wcs.wcs.crpix = [shape[1] / 2 + 0.5 + dx, shape[0] / 2 + 0.5 + dy]
    c, s = np.cos(np.radians(rotation)), np.sin(np.radians(rotation))
    wcs.wcs.cd = scale * np.array([[-c, s], [s, c]])
    if sip:
        from astropy.wcs import Sip

        a, b = np.zeros((4, 4)), np.zeros((4, 4))
        a[3, 0], b[0, 3] = sip, -sip
        wcs.sip = Sip(a, b, None, None, wcs.wcs.crpix)
    wcs.wcs.set()
    return wcs


def star(x, y, shape=SHAPE, sigma=3.2, flux=1e5):
    ys, xs = np.mgrid[: shape[0], : shape[1]]
    return flux / (2 * np.pi * sigma**2) * np.exp(-0.5 * ((xs - x) ** 2 + (ys - y) ** 2) / sigma**2)


def masked(image, variance=1.0):
    return MaskedImage(image, np.full(image.shape, variance), np.zeros(image.shape, np.uint16))


def centroid(image):
    ys, xs = np.mgrid[: image.shape[0], : image.shape[1]]
    return (image * xs).sum() / image.sum(), (image * ys).sum() / image.sum()


@pytest.mark.parametrize(
    ("rotation", "scale", "sip"),
    [(0.3, 1.0, 0.0), (37.0, 1.0, 0.0), (180.0, 1.02, 0.0), (0.3, 1.0, 2e-7)],
)
def test_flux_and_position_of_a_star_are_kept(rotation, scale, sip):
    from_wcs, to_wcs = make_wcs(sip=sip), make_wcs(rotation=rotation, dx=3.3, dy=-2.7, scale=SCALE * scale)
    image = star(110.3, 78.8)
    result = warp(masked(image), from_wcs, to_wcs, SHAPE)
    x, y = to_wcs.all_world2pix(*from_wcs.all_pix2world(110.3, 78.8, 0), 0)
    assert result.image.sum() == pytest.approx(1e5, rel=1e-3)
    assert centroid(result.image) == (pytest.approx(float(x), abs=0.01), pytest.approx(float(y), abs=0.01))


def test_the_same_grid_gives_the_same_image():
    image = star(100.2, 90.1) + np.random.default_rng(1).normal(size=SHAPE)
    result = warp(masked(image), make_wcs(), make_wcs(), SHAPE)
    inner = np.s_[6:-6, 6:-6]
    np.testing.assert_allclose(result.image[inner], image[inner], atol=2e-3)
    assert not result.mask[inner].any()


def test_the_variance_predicts_the_noise_of_a_fit_with_the_psf():
    noise = np.random.default_rng(2).normal(size=(700, 700))
    wcs = make_wcs((700, 700))
    result = warp(masked(noise, 1.0), wcs, make_wcs((700, 700), rotation=0.4, dx=0.37), (700, 700))
    from scipy.ndimage import gaussian_filter

    inner = result.image[30:-30, 30:-30].astype(float)
    expected = np.sqrt(result.variance[300, 300] / (4 * np.pi * 3.2**2))
    assert gaussian_filter(inner, 3.2)[20:-20, 20:-20].std() == pytest.approx(expected, rel=0.05)
    assert inner.std() < 1.0  # interpolation itself only takes noise away


def test_outside_of_the_source_there_is_no_data():
    result = warp(masked(np.ones(SHAPE)), make_wcs(), make_wcs(dx=60), SHAPE)
    no_data = (result.mask & np.uint16(MaskPlane.NO_DATA)) != 0
    assert no_data[:, :58].all()
    assert not no_data[10:-10, 70:].any()
    assert not result.image[no_data].any()


def test_a_source_elsewhere_in_the_sky_leaves_nothing():
    far = make_wcs()
    far.wcs.crval = [180.0, 30.0]
    far.wcs.set()
    result = warp(masked(np.ones(SHAPE)), far, make_wcs(), SHAPE)
    assert ((result.mask & np.uint16(MaskPlane.NO_DATA)) != 0).all()


def test_pixels_without_a_value_do_not_spread():
    source = masked(np.full(SHAPE, 10.0))
    source.image[90, 100] = np.nan
    source.mask[60:70, 60:70] |= np.uint16(MaskPlane.NO_DATA)
    source.image[60:70, 60:70] = 1e30
    result = warp(source, make_wcs(), make_wcs(dx=0.5, dy=0.5), SHAPE)
    good = (result.mask & np.uint16(MaskPlane.NO_DATA)) == 0
    inner = np.s_[8:-8, 8:-8]
    np.testing.assert_allclose(result.image[inner][good[inner]], 10.0, rtol=1e-5)
    assert not good[62:68, 62:68].any()
    assert not good[90, 100]
    assert good[90, 110]


def test_mask_bits_come_from_the_nearest_pixels():
    source = masked(np.ones(SHAPE))
    source.mask[90, 100] |= np.uint16(MaskPlane.SAT)
    result = warp(source, make_wcs(), make_wcs(dx=0.5, dy=0.0), SHAPE)
    assert np.argwhere(result.mask & np.uint16(MaskPlane.SAT)).tolist() == [[90, 100], [90, 101]]


def test_two_patches_make_one_image_without_a_seam():
    image = star(100.0, 90.0)
    left, right = masked(image[:, :120].copy()), masked(image[:, 90:].copy())
    left_wcs, right_wcs = make_wcs(), make_wcs(dx=-90)
    to_wcs = make_wcs(rotation=0.2)
    joined = mosaic([(left, left_wcs), (right, right_wcs)], to_wcs, SHAPE)
    whole = warp(masked(image), make_wcs(), to_wcs, SHAPE)
    inner = np.s_[8:-8, 8:-8]
    assert not (joined.mask[inner] & np.uint16(MaskPlane.NO_DATA)).any()
    np.testing.assert_allclose(joined.image[inner], whole.image[inner], atol=0.05)
    assert joined.image.sum() == pytest.approx(1e5, rel=1e-3)
