"""Trails are found where they are, and only there."""

import numpy as np
import pytest
from difference_scenes import white

from prompt_processing.images.masks import MaskPlane
from prompt_processing.images.streaks import mask_streaks

SHAPE = (900, 1000)
STREAK = np.uint16(MaskPlane.STREAK)


def add_trail(masked, angle, offset, height, *, sigma=4.0, first=-2000.0, last=2000.0):
    """A trail through the centre plus ``offset`` across; height in standard deviations of a pixel."""
    ys, xs = np.mgrid[: masked.shape[0], : masked.shape[1]]
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    dx, dy = xs - masked.shape[1] / 2, ys - masked.shape[0] / 2
    across, along = -s * dx + c * dy - offset, c * dx + s * dy
    inside = (along > first) & (along < last)
    masked.image += (10.0 * height * np.exp(-0.5 * (across / sigma) ** 2) * inside).astype(np.float32)
    return across, along


@pytest.mark.parametrize("angle", [0.0, 33.0, 90.0, 141.5])
@pytest.mark.parametrize("height", [1.0, 4.0, -4.0])
def test_a_trail_is_covered_and_little_else(angle, height):
    masked, _ = white(SHAPE, 3.5)
    across, _ = add_trail(masked, angle, 60.0, height)
    assert mask_streaks(masked) == 1
    marked = (masked.mask & STREAK) != 0
    assert marked[np.abs(across) < 7].mean() > 0.97
    assert not marked[np.abs(across) > 24].any()


def test_a_trail_that_ends_in_the_image_is_marked_as_far_as_it_goes():
    masked, _ = white(SHAPE, 3.5)
    across, along = add_trail(masked, 20.0, 0.0, 3.0, first=-1000.0, last=100.0)
    assert mask_streaks(masked) == 1
    marked = (masked.mask & STREAK) != 0
    assert marked[(np.abs(across) < 6) & (along < 90)].mean() > 0.97
    assert not marked[along > 260].any()


def test_two_trails_and_a_masked_star_on_one_of_them():
    masked, _ = white(SHAPE, 3.5)
    add_trail(masked, 10.0, -100.0, 3.0)
    across, _ = add_trail(masked, 75.0, 80.0, 3.0)
    masked.mask[350:550, 400:600] |= np.uint16(MaskPlane.SUSPECT)
    assert mask_streaks(masked) == 2
    assert ((masked.mask & STREAK) != 0)[np.abs(across) < 6].mean() > 0.97


def test_noise_stars_and_masked_columns_are_no_trails():
    rng = np.random.default_rng(1)
    sources = [(*rng.uniform(0, 900, 2), 10 ** rng.uniform(3, 5)) for _ in range(60)]
    masked, _ = white(SHAPE, 3.5, sources)
    masked.image[:, 500:504] = 1e5
    masked.mask[:, 500:504] |= np.uint16(MaskPlane.SAT)
    masked.image[:, 300] = 1e5
    masked.mask[:, 300] |= np.uint16(MaskPlane.BAD)
    assert mask_streaks(masked) == 0
    assert not (masked.mask & STREAK).any()


def test_a_short_line_is_left_to_detection():
    masked, _ = white(SHAPE, 3.5)
    add_trail(masked, 40.0, 0.0, 5.0, first=-40.0, last=40.0)
    assert mask_streaks(masked) == 0
