"""FFT convolution against direct sums."""

import numpy as np
import pytest
from scipy.signal import convolve2d

from prompt_processing.images import convolution
from prompt_processing.images.convolution import convolve, convolve_sum


@pytest.mark.parametrize("shape", [(90, 130), (20, 41)])
def test_convolution_in_tiles_is_the_direct_sum(monkeypatch, shape):
    monkeypatch.setattr(convolution, "TILE", 48)
    rng = np.random.default_rng(1)
    image = rng.normal(size=shape).astype(np.float32)
    kernel = rng.normal(size=(11, 11))
    np.testing.assert_allclose(
        convolve(image, kernel), convolve2d(image, kernel, mode="same"), rtol=0, atol=2e-4
    )


def test_factors_multiply_the_result_at_its_own_place(monkeypatch):
    monkeypatch.setattr(convolution, "TILE", 40)
    rng = np.random.default_rng(2)
    image = rng.normal(size=(70, 80)).astype(np.float32)
    kernels = rng.normal(size=(2, 7, 7))

    def factor(k, y, x):
        return (np.ones(y.size), np.ones(x.size)) if k == 0 else (y / 70, x / 80)

    ys, xs = np.mgrid[:70, :80]
    expected = convolve2d(image, kernels[0], mode="same")
    expected = expected + convolve2d(image, kernels[1], mode="same") * (ys / 70) * (xs / 80)
    np.testing.assert_allclose(convolve_sum(image, kernels, factor), expected, rtol=0, atol=2e-4)
