from itertools import pairwise

import numpy as np
import pytest
from astropy.table import Table

from prompt_processing.domain.errors import ConfigError
from prompt_processing.simulation.cameras import LATISS
from prompt_processing.simulation.detector import make_electronics, make_pixel_maps
from prompt_processing.simulation.frames import plan_frames
from prompt_processing.simulation.noise import NoiseModel
from prompt_processing.simulation.placement import Placement
from prompt_processing.simulation.profiles import PROFILES
from prompt_processing.simulation.render import (
    Points,
    StaticSky,
    draw_points,
    empty_image,
    expected_light,
)
from prompt_processing.simulation.sky import make_scene
from prompt_processing.simulation.truth import read_events

NOTHING = Points(np.zeros(0), np.zeros(0), np.zeros(0))


@pytest.fixture(scope="module")
def visits(exposures):
    return list(exposures["obs_id"][exposures["kind"] == "science"])


@pytest.fixture(scope="module")
def plan(seed):
    """The same sky again, from the seed: electronics, and the scene in each exposure."""
    profile = PROFILES["small"]
    frames = plan_frames(profile, seed, 3, LATISS)
    science = [frame for frame in frames if frame.kind == "science"]
    scene = make_scene(profile, seed, science[0].aim.true_ra, science[0].aim.true_dec)
    statics = {frame.obs_id: StaticSky(frame, scene) for frame in frames if frame.pointing}
    return make_electronics(profile, seed), statics


@pytest.fixture(scope="module")
def residual(plan, charge, seed):
    """Return what an exposure shows [electron] above the sky without events, as if its response were 1."""
    electronics, statics = plan
    maps = make_pixel_maps(electronics, seed)

    def subtract(obs_id):
        frame = statics[obs_id].frame
        image = (charge(obs_id) - maps.dark * frame.dark_time) / maps.response
        return image - expected_light(statics[obs_id], NOTHING)

    return subtract


def fit(image, psf, x, y):
    """Return the PSF flux at a position by least squares with equal weights, without any background."""
    stamp = empty_image(x, y, 20)
    draw_points(stamp, psf, Points(np.array([x]), np.array([y]), np.array([1e6])))
    profile = stamp.array / 1e6
    bounds = stamp.bounds
    data = image[bounds.ymin : bounds.ymax + 1, bounds.xmin : bounds.xmax + 1]
    return (profile * data).sum() / (profile**2).sum()


def test_signal_to_noise_is_log_uniform_between_5_and_50(night, visits):
    for obs_id in visits:
        table = Table.read(night / "truth" / obs_id / "transients.ecsv")
        assert len(table) == 15
        assert ((table["snr"] >= 4.999) & (table["snr"] <= 50.001)).all()
        assert np.allclose(table["snr"], table["flux"] / table["flux_err"])
        assert np.ptp(np.log(table["snr"])) > 1.0


def test_full_size_visits_have_at_least_fifty_transients():
    profile = PROFILES["full"]
    assert profile.persistent + profile.single >= 50


def test_a_third_lies_near_galaxies(night, visits):
    galaxies = Table.read(night / "truth" / "galaxies.ecsv")
    cosine = np.cos(np.deg2rad(galaxies["dec"][0]))
    for obs_id in visits:
        table = Table.read(night / "truth" / obs_id / "transients.ecsv")
        assert 4 <= table["near_galaxy"].sum() <= 6
        for row in table[table["near_galaxy"]]:
            distance = 3600 * np.hypot((galaxies["ra"] - row["ra"]) * cosine, galaxies["dec"] - row["dec"])
            assert (distance < 2.01 * galaxies["radius"]).any()


def test_two_thirds_stay_for_the_night_and_change_modestly(night, visits):
    tables = [Table.read(night / "truth" / obs_id / "transients.ecsv") for obs_id in visits]
    sets = [set(table["id"]) for table in tables]
    everywhere = set.intersection(*sets)
    assert len(everywhere) == 10
    for table in tables:
        assert set(table["id"][table["persistent"]]) == everywhere
    # The others are in one visit only.
    assert sum(len(ids) for ids in sets) == len(set.union(*sets)) + 2 * len(everywhere)
    fluxes = np.array([table["flux"][table["persistent"]] for table in tables])
    assert (fluxes.max(axis=0) / fluxes.min(axis=0)).max() < 2.0
    assert (np.ptp(fluxes, axis=0) > 0).any()


def test_events_keep_their_distance(night, visits):
    places = []
    for obs_id in visits:
        events = read_events(night / "truth", obs_id)
        assert (np.minimum(events["x"], events["y"]) > 40).all()
        assert (events["x"] < 640 - 41).all()
        assert (events["y"] < 600 - 41).all()
        separation = np.hypot(events["x"][:, None] - events["x"], events["y"][:, None] - events["y"])
        places.append(separation[~np.eye(len(events), dtype=bool)].min())
    assert min(places) > 25


def test_events_are_not_on_saturated_stars(night, visits):
    for obs_id in visits:
        stars = Table.read(night / "truth" / obs_id / "stars.ecsv")
        saturated = stars[stars["saturated"]]
        for event in read_events(night / "truth", obs_id):
            assert (np.hypot(saturated["x"] - event["x"], saturated["y"] - event["y"]) > 25).all()


def test_transients_have_their_flux_and_noise_on_the_raws(night, visits, residual, plan):
    """The definition of S/N, by measurement: the scatter about the true flux is the stated error."""
    _, statics = plan
    pulls = []
    for obs_id in visits:
        image, frame = residual(obs_id), statics[obs_id].frame
        streak = Table.read(night / "truth" / obs_id / "streaks.ecsv")
        rays = Table.read(night / "truth" / obs_id / "cosmic_rays.ecsv")
        for row in Table.read(night / "truth" / obs_id / "transients.ecsv"):
            on_ray = np.hypot(rays["x_begin"] - row["x"], rays["y_begin"] - row["y"]) < 40
            if len(streak) or on_ray.any():
                continue
            flux = fit(image, frame.aim.psf, row["x"], row["y"])
            noise = np.hypot(row["flux_err"] * frame.electron_per_njy, 0.1 * np.sqrt(row["electrons"]) * 3)
            pulls.append((flux - row["electrons"]) / noise)
    assert len(pulls) > 20
    assert np.mean(pulls) == pytest.approx(0.0, abs=3 / np.sqrt(len(pulls)))
    assert 0.7 < np.std(pulls) < 1.35


def test_flux_error_is_the_scatter_of_ideal_photometry(plan):
    """Simulated differences of blank sky: visit minus the best mean of the templates, scaled."""
    electronics, statics = plan
    science = next(static for static in statics.values() if static.frame.kind == "science")
    templates = [static for static in statics.values() if static.frame.kind == "template"]
    frame = science.frame
    x, y = blank_place(science)
    error = NoiseModel(science, templates, electronics).flux_error(
        Points(np.array([x]), np.array([y]), np.ones(1))
    )
    stamp = empty_image(x, y, 23)
    draw_points(stamp, frame.aim.psf, Points(np.array([x]), np.array([y]), np.array([1e6])))
    profile = stamp.array / 1e6
    rng = np.random.default_rng(11)
    read_noise = electronics.read_noises[electronics.amplifier_at(x, y)]

    def noise(static, scale):
        sky = float(static.frame.sky_at(x, y))
        shape = (1500, *profile.shape)
        image = rng.poisson(sky, shape) - sky + rng.normal(0, read_noise, shape)
        return scale * image, scale**2 * (sky + read_noise**2)

    difference, _ = noise(science, 1.0)
    parts = [noise(t, frame.electron_per_njy / t.frame.electron_per_njy) for t in templates]
    weights = [1 / variance for _, variance in parts]
    difference -= sum(w * image for w, (image, _) in zip(weights, parts, strict=True)) / sum(weights)
    fluxes = (difference * profile).sum(axis=(1, 2)) / (profile**2).sum()
    assert fluxes.std() / frame.electron_per_njy == pytest.approx(error, rel=0.08)


def blank_place(static):
    """Return the place near the middle that is farthest from any star."""
    y, x = (grid.ravel() for grid in np.mgrid[250:350:20j, 250:390:20j])
    distance = np.hypot(static.stars.x - x[:, None], static.stars.y - y[:, None])
    galaxies = np.hypot(static.galaxy_x - x[:, None], static.galaxy_y - y[:, None])
    best = np.minimum(distance.min(axis=1), galaxies.min(axis=1)).argmax()
    return float(x[best]), float(y[best])


def test_templates_know_nothing_of_the_transients(night, visits, exposures, residual, plan):
    _, statics = plan
    obs_id = exposures["obs_id"][exposures["kind"] == "template"][0]
    image, frame = residual(obs_id), statics[obs_id].frame
    ratios = []
    for row in Table.read(night / "truth" / visits[0] / "transients.ecsv"):
        x, y = (float(v) for v in statics[obs_id].wcs.all_world2pix(row["ra"], row["dec"], 0))
        if 25 < x < 614 and 25 < y < 574:
            ratios.append(fit(image, frame.aim.psf, x, y) / (row["flux"] * frame.electron_per_njy))
    assert len(ratios) > 8
    assert np.abs(np.median(ratios)) < 0.1


def test_variables_differ_from_the_templates_by_the_stated_flux(night, visits, residual, plan):
    _, statics = plan
    ratios = []
    for obs_id in visits:
        table = Table.read(night / "truth" / obs_id / "variables.ecsv")
        assert len(table) == 4
        assert (table["snr"] > 8).all()
        assert (np.abs(table["flux"]) < table["mean_flux"]).all()
        image = residual(obs_id)
        ratios += [fit(image, statics[obs_id].frame.aim.psf, r["x"], r["y"]) / r["electrons"] for r in table]
    assert np.median(ratios) == pytest.approx(1.0, abs=0.1)


def test_moving_object_moves_along_a_line(night, visits):
    rows = [Table.read(night / "truth" / obs_id / "moving.ecsv")[0] for obs_id in visits]
    steps = [
        3600 * np.hypot((b["ra"] - a["ra"]) * np.cos(np.deg2rad(a["dec"])), b["dec"] - a["dec"])
        for a, b in pairwise(rows)
    ]
    assert steps == pytest.approx([rows[0]["rate"] * 40 / 60] * 2, rel=0.03)
    for row in rows:
        trail = np.hypot(row["x_end"] - row["x_begin"], row["y_end"] - row["y_begin"])
        assert trail * 0.095695 == pytest.approx(row["rate"] * 0.5, rel=0.01)
        assert row["x"] == pytest.approx((row["x_begin"] + row["x_end"]) / 2, abs=0.05)


def test_one_visit_has_a_streak(night, visits, charge):
    tables = {obs_id: Table.read(night / "truth" / obs_id / "streaks.ecsv") for obs_id in visits}
    assert [len(table) for table in tables.values()] == [0, 1, 0]
    image, streak = charge(visits[1]), tables[visits[1]][0]
    x = np.arange(20, 620)
    y = streak["y_begin"] + (streak["y_end"] - streak["y_begin"]) * x / streak["x_end"]
    rows = np.rint(y).astype(int)
    on_line = np.median(image[rows, x] - (image[rows - 30, x] + image[rows + 30, x]) / 2)
    assert on_line == pytest.approx(streak["peak"], rel=0.2)


def test_a_detector_that_is_full_of_events_is_refused(plan):
    electronics, statics = plan
    visit = next(static for static in statics.values() if static.frame.kind == "science")
    place = Placement([visit], [visit], electronics, np.random.default_rng(4))
    ny, nx = visit.frame.shape
    for x in range(0, nx, 20):
        for y in range(0, ny, 20):
            place.occupy(*(float(value) for value in visit.wcs.all_pix2world(x, y, 0)))
    with pytest.raises(ConfigError, match=f"no room for so many transients on {nx} x {ny} pixels"):
        place.anywhere()
