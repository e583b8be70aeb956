"""A night of somebody else's making: written with numpy and astropy alone, knowing nothing of this project.

It differs from the simulated nights in all that a real one may: amplifiers of another size and order, other
gains, no sidecars, headers whose rotation is wrong by 180 degrees, uncompressed 16-bit pixels.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table
from astropy.time import Time
from astropy.wcs import WCS

COLUMNS, ROWS = 8, 2
AMP_NX, AMP_NY = 70, 260
PRESCAN, SERIAL_OVERSCAN, PARALLEL_OVERSCAN = 5, 20, 12
NX, NY = COLUMNS * AMP_NX, ROWS * AMP_NY
SCALE = 0.095695
SIGMA = 2.4
RA, DEC = 210.3, 12.7
FILTER, GRATING = "SDSSi_65mm", "empty"
DAY_OBS = 20260611
NANOJANSKY_PER_ELECTRON = 55.0


@dataclass
class ForeignNight:
    """What was put into the night."""

    folder: Path
    groups: list[str] = field(default_factory=list)
    transients: list[tuple[float, float, float]] = field(default_factory=list)
    """Right ascension, declination [deg] and flux [nJy] of each new source."""


def write_foreign_night(folder: Path, *, seed: int = 5, visits: int = 2) -> ForeignNight:
    """Write the night and return what is in it."""
    rng = np.random.default_rng(seed)
    night = ForeignNight(folder)
    gains = rng.uniform(1.4, 1.9, COLUMNS * ROWS)
    response = rng.normal(1.0, 0.01, (NY, NX))
    stars = _stars(rng)
    _write_refcat(folder, stars)
    camera = _Camera(rng, gains, response)
    start = Time("2026-06-11T20:00:00", scale="tai")
    for number in range(4):
        camera.write(folder / "calib", number + 1, start, "BIAS", np.zeros((NY, NX)), 0.0)
    for number in range(3):
        camera.write(folder / "calib", number + 11, start, "DARK", np.full((NY, NX), 3.0), 60.0)
    for number, level in enumerate((12_000, 12_000, 30_000, 30_000)):
        camera.write(folder / "calib", number + 21, start, "FLAT", level * response, 10.0)
    for number in range(3):
        wcs = _wcs(rng)
        sky = 250.0 + _draw(stars, wcs)
        at = Time("2026-06-12T01:00:00", scale="tai")
        camera.write(folder / "template", number + 101, at, "OBJECT", sky * response, 30.0)
    _add_transients(night, rng)
    for number in range(visits):
        begin = Time(f"2026-06-12T03:{2 * number:02d}:00", scale="tai")
        wcs = _wcs(rng)
        sky = 400.0 + 0.8 * _draw(stars + night.transients, wcs)
        path = camera.write(folder / "raw", number + 201, begin, "OBJECT", sky * response, 30.0)
        night.groups.append(fits.getval(path, "GROUPID"))
    _write_events(folder, night.groups)
    return night


def _stars(rng: np.random.Generator) -> list[tuple[float, float, float]]:
    """Return right ascension, declination and flux [nJy] of stars in and around the field."""
    half = 0.65 * NX * SCALE / 3600
    flux = NANOJANSKY_PER_ELECTRON * 10 ** rng.uniform(3.5, 5.3, 130)
    ra = RA + rng.uniform(-half, half, flux.size) / np.cos(np.radians(DEC))
    return list(zip(ra, DEC + rng.uniform(-half, half, flux.size), flux, strict=True))


def _wcs(rng: np.random.Generator) -> WCS:
    """Return where the telescope really looked: off by some arcsec, and turned by 180 deg from the header."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [RA + rng.normal(0, 3) / 3600, DEC + rng.normal(0, 3) / 3600]
    wcs.wcs.crpix = [(NX + 1) / 2, (NY + 1) / 2]
    angle = np.radians(180.0 + rng.normal(0, 0.2))
    cosine, sine = np.cos(angle), np.sin(angle)
    wcs.wcs.cd = SCALE / 3600 * np.array([[cosine, -sine], [-sine, -cosine]])
    return wcs


def _draw(sources: list[tuple[float, float, float]], wcs: WCS) -> np.ndarray:
    """Return the electrons of point sources."""
    image = np.zeros((NY, NX))
    ra, dec, flux = np.array(sources).T
    for x, y, electrons in zip(*wcs.wcs_world2pix(ra, dec, 0), flux / NANOJANSKY_PER_ELECTRON, strict=True):
        x0, y0 = round(float(x)), round(float(y))
        if not (-20 < x0 < NX + 20 and -20 < y0 < NY + 20):
            continue
        ys = np.arange(max(y0 - 20, 0), min(y0 + 21, NY))
        xs = np.arange(max(x0 - 20, 0), min(x0 + 21, NX))
        profile = np.exp(-0.5 * (((ys - y) / SIGMA)[:, None] ** 2 + ((xs - x) / SIGMA)[None, :] ** 2))
        image[np.ix_(ys, xs)] += electrons * profile / (2 * np.pi * SIGMA**2)
    return image


def _add_transients(night: ForeignNight, rng: np.random.Generator) -> None:
    """Add bright new sources on a grid, so that they are apart from one another and from the edge."""
    for dx in (-15.0, 0.0, 15.0):
        for dy in (-14.0, 14.0):
            ra = RA + (dx + rng.uniform(-1, 1)) / 3600 / np.cos(np.radians(DEC))
            night.transients.append(
                (ra, DEC + (dy + rng.uniform(-1, 1)) / 3600, NANOJANSKY_PER_ELECTRON * 9_000)
            )


class _Camera:
    def __init__(self, rng: np.random.Generator, gains: np.ndarray, response: np.ndarray) -> None:
        self._rng, self._gains, self._response = rng, gains, response

    def write(
        self, root: Path, seq: int, begin: Time, kind: str, electrons: np.ndarray, exposure: float
    ) -> Path:
        """Write one raw, and return its path."""
        obs_id = f"AT_O_{DAY_OBS}_{seq:06d}"
        hdus = fits.HDUList([fits.PrimaryHDU(header=_header(obs_id, seq, begin, kind, exposure))])
        collected = self._rng.poisson(electrons).astype(float)
        for index, gain in enumerate(self._gains):
            hdus.append(self._amplifier(index, gain, collected))
        path = root / "LATISS" / str(DAY_OBS) / obs_id / f"{obs_id}_R00_S00.fits"
        path.parent.mkdir(parents=True, exist_ok=True)
        hdus.writeto(path)
        return path

    def _amplifier(self, index: int, gain: float, electrons: np.ndarray) -> fits.ImageHDU:
        row, column = divmod(index, COLUMNS)
        y0, x0 = row * AMP_NY, column * AMP_NX
        data = electrons[y0 : y0 + AMP_NY, x0 : x0 + AMP_NX]
        x_range, y_range = f"{x0 + 1}:{x0 + AMP_NX}", f"{y0 + 1}:{y0 + AMP_NY}"
        if column % 2:
            data, x_range = data[:, ::-1], f"{x0 + AMP_NX}:{x0 + 1}"
        if row:
            data, y_range = data[::-1], f"{y0 + AMP_NY}:{y0 + 1}"
        shape = (AMP_NY + PARALLEL_OVERSCAN, PRESCAN + AMP_NX + SERIAL_OVERSCAN)
        pixels = self._rng.normal(1_500.0 + 20 * index, 7.0 / gain, shape)
        pixels[:AMP_NY, PRESCAN : PRESCAN + AMP_NX] += data / gain
        hdu = fits.ImageHDU(
            np.clip(np.rint(pixels), 0, 65_535).astype(np.uint16), name=f"Segment{row}{column}"
        )
        hdu.header["DATASEC"] = f"[{PRESCAN + 1}:{PRESCAN + AMP_NX},1:{AMP_NY}]"
        hdu.header["DETSEC"] = f"[{x_range},{y_range}]"
        hdu.header["DETSIZE"] = f"[1:{NX},1:{NY}]"
        return hdu


def _header(obs_id: str, seq: int, begin: Time, kind: str, exposure: float) -> fits.Header:
    end = Time(begin.mjd + exposure / 86400, format="mjd", scale="tai")
    cards = {
        "INSTRUME": "LATISS", "OBSID": obs_id, "DAYOBS": str(DAY_OBS), "SEQNUM": seq, "CONTRLLR": "O",
        "GROUPID": f"2026-06-12T03:00:{seq % 60:02d}.{seq:03d}", "IMGTYPE": kind, "OBSTYPE": kind,
        "OBJECT": "a field", "PROGRAM": "ours", "REASON": "none", "CURINDEX": 1, "MAXINDEX": 1,
        "EXPTIME": exposure, "DARKTIME": exposure, "TIMESYS": "TAI",
        "DATE-BEG": begin.isot, "DATE-END": end.isot, "MJD-BEG": begin.mjd, "MJD-END": end.mjd,
        "FILTER": FILTER, "GRATING": GRATING, "RAFTBAY": "R00", "CCDSLOT": "S00", "LSST_NUM": "ITL-3800C-068",
        "CCDTEMP": -94.0,
    }  # fmt: skip
    if kind == "OBJECT":
        cards |= {
            "RA": RA, "DEC": DEC, "ROTPA": 0.0, "ROTCOORD": "sky", "RADESYS": "ICRS", "TRACKSYS": "RADEC",
        }  # fmt: skip
    return fits.Header(list(cards.items()))


def _write_refcat(folder: Path, stars: list[tuple[float, float, float]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    ra, dec, flux = np.array(stars).T
    magnitude = 31.4 - 2.5 * np.log10(flux)
    Table(
        {
            "id": np.arange(ra.size),
            "ra": ra,
            "dec": dec,
            "i_mag": magnitude,
            "i_magErr": np.full(ra.size, 0.01),
        }
    ).write(folder / "refcat.ecsv")


def _write_events(folder: Path, groups: list[str]) -> None:
    lines = []
    for number, group in enumerate(groups):
        start = Time(f"2026-06-12T03:{2 * number:02d}:00", scale="tai").unix_tai
        sent = start - 25.0
        lines.append(
            {
                "salIndex": 2, "scriptSalIndex": 7 + number, "groupId": group, "coordinateSystem": 2,
                "position": [RA, DEC], "startTime": start, "rotationSystem": 2, "cameraAngle": 0.0,
                "filters": f"{FILTER}~{GRATING}", "dome": 2, "duration": 32.0, "nimages": 1,
                "instrument": "LATISS", "survey": "ours", "totalCheckpoints": 0,
                "private_sndStamp": sent, "private_efdStamp": sent - 37.0,
            }
        )  # fmt: skip
    (folder / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
