import io
import xml.etree.ElementTree as ET

import numpy as np
from matplotlib.image import imread

from prompt_processing.views.alerts import Cutouts
from prompt_processing.web.figures import (
    completeness_curve,
    levels,
    light_curve,
    png,
    stretch,
    stretch_difference,
    stretch_limits,
    triplet,
)


def noise(level: float = 0.0, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(level, 1.0, (31, 31)).astype(np.float32)


def test_science_and_template_share_one_scale():
    science, template = noise(10.0), noise(10.0, seed=2)
    science[15, 15] = template[3, 3] = 60.0
    grey = levels(Cutouts(science, template, None))
    assert list(grey) == ["science", "template"]
    assert grey["science"][15, 15] == grey["template"][3, 3] > 200
    assert abs(float(np.median(grey["science"])) - float(np.median(grey["template"]))) < 12


def test_a_brighter_pixel_is_never_darker():
    science = noise(10.0)
    grey = stretch(science, stretch_limits(science))
    order = np.argsort(science, axis=None)
    assert np.all(np.diff(grey.ravel()[order].astype(int)) >= 0)
    assert grey.max() == 255


def test_no_change_is_grey_and_signs_go_both_ways():
    difference = noise()
    difference[10, 10], difference[20, 20] = 50.0, -50.0
    grey = stretch_difference(difference)
    assert abs(int(np.median(grey)) - 128) <= 2
    assert grey[10, 10] > 240
    assert grey[20, 20] < 15


def test_pixels_without_data_do_not_spoil_the_scale():
    science, difference = noise(10.0), noise()
    clean = stretch(science, stretch_limits(science))
    science[:4], difference[:4] = np.nan, np.nan
    grey = stretch(science, stretch_limits(science))
    assert np.all(grey[:4] == 0)
    assert np.abs(grey[10:].astype(int) - clean[10:].astype(int)).max() < 30
    assert np.all(stretch_difference(difference)[:4] == 128)
    empty = np.full((5, 5), np.nan, np.float32)
    assert np.all(stretch(empty, stretch_limits(empty)) == 0)
    assert np.all(stretch_difference(empty) == 128)


def test_a_png_has_its_first_row_at_the_bottom():
    grey = np.zeros((4, 3), np.uint8)
    grey[0] = 255
    image = imread(io.BytesIO(png(grey)), format="png")
    assert np.all(image[-1, :, 0] == 1.0)
    assert np.all(image[0, :, 0] == 0.0)


def test_a_triplet_shows_three_panels_side_by_side():
    image = imread(io.BytesIO(triplet(Cutouts(noise(10.0), noise(10.0), noise()))), format="png")
    height, width = image.shape[:2]
    assert height == 31 * (240 // 31)
    assert width == 3 * height + 12


def test_a_missing_cutout_is_left_out():
    image = imread(io.BytesIO(triplet(Cutouts(noise(10.0), None, noise()))), format="png")
    height, width = image.shape[:2]
    assert width == 2 * height + 6
    assert triplet(Cutouts()).startswith(b"\x89PNG")


def test_curves_are_drawings_in_the_colours_of_the_page():
    completeness = completeness_curve((5.0, 10.0, 50.0), (3, 0), (6, 0))
    curve = light_curve(
        np.array([60000.0, 60000.01, 60000.02]),
        np.array([1e3, 2e3, 3e3]),
        np.array([1e2, 1e2, 1e2]),
        np.array([True, False, True]),
    )
    for svg in (completeness, curve):
        assert ET.fromstring(svg).tag.endswith("svg")  # noqa: S314 (our own drawing)
        assert "currentColor" in svg
        assert "#010203" not in svg
    assert ">3/6<" in completeness
    assert "0/0" not in completeness
    assert "minutes after MJD 60000.00000" in curve
