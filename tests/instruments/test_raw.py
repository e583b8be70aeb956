import numpy as np
import pytest
from astropy.io import fits

from prompt_processing.domain.errors import HeaderError, RawError
from prompt_processing.images.amplifier import assemble
from prompt_processing.instruments.raw import read_raw, read_raw_header
from support import latiss_files as files

NX, NY = files.NX, files.NY


def save(hdus, path):
    hdus.writeto(path, overwrite=True)
    return path


@pytest.mark.parametrize(("name", "compress"), [("a.fits", False), ("a.fits.fz", True)])
def test_pixels_follow_detsec_in_every_amplifier(tmp_path, name, compress):
    raw = read_raw(files.write(tmp_path / name, compress=compress))
    trimmed = [amplifier.pixels[amplifier.data] for amplifier in raw.amplifiers]
    image = assemble(raw.amplifiers, trimmed)

    assert raw.shape == image.shape == (2 * NY, 8 * NX)
    y, x = np.mgrid[: 2 * NY, : 8 * NX]
    # DETSEC: x runs backwards in all amplifiers; Segment1x lie at the low y, Segment0x run down from the top.
    number = x // NX + np.where(y < NY, 10, 0)
    row = np.where(y < NY, y, 2 * NY - 1 - y)
    column = NX - 1 - x % NX
    np.testing.assert_array_equal(image, 10_000 * (number + 1) + 100 * row + column)


def test_the_corner_amplifiers_of_the_real_detector_lie_where_their_header_says(tmp_path):
    raw = read_raw(files.write(tmp_path / "a.fits"))
    places = {amplifier.name: amplifier for amplifier in raw.amplifiers}
    assert len(places) == 16
    assert places["Segment10"].detector == (slice(0, NY), slice(0, NX))
    assert places["Segment00"].detector == (slice(NY, 2 * NY), slice(0, NX))
    assert places["Segment07"].detector == (slice(NY, 2 * NY), slice(7 * NX, 8 * NX))
    assert {(a.flip_y, a.flip_x) for a in raw.amplifiers if a.name[7] == "1"} == {(False, True)}
    assert {(a.flip_y, a.flip_x) for a in raw.amplifiers if a.name[7] == "0"} == {(True, True)}


def test_the_overscan_is_beside_the_data_rows(tmp_path):
    for amplifier in read_raw(files.write(tmp_path / "a.fits")).amplifiers:
        overscan = amplifier.pixels[amplifier.overscan]
        assert overscan.shape == (NY, files.OVERSCAN)
        assert (overscan == -2).all()


def test_the_order_of_the_hdus_does_not_matter(tmp_path):
    hdus = files.hdus()
    shuffled = save(fits.HDUList([hdus[0], hdus[-1], *hdus[-2:0:-1]]), tmp_path / "b.fits")
    straight = read_raw(files.write(tmp_path / "a.fits"))
    for one, other in zip(straight.amplifiers, read_raw(shuffled).amplifiers, strict=True):
        assert one.name == other.name
        np.testing.assert_array_equal(one.pixels, other.pixels)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint16, np.float32])
def test_pixels_keep_their_kind_in_native_byte_order(tmp_path, dtype):
    pixels = read_raw(files.write(tmp_path / "a.fits", dtype=dtype)).amplifiers[0].pixels
    assert pixels.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(pixels, files.amplifier_pixels("00", dtype))


def test_the_header_is_that_of_the_observation(tmp_path):
    path = files.write(tmp_path / "a.fits.fz", compress=True)
    header = read_raw(path).header
    assert (header["OBSID"], header["DETSIZE"]) == ("AT_O_20240624_000106", f"[1:{8 * NX},1:{2 * NY}]")
    assert read_raw_header(path)["OBSID"] == "AT_O_20240624_000106"


@pytest.mark.parametrize("content", [b"", b"hello, this is a text file\n" * 200, b"\x89PNG" + bytes(5000)])
def test_what_is_not_fits_is_refused(tmp_path, content):
    path = tmp_path / "a.fits"
    path.write_bytes(content)
    for read in (read_raw, read_raw_header):
        with pytest.raises(RawError, match=r"a\.fits"):
            read(path)


def test_an_absent_file_is_refused(tmp_path):
    with pytest.raises(RawError, match="no such file"):
        read_raw(tmp_path / "a.fits")


@pytest.mark.parametrize("compress", [False, True])
def test_a_file_cut_anywhere_is_refused(tmp_path, compress):
    path = files.write(tmp_path / "whole.fits", compress=compress)
    whole = path.read_bytes()
    cut = tmp_path / "cut.fits"
    # every 1/50 of the file, and 1 byte short; a cut between two HDUs loses amplifiers, or only the table
    with fits.open(path) as hdus:
        table = hdus[-1].fileinfo()["hdrLoc"]
    for size in [*range(1000, len(whole), len(whole) // 50), len(whole) - 1]:
        cut.write_bytes(whole[:size])
        if size == table:
            continue
        with pytest.raises(RawError, match=r"cut\.fits"):
            read_raw(cut)


def test_garbage_after_the_last_hdu_is_refused(tmp_path):
    path = files.write(tmp_path / "a.fits")
    path.write_bytes(path.read_bytes() + b"x" * 3000)
    with pytest.raises(RawError, match="damaged"):
        read_raw(path)


def test_damaged_tiles_are_refused(tmp_path):
    path = files.write(tmp_path / "a.fits.fz", compress=True)
    with fits.open(path, disable_image_compression=True) as hdus:
        place = hdus[3].fileinfo()
    content = bytearray(path.read_bytes())
    content[place["datLoc"] : place["datLoc"] + 8 * (NY + files.PARALLEL)] = b"\xff" * (
        8 * (NY + files.PARALLEL)
    )
    path.write_bytes(content)
    with pytest.raises(RawError, match="Segment12"):
        read_raw(path)


def without(hdus):
    del hdus[5]


def twice(hdus):
    hdus[5].header["DETSEC"] = hdus[4].header["DETSEC"]


def one_name(hdus):
    hdus[5].header["EXTNAME"] = hdus[4].header["EXTNAME"]


def card(name, value):
    def change(hdus):
        if value is None:
            del hdus[5].header[name]
        else:
            hdus[5].header[name] = value

    change.__name__ = f"{name}={value}"
    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without, "15 amplifiers"),
        (twice, "overlap"),
        (one_name, "EXTNAME"),
        (card("EXTNAME", None), "EXTNAME"),
        (card("DATASEC", None), "Segment14: DATASEC"),
        (card("DATASEC", "nonsense"), "Segment14: DATASEC"),
        (card("DATASEC", f"[0:{NX},1:{NY}]"), "before pixel 1"),
        (card("DATASEC", f"[4:{NX + 3},{NY}:1]"), "backwards"),
        (card("DATASEC", f"[4:{NX + 3},1:{NY + 50}]"), "larger than the image"),
        (card("DATASEC", f"[{4 + files.OVERSCAN}:{NX + 3 + files.OVERSCAN},1:{NY}]"), "overscan"),
        (card("DATASEC", f"[5:{NX + 3},1:{NY}]"), "Segment14"),
        (card("DETSEC", 17), "DETSEC"),
        (card("DETSEC", f"[{9 * NX}:{8 * NX + 1},1:{NY}]"), "cover"),
        (card("DETSIZE", "[1:4072,1:4000]"), "DETSIZE"),
        (card("DETSIZE", None), "DETSIZE"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_wrong_geometry_is_refused(tmp_path, change, message):
    hdus = files.hdus()
    change(hdus)
    path = save(hdus, tmp_path / "bad.fits")
    with pytest.raises(RawError, match=message) as caught:
        read_raw(path)
    assert "bad.fits" in str(caught.value)


def test_a_missing_row_of_amplifiers_is_noticed(tmp_path):
    hdus = files.hdus()
    path = save(hdus[:9], tmp_path / "half.fits")
    with pytest.raises(RawError, match="missing"):
        read_raw(path)


def test_a_file_without_amplifiers_is_refused(tmp_path):
    path = save(fits.HDUList([fits.PrimaryHDU(np.zeros((5, 5)))]), tmp_path / "image.fits")
    with pytest.raises(RawError, match="no amplifier"):
        read_raw(path)
    assert not issubclass(RawError, HeaderError)
