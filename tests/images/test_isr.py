from dataclasses import replace

import numpy as np
import pytest

from prompt_processing.domain.errors import HeaderError, NoCalibError, RawError
from prompt_processing.images.amplifier import Amplifier
from prompt_processing.images.isr import overscan_level, process_raw
from prompt_processing.images.masks import MaskPlane

NY, NX = 200, 60
SHAPE = (2 * NY, 4 * NX)
GAINS = {f"A{k}": 0.9 + 0.05 * k for k in range(8)}
NOISES = {f"A{k}": 7.0 + 0.5 * k for k in range(8)}


@pytest.fixture
def calibs():
    rng = np.random.default_rng(8)
    x = np.arange(SHAPE[1])
    return {
        "bias": rng.normal(0, 2, SHAPE).astype(np.float32),
        "dark": rng.uniform(0, 0.5, SHAPE).astype(np.float32),
        "flat": np.broadcast_to(1 - 0.3 * ((x - 120) / 120) ** 2, SHAPE).astype(np.float32),
        "defects": np.zeros(SHAPE, bool),
    }


def read_out(light, calibs, time=30.0, seed=2, drift=12.0):
    """Simulate the readout of electrons per pixel (before the flat) on 2 x 4 amplifiers."""
    rng = np.random.default_rng(seed)
    electrons = rng.poisson(light * calibs["flat"] + calibs["dark"] * time).astype(float)
    amplifiers = []
    for k in range(8):
        row, column = divmod(k, 4)
        flip_y, flip_x = row == 1, k % 2 == 0
        section = (slice(row * NY, (row + 1) * NY), slice(column * NX, (column + 1) * NX))
        steps = (slice(None, None, -1 if flip_y else 1), slice(None, None, -1 if flip_x else 1))
        name = f"A{k}"
        signal = electrons[section] / GAINS[name]
        raw = np.zeros((NY + 4, 3 + NX + 40))
        raw[:NY, 3 : 3 + NX] = (signal + calibs["bias"][section])[steps]
        raw += rng.normal(0, NOISES[name] / GAINS[name], raw.shape)
        offset = 1000 + 10 * k + drift * np.exp(-np.arange(NY + 4) / 80)
        raw += offset[:, None]
        amplifiers.append(
            Amplifier(
                name=name,
                pixels=np.round(raw).astype(np.int32),
                data=(slice(0, NY), slice(3, 3 + NX)),
                overscan=(slice(0, NY), slice(3 + NX, 43 + NX)),
                detector=section,
                flip_y=flip_y,
                flip_x=flip_x,
            )
        )
    return amplifiers


def run(amplifiers, calibs, **changes):
    settings = {
        "gains": GAINS, "read_noises": NOISES, "exposure_time": 30.0, "saturation": 60000.0,
        **calibs, **changes,
    }  # fmt: skip
    return process_raw(amplifiers, **settings)


def test_electrons_and_variance_are_recovered_in_every_amplifier(calibs):
    amplifiers = read_out(np.full(SHAPE, 2000.0), calibs)
    masked = run(amplifiers, calibs)
    for amplifier in amplifiers:
        part = masked.image[amplifier.detector]
        # 12000 pixels with a noise of about 50: the mean is known to 0.5, overscan error included to 0.7.
        assert abs(part.mean() - 2000) < 2.0
        pull = (part - 2000) / np.sqrt(masked.variance[amplifier.detector])
        assert abs(pull.std() - 1) < 0.03
        # The drift of the overscan leaves no gradient along y.
        assert abs(part[:40].mean() - part[-40:].mean()) < 4.0


def test_overscan_level_ignores_bleeding_rows_and_rounding(calibs):
    amplifier = read_out(np.full(SHAPE, 100.0), calibs)[0]
    truth = 1000 + 12 * np.exp(-np.arange(NY) / 80)
    amplifier.pixels[90:96, 3 + NX : 20 + NX] = 50000
    error = overscan_level(amplifier) - truth
    assert np.abs(error).max() < 1.5
    assert abs(error.mean()) < 0.3


def test_planes_mark_what_they_should(calibs):
    light = np.full(SHAPE, 500.0)
    amplifiers = read_out(light, calibs)
    a5 = amplifiers[5]  # flips y, not x: detector (row 200 + 199 - y, column 60 + x)
    a5.pixels[50, 3 + 20] = 65000
    a5.pixels[120, 3 + 30] = 56000
    calibs["defects"][30, 40] = True
    calibs["flat"] = calibs["flat"].copy()
    calibs["flat"][10, 11] = 0.0
    masked = run(amplifiers, calibs)

    def has(plane, y, x):
        return bool(masked.mask[y, x] & np.uint16(plane))

    saturated = (masked.mask & np.uint16(MaskPlane.SAT)) != 0
    assert np.argwhere(saturated).min(axis=0).tolist() == [347, 78]
    assert np.argwhere(saturated).max(axis=0).tolist() == [351, 82]
    assert has(MaskPlane.SUSPECT, 279, 90)
    assert not has(MaskPlane.SAT, 279, 90)
    assert has(MaskPlane.BAD, 30, 40)
    assert has(MaskPlane.INTRP, 30, 40)
    assert has(MaskPlane.BAD, 10, 11)
    assert has(MaskPlane.EDGE, 1, 100)
    assert not has(MaskPlane.EDGE, 2, 100)
    assert abs(masked.image[30, 40] - 500) < 80
    assert np.isfinite(masked.image).all()
    assert np.isfinite(masked.variance).all()


def test_dead_amplifier_and_nan_have_no_data(calibs):
    amplifiers = read_out(np.full(SHAPE, 500.0), calibs)
    amplifiers[2].pixels[:] = 0
    pixels = amplifiers[3].pixels.astype(np.float32)
    pixels[100, 3 + 30] = np.nan
    amplifiers[3] = replace(amplifiers[3], pixels=pixels)
    masked = run(amplifiers, calibs)
    no_data = (masked.mask & np.uint16(MaskPlane.NO_DATA)) != 0
    assert no_data[amplifiers[2].detector].all()
    assert no_data.sum() == NY * NX + 1
    assert no_data[100, 3 * NX + 30]
    assert np.isfinite(masked.image).all()


def test_unusable_raws_are_refused_with_the_reason(calibs):
    amplifiers = read_out(np.full(SHAPE, 500.0), calibs)
    for amplifier in amplifiers:
        data = amplifier.pixels[amplifier.data]
        data[:] = 64000 + np.arange(data.size).reshape(data.shape) % 7
    with pytest.raises(RawError, match=r"100.0 % of the pixels are saturated .* A0, A1"):
        run(amplifiers, calibs)
    blank = [replace(a, pixels=np.full(a.pixels.shape, np.nan, np.float32)) for a in amplifiers]
    with pytest.raises(RawError, match=r"100.0 % of the pixels are NaN"):
        run(blank, calibs)


def test_calibs_that_do_not_fit_are_refused(calibs):
    amplifiers = read_out(np.full(SHAPE, 500.0), calibs)
    with pytest.raises(NoCalibError, match="flat has shape"):
        run(amplifiers, {**calibs, "flat": np.ones((3, 3), np.float32)})
    with pytest.raises(NoCalibError, match="amplifier A7"):
        run(amplifiers, calibs, gains={k: v for k, v in GAINS.items() if k != "A7"})
    with pytest.raises(HeaderError, match="dark time"):
        run(amplifiers, calibs, exposure_time=np.nan)
