import numpy as np
import pytest

from prompt_processing.domain.errors import HeaderError, NoCalibError, ScienceError
from prompt_processing.images.amplifier import Amplifier
from prompt_processing.images.calibs import (
    combine_bias,
    combine_dark,
    combine_flat,
    find_defects,
    photon_transfer,
)

NY, NX = 256, 128
SHAPE = (NY, 2 * NX)
GAINS = {"L": 1.06, "R": 0.95}
NOISES = {"L": 9.0, "R": 7.5}
COLUMNS = np.arange(2 * NX)
RESPONSE = np.broadcast_to(1.0 - 0.3 * ((COLUMNS - NX) / NX) ** 2, SHAPE)


def read_out(electrons, rng, bias=0.0):
    """Digitise electrons: two amplifiers, the right one read from the right."""
    amplifiers = []
    for name, columns, flip in (("L", slice(0, NX), False), ("R", slice(NX, 2 * NX), True)):
        signal = (electrons / GAINS[name] + bias)[:, columns]
        raw = rng.normal(1000, NOISES[name] / GAINS[name], (NY, NX + 32))
        raw[:, :NX] += signal[:, ::-1] if flip else signal
        amplifiers.append(
            Amplifier(
                name=name,
                pixels=np.round(raw).astype(np.int32),
                data=(slice(0, NY), slice(0, NX)),
                overscan=(slice(0, NY), slice(NX, NX + 32)),
                detector=(slice(0, NY), columns),
                flip_y=False,
                flip_x=flip,
            )
        )
    return amplifiers


def flat_raws(rng, level, n):
    """Flats of a lamp that varies by some per cent."""
    for _ in range(n):
        yield read_out(rng.poisson(level * rng.uniform(0.97, 1.03) * RESPONSE).astype(float), rng)


def test_photon_transfer_recovers_gain_and_read_noise():
    rng = np.random.default_rng(3)
    pairs = []
    for _ in range(5):
        first, second = flat_raws(rng, 30000, 2)
        # A cosmic ray in one and a dead pixel in both must not count.
        first[0].pixels[50:53, 60] += 40000
        for raw in (first, second):
            raw[1].pixels[10:60, 20] = 1000
        pairs.append((first, second))
    result = photon_transfer(iter(pairs))
    for name in ("L", "R"):
        assert result[name].gain == pytest.approx(GAINS[name], rel=0.01)
        # Rounding to whole adu adds 1/12 adu^2.
        assert result[name].read_noise == pytest.approx(NOISES[name], rel=0.02)


def test_photon_transfer_refuses_dark_flats_and_nothing():
    rng = np.random.default_rng(4)
    dark = read_out(np.zeros(SHAPE), rng), read_out(np.zeros(SHAPE), rng)
    with pytest.raises(ScienceError, match="amplifier L"):
        photon_transfer([dark])
    with pytest.raises(NoCalibError):
        photon_transfer([])


def test_bias_pattern_survives_and_outliers_do_not():
    rng = np.random.default_rng(5)
    pattern = 5.0 * np.sin(COLUMNS / 9.0) * np.ones(SHAPE)
    raws = []
    for k in range(7):
        raw = read_out(np.zeros(SHAPE), rng, bias=pattern)
        raw[0].pixels[20 + k, 30] += 5000
        raws.append(raw)
    bias = combine_bias(iter(raws))
    assert bias.dtype == np.float32
    assert (bias - pattern).std() < 9.0 / np.sqrt(7) * 1.15
    assert np.abs(bias[20:27, 30] - pattern[20:27, 30]).max() < 20


def test_dark_is_a_rate_without_cosmic_rays():
    rng = np.random.default_rng(6)
    rate = np.full(SHAPE, 0.2)
    rate[40, 50] = 30.0
    raws = []
    for time in (60.0, 90.0, 120.0, 60.0, 90.0):
        raw = read_out(rng.poisson(rate * time).astype(float), rng)
        raw[1].pixels[rng.integers(0, NY), rng.integers(0, NX)] += 8000
        raws.append((raw, time))
    dark = combine_dark(iter(raws), bias=np.zeros(SHAPE, np.float32), gains=GAINS)
    assert dark[40, 50] == pytest.approx(30.0, rel=0.05)
    others = np.delete(dark.ravel(), 40 * SHAPE[1] + 50)
    assert others.mean() == pytest.approx(0.2, abs=0.01)
    assert others.max() < 1.0
    with pytest.raises(HeaderError, match="dark time of 0"):
        combine_dark([(raws[0][0], 0.0)], bias=np.zeros(SHAPE, np.float32), gains=GAINS)


def test_flat_is_the_response_and_joins_the_amplifiers():
    rng = np.random.default_rng(7)
    zero = np.zeros(SHAPE, np.float32)
    raws = ((raw, 5.0) for raw in flat_raws(rng, 30000, 6))
    flat = combine_flat(raws, bias=zero, dark=zero, gains=GAINS)
    truth = RESPONSE / np.median(RESPONSE)
    assert np.median(flat) == pytest.approx(1.0, abs=1e-4)
    assert np.abs(flat / truth - 1).std() < 0.005
    step = flat[:, NX - 8 : NX].mean() / flat[:, NX : NX + 8].mean()
    assert step == pytest.approx(1.0, abs=0.002)
    with pytest.raises(ScienceError, match="lamp was off"):
        combine_flat([(read_out(np.zeros(SHAPE), rng), 5.0)], bias=zero, dark=zero, gains=GAINS)


def test_defects_are_found_and_good_pixels_are_kept():
    rng = np.random.default_rng(9)
    dark = rng.normal(0.1, 0.03, SHAPE).astype(np.float32)
    flat = (RESPONSE * rng.normal(1, 0.004, SHAPE)).astype(np.float32)
    truth = np.zeros(SHAPE, bool)
    for y, x in rng.integers(5, 120, (30, 2)):
        dark[y, x] += 5
        truth[y, x] = True
    flat[100:, 77] *= 0.85  # low but not dead: only the column as a whole shows it
    truth[100:, 77] = True
    flat[:, 200] = 0.0
    truth[:, 200] = True
    dark[30, 30] = np.nan
    truth[30, 30] = True
    found = find_defects(dark, flat)
    assert (found & truth).sum() == truth.sum()
    assert (found & ~truth).sum() < 5
