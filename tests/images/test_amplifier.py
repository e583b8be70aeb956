from dataclasses import replace

import numpy as np
import pytest

from prompt_processing.domain.errors import HeaderError
from prompt_processing.images.amplifier import Amplifier, assemble, detector_shape


def split(truth, n_rows, n_columns, flips):
    """Cut a detector into amplifiers with prescan and overscan, as if read out with the given flips."""
    ny, nx = truth.shape[0] // n_rows, truth.shape[1] // n_columns
    amplifiers = []
    for k in range(n_rows * n_columns):
        row, column = divmod(k, n_columns)
        flip_y, flip_x = flips[k % len(flips)]
        section = (slice(row * ny, (row + 1) * ny), slice(column * nx, (column + 1) * nx))
        raw = np.full((ny + 5, nx + 3 + 20), -7, dtype=np.int32)
        raw[:ny, 3 : 3 + nx] = truth[section][:: -1 if flip_y else 1, :: -1 if flip_x else 1]
        amplifiers.append(
            Amplifier(
                name=f"A{row}{column}",
                pixels=raw,
                data=(slice(0, ny), slice(3, 3 + nx)),
                overscan=(slice(0, ny), slice(3 + nx, 23 + nx)),
                detector=section,
                flip_y=flip_y,
                flip_x=flip_x,
            )
        )
    return amplifiers


FLIPS = [(False, False), (True, False), (False, True), (True, True)]


@pytest.mark.parametrize("layout", [(2, 8), (1, 3), (4, 1)])
def test_every_amplifier_lands_in_its_place_whatever_its_flips(layout):
    # Every pixel has its own number, so a wrong flip or place cannot hide.
    truth = np.arange(40 * 48, dtype=np.int32).reshape(40, 48)
    for first in range(4):
        amplifiers = split(truth, *layout, FLIPS[first:] + FLIPS[:first])
        image = assemble(amplifiers, [a.pixels[a.data] for a in amplifiers])
        assert np.array_equal(image, truth)
        assert detector_shape(amplifiers) == (40, 48)


def test_gap_and_overlap_are_refused_by_name():
    amplifiers = split(np.zeros((20, 40), np.int32), 2, 2, FLIPS)
    with pytest.raises(HeaderError, match="cover 600 pixels of a detector of 40 x 20"):
        detector_shape(amplifiers[:3])
    moved = replace(amplifiers[3], detector=(slice(9, 19), slice(20, 40)))
    with pytest.raises(HeaderError, match="A01 and A11 overlap"):
        detector_shape([*amplifiers[:3], moved])


def test_sections_that_do_not_fit_are_refused():
    good = split(np.zeros((20, 40), np.int32), 1, 1, FLIPS)[0]
    with pytest.raises(HeaderError, match="A00: DATASEC 3:99"):
        detector_shape([replace(good, data=(slice(0, 20), slice(3, 99)))])
    with pytest.raises(HeaderError, match="DETSEC"):
        detector_shape([replace(good, detector=(slice(0, 19), slice(0, 40)))])
    with pytest.raises(HeaderError, match="other rows"):
        detector_shape([replace(good, overscan=(slice(0, 10), slice(43, 60)))])
    with pytest.raises(HeaderError, match="no amplifiers"):
        detector_shape([])
