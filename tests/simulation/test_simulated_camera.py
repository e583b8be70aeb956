import numpy as np
import pytest
from astropy.io import fits
from raw_files import numbers, place

from prompt_processing.simulation.camera import write_raw
from prompt_processing.simulation.profiles import PROFILES

SMALL = PROFILES["small"].layout
FULL = PROFILES["full"].layout


def test_full_layout_has_the_geometry_of_real_files():
    sections = {segment.name: segment.detsec for segment in FULL.segments()}
    assert list(sections) == [
        f"Segment{n}"
        for n in [
            "10",
            "11",
            "12",
            "13",
            "14",
            "15",
            "16",
            "17",
            "07",
            "06",
            "05",
            "04",
            "03",
            "02",
            "01",
            "00",
        ]
    ]
    assert sections["Segment10"] == "[509:1,1:2000]"
    assert sections["Segment17"] == "[4072:3564,1:2000]"
    assert sections["Segment07"] == "[4072:3564,4000:2001]"
    assert sections["Segment00"] == "[509:1,4000:2001]"
    assert FULL.datasec == "[4:512,1:2000]"
    assert FULL.detsize == "[1:4072,1:4000]"
    assert FULL.raw_shape == (2048, 576)


@pytest.mark.parametrize("compress", [False, True])
def test_every_pixel_comes_back_to_its_place(tmp_path, compress):
    ny, nx = SMALL.shape
    pattern = (np.arange(ny)[:, None] * 1000 + np.arange(nx)).astype(np.float32)
    pixels = []
    for segment in SMALL.segments():
        raw = np.full(SMALL.raw_shape, -1, dtype=np.int32)
        raw[SMALL.data] = segment.in_read_order(pattern)
        pixels.append(raw)
    path = tmp_path / "raw.fits"
    write_raw(path, fits.Header({"OBSID": "x"}), SMALL, pixels, compress=compress)

    found = np.zeros((ny, nx))
    with fits.open(path) as hdus:
        assert len(hdus) == 17
        for hdu in hdus[1:]:
            x0, x1, y0, y1 = numbers(hdu.header["DATASEC"])
            place(found, hdu.data[y0 - 1 : y1, x0 - 1 : x1], numbers(hdu.header["DETSEC"]))
    assert np.array_equal(found, pattern)


def test_first_pixel_read_is_at_the_corner_of_its_amplifier():
    ny, nx = SMALL.shape
    index = np.arange(ny * nx, dtype=np.float32).reshape(ny, nx)
    first = {segment.name: segment.in_read_order(index)[0, 0] for segment in SMALL.segments()}
    # Segment10 is read from the bottom, Segment00 from the top, both towards lower x.
    assert first["Segment10"] == index[0, SMALL.columns - 1]
    assert first["Segment00"] == index[-1, SMALL.columns - 1]
    assert first["Segment17"] == index[0, -1]


def test_nothing_is_left_under_a_temporary_name(tmp_path):
    pixels = [np.zeros(SMALL.raw_shape, dtype=np.int32)] * 16
    write_raw(tmp_path / "a" / "raw.fits", fits.Header(), SMALL, pixels, compress=False)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["raw.fits"]
