"""Files made to hurt whoever reads them: each is refused in little time and memory."""

import gzip
import json
import subprocess
import sys

import numpy as np
import pytest
from astropy.io import fits

from prompt_processing.domain.errors import HeaderError, PromptError, RawError
from prompt_processing.instruments.observation import observation_info, with_group
from prompt_processing.instruments.raw import read_raw, read_raw_header
from support import latiss_files as files

SECONDS = 5
"""Processor time after which a reader is killed [s]; a real raw takes a tenth of one."""
MEGABYTES = 500
"""Most memory that reading may take [MB]; a raw of LSSTCam takes 80."""
SIDE = 4400
"""Side of an image that is just small enough for an amplifier [pixel]."""
_READER = """
import json, os, resource, sys, time
from prompt_processing.domain.errors import RawError
from prompt_processing.instruments.raw import read_raw, read_raw_header
seconds = int(sys.argv[1])
for path in sys.argv[2:]:
    if os.fork() == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        said = []
        for read in (read_raw, read_raw_header):
            try:
                read(path)
                said.append("it was read")
            except RawError as error:
                said.append(f"RawError: {error}")
            except BaseException as error:
                said.append(repr(error))
        used = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        print(json.dumps([path, *said, used]), flush=True)
        os._exit(0)
    status = os.wait()[1]
    if status:
        said = f"killed by signal {status}"
        print(json.dumps([path, said, said, 0.0]), flush=True)
"""


def block(*lines):
    """Return a header of these lines as they are."""
    text = b"".join(line.encode("latin1").ljust(80) for line in (*lines, "END"))
    return text.ljust(-(-len(text) // 2880) * 2880)


def header(**cards):
    return block(*(f"{name:8}= {value!s:>20}" for name, value in cards.items() if value is not None))


END = b"END".ljust(80)
PRIMARY = header(SIMPLE="T", BITPIX=8, NAXIS=0, EXTEND="T")
GEOMETRY = {"DETSEC": "'[1:2,1:2]'", "DATASEC": "'[1:2,1:2]'", "DETSIZE": "'[1:2,1:2]'"}


def image(name="Segment00", **changes):
    """Return the header of an amplifier with 4 x 4 pixels."""
    cards = {
        "XTENSION": "'IMAGE   '", "BITPIX": 32, "NAXIS": 2, "NAXIS1": 4, "NAXIS2": 4, "PCOUNT": 0,
        "GCOUNT": 1, "EXTNAME": f"'{name}'", **GEOMETRY,
    }  # fmt: skip
    return header(**cards | changes)


DATA = bytes(2880)


def plain(**changes):
    """Return a raw of one amplifier with some cards changed."""
    return PRIMARY + image(**changes) + DATA


def tiles(
    payload=b"\0" * 16, kind="RICE_1", shape=(4, 4), column="COMPRESSED_DATA", name="Segment00", **changes
):
    """Return a tile-compressed amplifier of one tile."""
    columns = {"TFIELDS": 1, "TTYPE1": f"'{column}'", "TFORM1": "'1PB'"}
    if column != "COMPRESSED_DATA":
        columns |= {"TFIELDS": 2, "TTYPE2": "'COMPRESSED_DATA'", "TFORM2": "'1PB'"}
    width = 8 * columns["TFIELDS"]
    cards = {
        "XTENSION": "'BINTABLE'", "BITPIX": 8, "NAXIS": 2, "NAXIS1": width, "NAXIS2": 1,
        "PCOUNT": len(payload), "GCOUNT": 1, **columns, "ZIMAGE": "T", "ZCMPTYPE": f"'{kind}'",
        "ZBITPIX": 32, "ZNAXIS": 2,
        "ZNAXIS1": shape[0], "ZNAXIS2": shape[1], "ZTILE1": shape[0], "ZTILE2": shape[1],
        "EXTNAME": f"'{name}'", **GEOMETRY,
    }  # fmt: skip
    row = np.array([len(payload), 0, 0, 0][: width // 4], ">i4").tobytes()
    data = row + payload
    return header(**cards | changes) + data + bytes(-len(data) % 2880)


def much(megabytes):
    """Return a gzip stream that inflates to so many zeros."""
    return gzip.compress(bytes(1 << 20), 1) * megabytes


def many_large_amplifiers():
    # In Rice's code 32 zeros are 5 bits.
    payload = bytes(4 + SIDE * SIDE // 32 * 5 // 8)
    return PRIMARY + b"".join(
        tiles(payload, shape=(SIDE, SIDE), name=f"Segment{number:02}") for number in range(12)
    )


def with_card(content, *lines):
    """Return a header with more cards at its end."""
    added = b"".join(line.encode().ljust(80) for line in (*lines, "END"))
    return content.replace(b"END".ljust(len(added)), added)


def in_pieces(content, name, first, second):
    """Return an HDU with a long text on two cards in place of one of its cards."""
    start = content.index(f"{name:8}=".encode())
    pieces = f"{name:8}= '{first}'".ljust(80) + f"CONTINUE  '{second}'".ljust(80)
    changed = content[:start] + pieces.encode() + content[start + 80 :]
    # What is longer now takes the place of blanks behind the end.
    end = changed.index(b"END".ljust(80)) + 80
    assert end % 2880
    return changed[:end] + changed[end + 80 :]


ENDLESS = -16 - len(image()) // 4
"""Length of a heap that leads from the end of an amplifier's data back to its header."""


def hidden_in_data(before, *, start):
    """Return a raw that has an HDU that follows itself in what looks like data to a careless reader."""
    data = bytes(2880 * start) + image(PCOUNT=ENDLESS) + DATA
    return before + data + bytes(2880 * 40 - len(data))


GROUPS = {"SIMPLE": "T", "BITPIX": 8, "NAXIS": 2, "NAXIS1": 0, "NAXIS2": 2880, "GROUPS": "T", "GCOUNT": 2}
WIDE = {"NAXIS1": 2880, "NAXIS2": 10}
# Its own header says that the image has 30,000 x 30,000 pixels.
HCOMPRESS = b"\xdd\x99" + (30_000).to_bytes(4, "big") * 2 + bytes(12) + b"\x01\x01\x01" + bytes(100)

BOMBS = {
    # Sizes that a header promises.
    "a gigapixel": lambda: plain(NAXIS1=10**5, NAXIS2=10**5),
    "a gigapixel in a tile": lambda: PRIMARY + tiles(shape=(10**5, 10**5)),
    "more than a number can say": lambda: plain(NAXIS1=10**30),
    "more than a tile can say": lambda: PRIMARY + tiles(shape=(10**30, 4)),
    "a thousand axes": lambda: plain(NAXIS=999),
    "a billion axes": lambda: plain(NAXIS=10**9),
    "a billion axes in a tile": lambda: PRIMARY + tiles(ZNAXIS=10**9),
    "a billion axes at the start": lambda: header(SIMPLE="T", BITPIX=8, NAXIS=10**9),
    "a billion columns": lambda: PRIMARY + tiles(TFIELDS=10**9),
    "an axis that is missing": lambda: plain(NAXIS1=None),
    "an axis that is negative": lambda: plain(NAXIS1=-1440, NAXIS2=2),
    "an axis that is text": lambda: plain(NAXIS1="'4'"),
    "a fraction of an axis": lambda: plain(NAXIS1=4.5),
    "pixels of no kind": lambda: plain(BITPIX=7),
    "a negative heap, so that each HDU follows itself": lambda: plain(PCOUNT=-16 - len(image()) // 4),
    "a negative number of groups": lambda: plain(GCOUNT=-1000),
    "a heap without end": lambda: plain(PCOUNT=10**15),
    "tiles of no size": lambda: PRIMARY + tiles(ZTILE1=0, ZTILE2=0),
    "tiles of negative size": lambda: PRIMARY + tiles(ZTILE1=-1, ZTILE2=-1),
    "a tile that is larger than its image": lambda: PRIMARY + tiles(ZTILE1=10**6, ZTILE2=10**6),
    "a tile that lies outside the file": lambda: PRIMARY + tiles(THEAP=10**12),
    "a compression that nobody knows": lambda: PRIMARY + tiles(kind="NONSENSE"),
    # What is small and becomes large.
    "a tile that inflates": lambda: PRIMARY + tiles(much(1200), "GZIP_1"),
    "a tile that inflates in another column": lambda: (
        PRIMARY + tiles(much(1200), column="GZIP_COMPRESSED_DATA")
    ),
    "many amplifiers that are just small enough": many_large_amplifiers,
    "a gzip file": lambda: gzip.compress(header(SIMPLE="T", BITPIX=8, NAXIS=1, NAXIS1=1 << 40)) + much(8000),
    "a gzip file of gzip files": lambda: gzip.compress(much(8000), 1),
    # Many of them.
    "thousands of HDUs": lambda: PRIMARY + (image(NAXIS=0, NAXIS1=None, NAXIS2=None)) * 30_000,
    "thousands of tables": lambda: PRIMARY + tiles(ZIMAGE="F") * 15_000,
    "two sizes of which one is negative": lambda: (
        PRIMARY + image().replace(b"END".ljust(160), b"PCOUNT  =                -5776".ljust(80) + END) + DATA
    ),
    "thousands of cards": lambda: PRIMARY[:240] + b"COMMENT no end".ljust(80) * 500_000,
    # Cards that one reader understands and another one does not.
    "a size in small letters": lambda: (
        PRIMARY + with_card(image(PCOUNT=None), f"pcount  = {ENDLESS}") + DATA
    ),
    "a size with a long name": lambda: (
        PRIMARY + with_card(image(PCOUNT=None), f"HIERARCH PCOUNT = {ENDLESS}") + DATA
    ),
    "a compression in small letters": lambda: PRIMARY + tiles(much(1200), "gzip_1"),
    "a compression in two pieces": lambda: (
        PRIMARY + in_pieces(tiles(much(1200), "GZIP_1"), "ZCMPTYPE", "GZI&", "P_1")
    ),
    "a column in two pieces": lambda: (
        PRIMARY
        + in_pieces(
            tiles(much(1200), column="GZIP_COMPRESSED_DATA"), "TTYPE1", "GZIP_COM&", "PRESSED_DATA"
        )
    ),
    "a tile that knows better how large it is": lambda: PRIMARY + tiles(HCOMPRESS, "HCOMPRESS_1", (100, 100)),
    "no groups, so that data are none": lambda: hidden_in_data(PRIMARY + image(GCOUNT=0, **WIDE), start=0),
    "pixels of fifteen bits": lambda: hidden_in_data(
        PRIMARY + image(BITPIX=15, NAXIS1=2880, NAXIS2=8) + DATA * 8 + image(**WIDE), start=6
    ),
    "groups of images": lambda: hidden_in_data(header(**GROUPS) + image(**WIDE), start=1),
    "one group of images": lambda: hidden_in_data(
        header(**GROUPS | {"GCOUNT": 1, "NAXIS2": 5760}) + image(**WIDE), start=1
    ),
    "an end that is none": lambda: hidden_in_data(
        PRIMARY + with_card(image(**WIDE, GCOUNT=None), "END ;", "GCOUNT  = 1"), start=0
    ),
    # Cards that cannot be read.
    "text without end": lambda: plain(DETSEC="'[1:2,1:2]"),
    "a section that is no text": lambda: plain(DATASEC="1 x 2"),
    "a name that is no text": lambda: plain(EXTNAME="gar bage"),
    "bytes that are no text": lambda: PRIMARY + image().replace(b"DETSEC", b"DET\xff\xfeC") + DATA,
    "nothing but noise": lambda: b"SIMPLE  =                    T" + bytes(range(256)) * 400,
}  # fmt: skip


@pytest.fixture(scope="module")
def fates(tmp_path_factory):
    """What becomes of whoever reads each file, or its header alone, and how much memory that takes [MB]."""
    folder = tmp_path_factory.mktemp("bombs")
    paths = {}
    for number, (name, make) in enumerate(BOMBS.items()):
        path = folder / f"bomb-{number}.fits.fz"
        path.write_bytes(make())
        paths[str(path)] = name
    paths[str(files.write(folder / "good.fits.fz", compress=True))] = "good"
    command = [sys.executable, "-W", "ignore", "-c", _READER, str(SECONDS), *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=500)
    found = (json.loads(line) for line in done.stdout.splitlines())
    return {paths[path]: fate for path, *fate in found}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_in_little_time_and_memory(fates, name):
    said, header_said, used = fates[name]
    assert said.startswith("RawError: ")
    assert "bomb-" in said
    assert len(said) < 1000
    assert header_said == "it was read" or header_said.startswith("RawError: ")
    assert used < MEGABYTES


def test_a_good_file_is_read_as_the_bombs_are(fates):
    *said, used = fates["good"]
    assert said == ["it was read", "it was read"]
    assert used < MEGABYTES


def test_the_header_of_a_gzip_file_is_refused_too(tmp_path):
    path = tmp_path / "a.fits.fz"
    path.write_bytes(gzip.compress(PRIMARY))
    with pytest.raises(RawError, match=r"a\.fits\.fz: not a readable FITS file"):
        read_raw_header(path)


def test_noise_in_a_good_file_never_does_more_than_refuse_it(tmp_path):
    good = files.write(tmp_path / "good.fits", compress=True).read_bytes()
    random = np.random.default_rng(1)
    path = tmp_path / "noise.fits"
    refused = 0
    for _ in range(60):
        content = np.frombuffer(good, np.uint8).copy()
        # Most of the places are in headers, which are text.
        places = random.integers(0, len(content), 40)
        content[places] = random.integers(32, 127, 40)
        path.write_bytes(content.tobytes())
        try:
            read_raw(path)
        except RawError:
            refused += 1
    assert refused > 30


# What is read beside the pixels.


@pytest.mark.parametrize("name", ["INSTRUME", "GROUPID", "DATE-BEG", "RA", "OBSID"])
def test_a_card_that_cannot_be_read_is_an_error_of_the_header(tmp_path, name):
    known = files.primary_header()
    lines = {card.keyword: card.image for card in known.cards}
    lines[name] = f"{name:8}= 'no end".ljust(80)
    text = "".join(lines.values())
    damaged = fits.Header.fromstring(text)
    with pytest.raises(HeaderError, match=r"a\.fits"):
        observation_info(with_group(damaged, tmp_path / "a.fits"), tmp_path / "a.fits")


def test_a_bomb_is_an_error_that_ends_its_visit():
    assert issubclass(RawError, PromptError)
    assert not RawError.retriable
