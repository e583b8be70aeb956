"""LSSTCam raws, written with astropy alone."""

from pathlib import Path

import numpy as np
from astropy.io import fits

ORDER = ("10", "11", "12", "13", "14", "15", "16", "17", "07", "06", "05", "04", "03", "02", "01", "00")


def primary_header(**cards) -> fits.Header:
    """A primary header of a science image, like that of MC_O_20250609_000578_R01_S01 in obs_lsst's tests."""
    header = fits.Header()
    header.update(
        {
            "INSTRUME": "lsstCam", "TELESCOP": "Simonyi Survey Telescope", "LSST_NUM": "ITL-3800C-226",
            "RAFTBAY": "R01", "CCDSLOT": "S01", "CCD_MANU": "ITL", "CCD_TYPE": "3800C",
            "OBSID": "MC_O_20250609_000578", "DAYOBS": "20250609", "SEQNUM": 578, "CONTRLLR": "O",
            "CAMCODE": "MC", "GROUPID": "2025-06-10T07:31:26.692", "IMGTYPE": "OBJECT",
            "OBJECT": "Rubin_SV_320_-15", "PROGRAM": "BLOCK-365", "REASON": "field_survey_science",
            "CURINDEX": 1, "MAXINDEX": 1, "EXPTIME": 30.0, "DARKTIME": 30.9487, "TIMESYS": "TAI",
            "DATE-BEG": "2025-06-10T07:31:55.280", "DATE-END": "2025-06-10T07:32:26.229",
            "MJD-BEG": 60836.313834257424, "MJD-END": 60836.314192460384,
            "RA": 320.62687495816675, "DEC": -17.94136111150278, "ROTPA": 131.35723576573005,
            "ROTCOORD": "sky", "RADESYS": "ICRS", "TRACKSYS": "RADEC", "ELSTART": 67.9926054067029,
            "AZSTART": 60.273964256114, "AMSTART": 1.0784249757326254, "FOCUSZ": -3.200530845386125,
            "FILTER": "y_10", "FILTBAND": "y", "AIRTEMP": 9.7, "PRESSURE": 74210.0, "HUMIDITY": 11.175,
        }
    )  # fmt: skip
    for name, value in cards.items():
        if value is None:
            del header[name]
        else:
            header[name] = value
    return header


def write_pattern(path: Path, vendor: str) -> tuple[Path, np.ndarray]:
    """Write a raw of full size in which every pixel of the detector has a number of its own.

    DATASEC and DETSEC are those that the files of both vendors have.
    """
    nx, ny, prescan = (512, 2002, 10) if vendor == "E2V" else (509, 2000, 3)
    image = np.arange(2 * ny * 8 * nx, dtype=np.int32).reshape(2 * ny, 8 * nx)
    hdus = fits.HDUList([fits.PrimaryHDU(header=primary_header())])
    for name in ORDER:
        top, left = name[0] == "0", int(name[1]) * nx
        part = image[ny:, left : left + nx] if top else image[:ny, left : left + nx]
        x = f"{left + nx}:{left + 1}"
        if top and vendor == "E2V":
            x = f"{left + 1}:{left + nx}"
        else:
            part = part[:, ::-1]
        pixels = np.full((2048, 576), -1, dtype=np.int32)
        pixels[:ny, prescan : prescan + nx] = part[::-1] if top else part
        hdu = fits.ImageHDU(pixels)
        hdu.header["EXTNAME"] = f"Segment{name}"
        hdu.header["DATASEC"] = f"[{prescan + 1}:{prescan + nx},1:{ny}]"
        hdu.header["DETSEC"] = f"[{x},{2 * ny}:{ny + 1}]" if top else f"[{x},1:{ny}]"
        hdu.header["DETSIZE"] = f"[1:{8 * nx},1:{2 * ny}]"
        hdus.append(hdu)
    hdus.writeto(path)
    return path, image
