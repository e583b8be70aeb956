"""Reading raws with astropy alone, so that the simulator is not judged by the product's own reader."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from astropy.io import fits


class RawReader:
    """The raws of a night, by observation id."""

    def __init__(self, night: Path) -> None:
        self.night = night

    def path(self, obs_id: str) -> Path:
        (path,) = self.night.glob(f"*/LATISS/*/{obs_id}/{obs_id}_R00_S00.f*")
        return path

    def header(self, obs_id: str) -> fits.Header:
        return fits.getheader(self.path(obs_id))

    def amplifiers(self, obs_id: str) -> Iterator[tuple[str, np.ndarray, np.ndarray, tuple]]:
        """Yield name, data [adu above the overscan of its row], serial overscan, DETSEC of each amplifier."""
        with fits.open(self.path(obs_id)) as hdus:
            for hdu in hdus[1:]:
                x0, x1, y0, y1 = numbers(hdu.header["DATASEC"])
                raw = hdu.data.astype(float)
                overscan = raw[y0 - 1 : y1, x1 + 2 :]
                data = raw[y0 - 1 : y1, x0 - 1 : x1] - np.median(overscan, axis=1)[:, None]
                yield hdu.header["EXTNAME"], data, overscan, numbers(hdu.header["DETSEC"])

    def assemble(self, obs_id: str, scale: dict[str, float]) -> np.ndarray:
        """Return the detector's image by DETSEC, each amplifier times its scale."""
        _, nx, _, ny = numbers(next(iter(self._cards(obs_id, "DETSIZE"))))
        image = np.full((ny, nx), np.nan)
        for name, data, _, section in self.amplifiers(obs_id):
            place(image, data * scale[name], section)
        return image

    def _cards(self, obs_id: str, card: str) -> list[str]:
        with fits.open(self.path(obs_id)) as hdus:
            return [hdu.header[card] for hdu in hdus[1:]]


def numbers(section: str) -> tuple[int, ...]:
    return tuple(int(text) for text in re.findall(r"\d+", section))


def place(image: np.ndarray, data: np.ndarray, section: tuple[int, ...]) -> None:
    x0, x1, y0, y1 = section
    part = data[:: 1 if y1 > y0 else -1, :: 1 if x1 > x0 else -1]
    image[min(y0, y1) - 1 : max(y0, y1), min(x0, x1) - 1 : max(x0, x1)] = part
