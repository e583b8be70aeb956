import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lsst.sphgeom import LonLat, UnitVector3d

from prompt_processing.domain.errors import RepositoryError
from prompt_processing.instruments.pointing import predicted_wcs
from prompt_processing.instruments.regions import detector_region
from prompt_processing.instruments.skymap import (
    SKYMAP,
    Patch,
    RingSkyMap,
    register_patches,
    register_skymap,
)

anywhere = {"ra": st.floats(0, 360), "dec": st.floats(-90, 90)}


def point(ra, dec):
    return UnitVector3d(LonLat.fromDegrees(ra, dec))


def field(ra, dec, rotation=30.0):
    """The region of a full-size detector."""
    shape = (4000, 4072)
    return detector_region(predicted_wcs(ra, dec, rotation, shape, 0.095695), shape)


@given(**anywhere)
@example(ra=0.0, dec=-90.0)
@example(ra=0.0, dec=90.0)
@example(ra=123.0, dec=89.999)
@example(ra=359.99999999, dec=0.0)
@example(ra=360.0, dec=-89.0)
@settings(max_examples=300, deadline=None)
def test_every_position_lies_in_a_patch_of_the_tract_it_belongs_to(ra, dec):
    patch = SKYMAP.patch_at(ra, dec)
    assert SKYMAP.tract_region(patch.tract).contains(point(ra, dec))
    assert SKYMAP.patch_region(patch).contains(point(ra, dec))
    x, y = SKYMAP.patch_wcs(patch).wcs_world2pix([[ra, dec]], 0)[0]
    border, inner = SKYMAP.patch_border, SKYMAP.patch_inner
    assert border - 0.5 - 1e-3 <= x <= border + inner - 0.5 + 1e-3
    assert border - 0.5 - 1e-3 <= y <= border + inner - 0.5 + 1e-3


def test_no_corner_of_any_ring_sticks_out_of_its_tract():
    side = SKYMAP.patches * SKYMAP.patch_inner
    for ring in range(180):
        first = SKYMAP.tract_at(0.0, ring - 89.5)
        wcs, (centre, _) = SKYMAP.tract_wcs(first), SKYMAP.tract_centre(first)
        ra = np.concatenate([np.linspace(0.0, 2 * centre, 101)] * 2)
        dec = np.repeat([ring - 90.0, ring - 89.0], 101)
        pixels = wcs.wcs_world2pix(np.stack([ra, dec], axis=1), 0)
        assert pixels.min() > -0.5, ring
        assert pixels.max() < side - 0.5, ring


@given(**anywhere, rotation=st.floats(0, 360), along=st.floats(-1, 1), across=st.floats(-1, 1))
@example(ra=0.0, dec=0.0, rotation=0.0, along=0.5, across=0.5)
@example(ra=10.0, dec=90.0, rotation=0.0, along=-0.5, across=0.5)
@example(ra=200.0, dec=-89.99, rotation=0.0, along=0.9, across=0.1)
@settings(max_examples=100, deadline=None)
def test_the_patches_overlapping_a_field_cover_it(ra, dec, rotation, along, across):
    shape = (4000, 4072)
    wcs = predicted_wcs(ra, dec, rotation, shape, 0.095695)
    region = detector_region(wcs, shape)
    patches = SKYMAP.patches_overlapping(region)
    inside = wcs.wcs_pix2world([[2035.5 + 2035 * along, 1999.5 + 1999 * across]], 0)[0]
    assert SKYMAP.patch_at(*inside) in patches
    assert any(SKYMAP.patch_region(patch).contains(point(*inside)) for patch in patches)


@given(**anywhere)
@settings(max_examples=50, deadline=None)
def test_only_patches_that_touch_the_field_are_given(ra, dec):
    region = field(ra, dec)
    patches = SKYMAP.patches_overlapping(region)
    assert patches == sorted(set(patches))
    assert len(patches) <= 25 * len(SKYMAP.tracts_overlapping(region))
    for patch in patches:
        assert SKYMAP.patch_region(patch).intersects(region)


def test_a_field_needs_few_patches_in_the_middle_of_a_tract():
    ra, dec = SKYMAP.tract_centre(20_000)
    patches = SKYMAP.patches_overlapping(field(ra, dec, rotation=0.0))
    # 8.4 arcmin with margins, patches of 2.5 arcmin, the boresight on the corner of four: 4 x 4
    assert {patch.tract for patch in patches} == {20_000}
    assert sorted(SKYMAP.patch_column_row(patch) for patch in patches) == [
        (column, row) for column in (11, 12, 13, 14) for row in (11, 12, 13, 14)
    ]


def test_patches_of_one_tract_share_its_pixels():
    patch, right = Patch(1000, 30), Patch(1000, 31)
    one, other, tract = SKYMAP.patch_wcs(patch), SKYMAP.patch_wcs(right), SKYMAP.tract_wcs(1000)
    sky = one.wcs_pix2world([[1549.0, 700.0]], 0)
    np.testing.assert_allclose(other.wcs_world2pix(sky, 0), [[49.0, 700.0]], atol=1e-6)
    np.testing.assert_allclose(
        tract.wcs_world2pix(sky, 0), [[4 * 1500 - 50 + 1549.0, 1500 - 50 + 700.0]], atol=1e-6
    )


def test_north_is_up_east_is_left_and_the_scale_is_right():
    wcs = SKYMAP.patch_wcs(Patch(SKYMAP.tract_at(80.0, -30.0), 13 * 26 + 13))
    ra, dec = wcs.wcs_pix2world([800, 800, 790], [800, 810, 800], 0)
    origin = SkyCoord(ra[0], dec[0], unit="deg")
    north, east = SkyCoord(ra[1], dec[1], unit="deg"), SkyCoord(ra[2], dec[2], unit="deg")
    assert origin.separation(north).arcsec == pytest.approx(1.0, abs=1e-4)
    assert origin.position_angle(north).deg % 360 == pytest.approx(0.0, abs=0.2)
    assert origin.position_angle(east).deg == pytest.approx(90.0, abs=0.2)


def test_the_geometry_is_the_one_that_repositories_hold():
    # A change of these numbers makes every stored template unreadable: give the skymap another name then.
    assert SKYMAP.n_tracts == 41702
    assert SKYMAP.sha1.hex() == "44ef5b30c7d30bf0250d1c5d99243bd013d1cf50"
    assert SKYMAP.patch_shape == (1600, 1600)


def test_tracts_that_do_not_exist_are_refused():
    with pytest.raises(IndexError, match="no tract"):
        SKYMAP.tract_wcs(SKYMAP.n_tracts)


def test_registered_patches_join_with_a_visit_on_the_sky(butler):
    region = field(150.0, 2.0)
    patches = SKYMAP.patches_overlapping(region)
    register_skymap(butler)
    for _ in range(2):  # safe to repeat
        register_skymap(butler)
        register_patches(butler, patches)
    records = butler.query_dimension_records("patch", skymap=SKYMAP.name)
    assert [(r.tract, r.id, r.cell_x, r.cell_y) for r in sorted(records, key=lambda r: (r.tract, r.id))] == [
        (patch.tract, patch.patch, *SKYMAP.patch_column_row(patch)) for patch in patches
    ]
    with butler.query() as query:
        found = query.where("patch.region OVERLAPS region", bind={"region": field(150.0, 2.0)}).data_ids(
            ["patch"]
        )
        assert {(row["tract"], row["patch"]) for row in found} >= {(p.tract, p.patch) for p in patches}


def test_a_skymap_of_the_same_name_but_other_geometry_is_refused(butler):
    register_skymap(butler)
    with pytest.raises(RepositoryError, match="another geometry"):
        register_skymap(butler, RingSkyMap(pixel_scale=0.2))


def test_a_whole_tract_can_be_registered(butler):
    register_skymap(butler)
    register_patches(butler, [Patch(100, index) for index in range(SKYMAP.patches**2)])
    assert len(butler.query_dimension_records("patch", skymap=SKYMAP.name, tract=100, limit=None)) == 26 * 26


@pytest.mark.parametrize("ra", [0.0, 359.97, 0.03])
@pytest.mark.parametrize("dec", [0.0, 1.3, -45.0])
def test_a_field_across_right_ascension_zero_needs_no_more_patches_than_another(ra, dec):
    patches = SKYMAP.patches_overlapping(field(ra, dec))
    assert {SKYMAP.patch_at(0.001, dec), SKYMAP.patch_at(359.999, dec)} <= set(patches)
    assert len(patches) <= 4 * 16
