"""Small LATISS raws, written with astropy alone."""

from pathlib import Path

import numpy as np
from astropy.io import fits

NX, NY = 21, 40  # data pixels of an amplifier: 8 x 21 columns and 2 x 40 rows make the detector
PRESCAN, OVERSCAN, PARALLEL = 3, 7, 5
ORDER = ("10", "11", "12", "13", "14", "15", "16", "17", "07", "06", "05", "04", "03", "02", "01", "00")


def detsec(name: str) -> str:
    """DETSEC as LATISS writes it: x runs backwards everywhere, y backwards in the second row."""
    column = int(name[1])
    x = f"{(column + 1) * NX}:{column * NX + 1}"
    return f"[{x},1:{NY}]" if name[0] == "1" else f"[{x},{2 * NY}:{NY + 1}]"


def primary_header(**cards) -> fits.Header:
    """A primary header of a science image, like those of 2024."""
    header = fits.Header()
    header.update(
        {
            "INSTRUME": "LATISS", "TELESCOP": "LSST AuxTelescope", "LSST_NUM": "ITL-3800C-068",
            "OBSID": "AT_O_20240624_000106", "DAYOBS": "20240624", "SEQNUM": 106, "CONTRLLR": "O",
            "GROUPID": "2024-06-25T01:26:31.895#1", "IMGTYPE": "OBJECT", "OBJECT": "HD 131586",
            "PROGRAM": "BLOCK-1", "REASON": "SURVEY", "CURINDEX": 1, "MAXINDEX": 1,
            "EXPTIME": 30.0, "DARKTIME": 30.2407, "TIMESYS": "TAI",
            "DATE-BEG": "2024-06-25T01:27:55.160", "DATE-END": "2024-06-25T01:28:25.400",
            "MJD-BEG": 60486.06105509261, "MJD-END": 60486.06140509248,
            "RA": 223.75, "DEC": -20.0, "ROTPA": 98.5, "ROTCOORD": "sky", "RADESYS": "ICRS",
            "ELSTART": 79.85583534052326, "AZSTART": -3.3659773360866496, "AMSTART": 1.0156,
            "FILTER": "SDSSr_65mm", "GRATING": "empty_1", "PRESSURE": 73880.0, "AIRTEMP": 1.575,
            "HUMIDITY": 40.65,
        }
    )  # fmt: skip
    for card, value in cards.items():
        name = card.replace("_", "-") if card.startswith(("DATE_", "MJD_")) else card
        if value is None:
            del header[name]
        else:
            header[name] = value
    return header


def amplifier_pixels(name: str, dtype=np.int32) -> np.ndarray:
    """Pixels that tell where they belong: ``10000 * amplifier + 100 * row + column`` of the data section.

    The prescan holds -1, the serial overscan -2 and the parallel overscan -3.
    """
    pixels = np.full((NY + PARALLEL, PRESCAN + NX + OVERSCAN), -3)
    pixels[:NY, :PRESCAN], pixels[:NY, PRESCAN + NX :] = -1, -2
    y, x = np.mgrid[:NY, :NX]
    pixels[:NY, PRESCAN : PRESCAN + NX] = 10_000 * (int(name) + 1) + 100 * y + x
    return pixels.astype(dtype)


def hdus(header: fits.Header | None = None, *, dtype=np.int32, compress: bool = False) -> fits.HDUList:
    """The HDUs of a raw: primary, 16 amplifiers, and a table as real raws have it."""
    result = fits.HDUList([fits.PrimaryHDU(header=header or primary_header())])
    for name in ORDER:
        pixels = amplifier_pixels(name, dtype)
        if compress:
            hdu = fits.CompImageHDU(pixels, compression_type="RICE_1", tile_shape=(1, pixels.shape[1]))
        else:
            hdu = fits.ImageHDU(pixels)
        hdu.header["EXTNAME"] = f"Segment{name}"
        hdu.header["DATASEC"] = f"[{PRESCAN + 1}:{PRESCAN + NX},1:{NY}]"
        hdu.header["DETSEC"] = detsec(name)
        hdu.header["DETSIZE"] = f"[1:{8 * NX},1:{2 * NY}]"
        result.append(hdu)
    result.append(fits.BinTableHDU.from_columns([fits.Column("TEMP", "D", array=[1.0])], name="REB_COND"))
    return result


def write(path: Path, header: fits.Header | None = None, **options) -> Path:
    """Write a raw and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    hdus(header, **options).writeto(path, overwrite=True)
    return path
