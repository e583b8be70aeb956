"""Sources of both signs are found where they are."""

import numpy as np
import pytest
from difference_scenes import white

from prompt_processing.images.dia_detection import detect
from prompt_processing.images.masks import MaskPlane

SHAPE = (400, 420)
SIGMA = 3.6
UNIT = 10.0 * np.sqrt(4 * np.pi) * SIGMA  # flux of a source of S/N 1


def test_sources_of_both_signs_have_their_place_and_significance():
    masked, psf = white(SHAPE, SIGMA, [(100.2, 80.1, 20 * UNIT), (300.4, 250.7, -30 * UNIT)])
    peaks = detect(masked, psf, threshold=6.0)
    assert list(peaks["is_negative"]) == [False, True]
    np.testing.assert_allclose(peaks["x"], [100, 300], atol=1)
    np.testing.assert_allclose(peaks["y"], [80, 251], atol=1)
    np.testing.assert_allclose(peaks["snr"], [20, 30], atol=3)
    assert peaks.meta["snr_std"] == pytest.approx(1.0, abs=0.05)
    assert masked.mask[80, 100] & np.uint16(MaskPlane.DETECTED)
    assert masked.mask[251, 300] & np.uint16(MaskPlane.DETECTED_NEGATIVE)
    above = np.argwhere(masked.mask & np.uint16(MaskPlane.DETECTED))
    assert peaks["bbox_size"][0] == np.ptp(above, axis=0).max() + 1


def test_noise_alone_has_no_significant_peaks():
    masked, psf = white((1000, 1000), SIGMA)
    assert len(detect(masked, psf, threshold=5.5)) == 0
    assert not masked.mask.any()


def test_a_variance_plane_that_is_wrong_everywhere_does_no_harm():
    masked, psf = white((1000, 1000), SIGMA)
    masked.variance *= 0.25
    peaks = detect(masked, psf, threshold=5.5)
    assert len(peaks) == 0
    assert peaks.meta["snr_std"] == pytest.approx(2.0, rel=0.05)


def test_one_source_is_one_peak_and_two_are_two():
    sources = [(100, 100, 200 * UNIT), (200, 200, 40 * UNIT), (216, 200, 40 * UNIT)]
    masked, psf = white(SHAPE, SIGMA, sources)
    peaks = detect(masked, psf)
    assert len(peaks) == 3
    assert list(peaks["y"]) == sorted(peaks["y"])


@pytest.mark.parametrize("plane", [MaskPlane.NO_DATA, MaskPlane.EDGE, MaskPlane.CR])
def test_nothing_is_found_on_pixels_that_are_not_usable(plane):
    masked, psf = white(SHAPE, SIGMA, [(100, 100, 100 * UNIT)])
    masked.mask[80:121, 80:121] |= np.uint16(plane)
    assert len(detect(masked, psf)) == 0


def test_an_image_without_data_gives_an_empty_table():
    masked, psf = white((60, 60), SIGMA)
    masked.mask[:] = np.uint16(MaskPlane.NO_DATA)
    masked.image[:] = 0
    masked.variance[:] = 0
    peaks = detect(masked, psf)
    assert len(peaks) == 0
    assert peaks["is_negative"].dtype == bool
