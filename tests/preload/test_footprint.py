"""Where a visit will look, whatever the camera's angle."""

import numpy as np
import pytest
from lsst.sphgeom import LonLat, UnitVector3d

from prompt_processing.instruments.pointing import predicted_wcs
from prompt_processing.preload.footprint import field_region

SHAPE, SCALE = (4000, 4072), 0.095695


def contains(region, ra, dec):
    return region.contains(UnitVector3d(LonLat.fromDegrees(float(ra) % 360, float(dec))))


@pytest.mark.parametrize(("ra", "dec"), [(120.0, -31.0), (0.01, 5.0), (40.0, 89.9), (200.0, -89.99)])
@pytest.mark.parametrize("rotation", [0.0, 33.0, 180.0, 271.0])
def test_the_field_holds_the_detector_at_every_angle_and_its_margin(ra, dec, rotation):
    region = field_region(ra, dec, SHAPE, SCALE, padding=60.0)
    ny, nx = SHAPE
    margin = 59.0 / SCALE / 2**0.5
    x = np.array([-margin, nx + margin, nx + margin, -margin])
    y = np.array([-margin, -margin, ny + margin, ny + margin])
    corners = predicted_wcs(ra, dec, rotation, SHAPE, SCALE).all_pix2world(x, y, 0)
    assert all(contains(region, *corner) for corner in zip(*corners, strict=True))


def test_the_field_is_not_larger_than_it_needs_to_be():
    region = field_region(120.0, -31.0, SHAPE, SCALE, padding=60.0)
    radius = (np.hypot(*SHAPE) / 2 * SCALE + 60.0) * 1.05 / 3600
    assert not contains(region, 120.0, -31.0 + radius)
    assert not contains(region, 120.0 + radius / np.cos(np.radians(31.0)), -31.0)
