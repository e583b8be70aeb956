import dataclasses
import json
import math

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS, Sip

from prompt_processing.images.exposure import Exposure, MaskedImage
from prompt_processing.images.masks import MaskPlane
from prompt_processing.images.psf import PsfModel
from prompt_processing.instruments.exposure_fits import (
    component_of,
    read_component,
    read_exposure,
    write_exposure,
)
from prompt_processing.instruments.pointing import predicted_wcs

SHAPE = (60, 70)


def tan(shape=SHAPE):
    # numbers with no short decimal form, so that a rounded one would be noticed
    return predicted_wcs(math.pi * 71, -math.e * 7, 360 / 7, shape, 0.0956951234567891)


def tan_sip():
    wcs = tan()
    rng = np.random.default_rng(5)
    wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"]
    terms = [np.triu(rng.normal(size=(4, 4)))[::-1] * 1e-7 for _ in range(4)]
    wcs.sip = Sip(*terms, wcs.wcs.crpix)
    wcs.wcs.set()
    return wcs


def from_pc_and_cdelt():
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cdelt = [1 / 3, 2 / 3], [30.1, 29.7], [-1e-4 / 3, 1e-4 / 3]
    wcs.wcs.pc = [[math.cos(0.1), -math.sin(0.1)], [math.sin(0.1), math.cos(0.1)]]
    wcs.wcs.set()
    return wcs


def forward_sip_only():
    wcs = tan()
    wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"]
    a = np.zeros((3, 3))
    a[2, 0] = 1e-7 / 3
    wcs.sip = Sip(a, a.T.copy(), None, None, wcs.wcs.crpix)
    wcs.wcs.set()
    return wcs


@pytest.fixture
def exposure():
    rng = np.random.default_rng(3)
    image = rng.normal(1000, 50, SHAPE).astype(np.float32)
    variance = rng.uniform(1, 2, SHAPE).astype(np.float32)
    image[0, :5] = [np.nan, np.inf, -np.inf, -0.0, np.float32(1e-45)]
    mask = rng.integers(0, 2**16, SHAPE).astype(np.uint16)
    psf = PsfModel(rng.normal(size=(6, 21, 21)) / 3, 2, SHAPE)
    info = {
        "instrument": "LATISS", "visit": 2024062400106, "group": "2024-06-25T01:26:31.895#1",
        "mjd_mid_tai": 60486.1 / 3, "ra": None, "patches": ["1/2", "3/4"], "note": "grüße",
        "flag": True, "nothing": math.inf,
    }  # fmt: skip
    return Exposure(MaskedImage(image, variance, mask), "nJy", tan_sip(), psf, info)


def bits(array):
    return array.dtype, array.shape, array.tobytes()


def test_every_part_comes_back_with_the_same_bits(tmp_path, exposure):
    path = tmp_path / "a.fits"
    write_exposure(exposure, path)
    back = read_exposure(path)
    for plane in ("image", "variance", "mask"):
        assert bits(getattr(back.masked_image, plane)) == bits(getattr(exposure.masked_image, plane))
    assert bits(back.psf.coefficients) == bits(exposure.psf.coefficients)
    assert (back.psf.order, back.psf.shape) == (exposure.psf.order, exposure.psf.shape)
    assert (back.info, back.unit) == (exposure.info, exposure.unit)
    assert list(back.info) == list(exposure.info)


@pytest.mark.parametrize("make", [tan, tan_sip, from_pc_and_cdelt, forward_sip_only])
def test_the_wcs_evaluates_to_the_same_bits(tmp_path, exposure, make):
    wcs = make()
    path = tmp_path / "a.fits"
    write_exposure(dataclasses.replace(exposure, wcs=wcs), path)
    back = read_component(path, "wcs")
    pixels = np.random.default_rng(1).uniform(-20, 90, (200, 2))
    sky = wcs.all_pix2world(pixels, 0)
    assert bits(back.all_pix2world(pixels, 0)) == bits(sky)
    assert bits(back.wcs_pix2world(pixels, 0)) == bits(wcs.wcs_pix2world(pixels, 0))
    assert bits(back.wcs_world2pix(sky, 0)) == bits(wcs.wcs_world2pix(sky, 0))
    assert bits(back.all_world2pix(sky, 0)) == bits(wcs.all_world2pix(sky, 0))
    assert (back.pixel_shape, back.wcs.radesys) == (wcs.pixel_shape, wcs.wcs.radesys)
    # and once more, from what was read
    write_exposure(dataclasses.replace(exposure, wcs=back), path)
    assert bits(read_component(path, "wcs").all_pix2world(pixels, 0)) == bits(sky)


def test_writing_the_same_exposure_gives_the_same_file(tmp_path, exposure):
    write_exposure(exposure, tmp_path / "a.fits")
    write_exposure(read_exposure(tmp_path / "a.fits"), tmp_path / "b.fits")
    assert (tmp_path / "a.fits").read_bytes() == (tmp_path / "b.fits").read_bytes()


def test_an_exposure_without_wcs_psf_and_info(tmp_path, exposure):
    bare = Exposure(exposure.masked_image, "electron")
    write_exposure(bare, tmp_path / "a.fits")
    back = read_exposure(tmp_path / "a.fits")
    assert (back.wcs, back.psf, back.info, back.unit) == (None, None, {}, "electron")


@pytest.mark.parametrize("component", ["image", "mask", "variance", "wcs", "psf", "info", "unit", "shape"])
def test_components_are_those_of_the_whole(tmp_path, exposure, component):
    write_exposure(exposure, tmp_path / "a.fits")
    alone, whole = read_component(tmp_path / "a.fits", component), component_of(exposure, component)
    if isinstance(whole, np.ndarray):
        assert bits(alone) == bits(whole)
    elif isinstance(whole, PsfModel):
        assert bits(alone.coefficients) == bits(whole.coefficients)
    elif isinstance(whole, WCS):
        assert bits(alone.wcs.cd) == bits(whole.wcs.cd)
    else:
        assert alone == whole


def test_there_is_no_other_component(tmp_path, exposure):
    write_exposure(exposure, tmp_path / "a.fits")
    with pytest.raises(KeyError):
        read_component(tmp_path / "a.fits", "calib")


def test_display_tools_find_wcs_and_mask_planes_in_ordinary_cards(tmp_path, exposure):
    write_exposure(exposure, tmp_path / "a.fits")
    pixels = [[3.0, 4.0], [60.0, 50.0]]
    with fits.open(tmp_path / "a.fits", output_verify="exception") as hdus:
        hdus.verify("exception")
        for name in ("IMAGE", "MASK", "VARIANCE"):
            sky = WCS(hdus[name].header).all_pix2world(pixels, 0)
            np.testing.assert_allclose(sky, exposure.wcs.all_pix2world(pixels, 0), atol=1e-9)
        planes = {card[3:]: 1 << bit for card, bit in hdus["MASK"].header.items() if card.startswith("MP_")}
        assert planes == {plane.name: plane.value for plane in MaskPlane}
        assert hdus["IMAGE"].header["BUNIT"] == "nJy"
        assert hdus[0].header["VISIT"] == 2024062400106
        assert (hdus["IMAGE"].data.dtype.kind, hdus["MASK"].data.dtype.name) == ("f", "uint16")


def test_numpy_numbers_in_the_info_become_plain_ones(tmp_path, exposure):
    exposure.info = {"a": np.float64(1 / 3), "b": np.int64(2**53 + 1), "c": np.bool_(1)}
    write_exposure(exposure, tmp_path / "a.fits")
    plain = {"a": 1 / 3, "b": 2**53 + 1, "c": True}
    assert json.dumps(read_component(tmp_path / "a.fits", "info")) == json.dumps(plain)


def test_info_that_json_cannot_hold_is_refused(tmp_path, exposure):
    exposure.info = {"a": object()}
    with pytest.raises(TypeError, match="not a JSON value"):
        write_exposure(exposure, tmp_path / "a.fits")


def tpv():
    wcs = tan()
    wcs.wcs.ctype = ["RA---TPV", "DEC--TPV"]
    wcs.wcs.set_pv([(1, 1, 1.01)])
    return wcs


def with_pv():
    wcs = tan()
    wcs.wcs.set_pv([(2, 3, 1.01)])
    return wcs


@pytest.mark.parametrize("make", [tpv, with_pv, lambda: WCS(naxis=2)])
def test_a_wcs_that_would_lose_something_is_refused(tmp_path, exposure, make):
    with pytest.raises(ValueError, match="WCS"):
        write_exposure(dataclasses.replace(exposure, wcs=make()), tmp_path / "a.fits")


def test_a_file_of_another_kind_is_refused(tmp_path):
    fits.PrimaryHDU(np.zeros((5, 5))).writeto(tmp_path / "a.fits")
    with pytest.raises(KeyError):
        read_exposure(tmp_path / "a.fits")
