import numpy as np
import pytest
from astropy.table import Table

from prompt_processing.simulation.cosmic_rays import add_cosmic_rays, draw_cosmic_rays
from prompt_processing.simulation.detector import bleed
from prompt_processing.simulation.profiles import FULL_WELL


def test_gains_come_back_from_flat_pairs(night, raws, exposures, gains):
    flats = exposures[exposures["kind"] == "flat"]
    found = {name: [] for name in gains}
    for level in np.unique(flats["flat_electrons"]):
        first, second = flats["obs_id"][flats["flat_electrons"] == level]
        pairs = zip(raws.amplifiers(first), raws.amplifiers(second), strict=True)
        for (name, a, over_a, _), (_, b, over_b, _) in pairs:
            read = (np.var(np.diff(over_a, axis=1)) + np.var(np.diff(over_b, axis=1))) / 2
            difference = a - b
            difference -= np.median(difference)
            # Without the cosmic rays; five standard deviations cut nothing else.
            kept = difference[np.abs(difference) < 7.5 * np.median(np.abs(difference))]
            found[name].append((np.median(a) + np.median(b)) / (kept.var() - read))
    assert len(found) == 16
    for name, values in found.items():
        assert np.mean(values) == pytest.approx(gains[name], rel=0.02), name


def test_read_noise_and_bias_level_are_those_of_the_truth(night, raws, exposures):
    truth = Table.read(night / "truth" / "amplifiers.ecsv")
    bias = exposures["obs_id"][exposures["kind"] == "bias"][0]
    for (name, _, overscan, _), row in zip(raws.amplifiers(bias), truth, strict=True):
        assert name == row["name"]
        noise = np.std(np.diff(overscan, axis=1)) / np.sqrt(2) * row["gain"]
        assert noise == pytest.approx(row["read_noise"], rel=0.05)
        assert np.median(overscan) == pytest.approx(row["bias_level"], abs=15)


def test_bias_level_drifts_along_the_rows(raws, exposures):
    bias = exposures["obs_id"][exposures["kind"] == "bias"][0]
    drifts = [
        np.ptp(over.mean(axis=1).reshape(10, -1).mean(axis=1)) for _, _, over, _ in raws.amplifiers(bias)
    ]
    assert max(drifts) > 3.0


def test_hot_pixels_and_bad_columns_show(night, charge, exposures):
    bad = Table.read(night / "truth" / "bad_pixels.ecsv")
    darks = exposures[exposures["kind"] == "dark"]
    rate = np.median([charge(row["obs_id"]) / row["exposure_time"] for row in darks], axis=0)
    hot = bad[(bad["kind"] == "hot") & (bad["rate"] > 20)]
    assert len(hot) > 20
    measured = rate[hot["y_first"], hot["x"]]
    assert np.median(measured / hot["rate"]) == pytest.approx(1.0, abs=0.05)
    flat = charge(exposures["obs_id"][exposures["kind"] == "flat"][-1])
    for column in bad[bad["kind"] == "column"]:
        rows = slice(column["y_first"], column["y_last"] + 1)
        assert np.median(flat[rows, column["x"]]) < 0.3 * np.median(flat[rows, column["x"] + 2])


def test_flat_is_vignetted(charge, exposures):
    flat = charge(exposures["obs_id"][exposures["kind"] == "flat"][-1])
    centre, corner = np.median(flat[280:320, 300:340]), np.median(flat[:20, :20])
    assert corner / centre == pytest.approx(0.88, abs=0.02)


def test_charge_spills_both_ways_along_the_column_and_is_conserved():
    charge = np.zeros((101, 5), dtype=np.float32)
    charge[50, 2] = 6 * FULL_WELL
    bleed(charge)
    assert charge.max() <= FULL_WELL
    assert charge.sum() == pytest.approx(6 * FULL_WELL)
    assert not charge[:, [0, 1, 3, 4]].any()
    assert charge[45:56, 2].sum() == pytest.approx(6 * FULL_WELL)
    assert charge[51:, 2].sum() == pytest.approx(charge[:50, 2].sum())


def test_charge_that_reaches_the_edge_is_lost():
    charge = np.zeros((10, 1), dtype=np.float32)
    charge[1, 0] = 9 * FULL_WELL
    bleed(charge)
    assert charge[:7, 0] == pytest.approx(np.array([1, 1, 1, 1, 1, 1, 0]) * FULL_WELL)


def test_saturated_stars_bleed(night, charge, exposures):
    row = exposures[exposures["kind"] == "template"][0]
    stars = Table.read(night / "truth" / row["obs_id"] / "stars.ecsv")
    image = charge(row["obs_id"])
    saturated = stars[stars["saturated"]]
    assert len(saturated) > 0
    for star in saturated:
        x, y = round(star["x"]), round(star["y"])
        assert image[y, x] == pytest.approx(FULL_WELL, rel=0.01)
    full = np.abs(image - FULL_WELL) < 0.01 * FULL_WELL
    heights, widths = full.sum(axis=0).max(), full.sum(axis=1).max()
    assert heights > 2 * widths


def test_cosmic_rays_keep_their_charge_and_their_place():
    rays = draw_cosmic_rays(np.random.default_rng(3), (200, 300), 40)
    assert 20 < len(rays) < 70
    image = np.zeros((200, 300), dtype=np.float32)
    add_cosmic_rays(image, rays)
    assert image.sum() == pytest.approx(rays["electrons"].sum(), rel=1e-5)
    assert image[round(rays["y_begin"][0]), round(rays["x_begin"][0])] > 0
    assert np.median(image[image > 0]) > 300
