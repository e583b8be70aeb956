"""The detectors that can be simulated.

As with the layout of a raw (`prompt_processing.simulation.camera`), the focal plane is described here once
more, and in another way than where raws are read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal
from zlib import crc32

import numpy as np
from astropy.wcs import WCS

from prompt_processing.domain.errors import ConfigError

Vendor = Literal["E2V", "ITL"]

_SIDE: Final = 15
"""Detectors along each axis of LSSTCam's focal plane; in the corners there are none."""
_E2V_FROM_COLUMN: Final = {0: 15, 1: 3, 2: 3, 3: 0, 4: 15}
"""By row of rafts: the column of detectors from which on they are of this vendor."""


@dataclass(frozen=True, slots=True)
class SimulatedDetector:
    """One detector of a camera."""

    instrument: str
    number: int
    name: str
    """Name in the keys of raws, such as ``R22_S11``."""
    vendor: Vendor
    prefix: str
    """Start of observation ids."""
    pixel_scale: float
    """Nominal [arcsec]."""
    template_fwhm: float
    """PSF of the template epochs [px]."""
    science_fwhm: float
    """PSF of the visits [px]."""
    filter: str
    """``FILTER`` card of an image in r."""
    place: tuple[float, float] = (0.0, 0.0)
    """Centre of the detector from the boresight, along its rows and its columns [px]."""

    def seed(self, night: int) -> int:
        """Return the seed of everything that is this detector's own, from the seed of the night.

        Parameters
        ----------
        night
            Seed of the night.

        Returns
        -------
        seed
            The seed; for LATISS that of the night.
        """
        return night if self.instrument == "LATISS" else crc32(f"{night} {self.name}".encode())

    def truth(self, night: Path) -> Path:
        """Return the folder of the truth about this detector.

        Parameters
        ----------
        night
            Folder of the night.

        Returns
        -------
        folder
            ``truth`` for LATISS, else ``truth/<detector>``.
        """
        return night / "truth" if self.instrument == "LATISS" else night / "truth" / self.name

    def looks_at(self, ra: float, dec: float, rotation: float) -> tuple[float, float, float]:
        """Return the centre of the detector on the sky and its own rotation [deg] for a boresight's.

        The tangent plane is that of the boresight, so the rotation changes with the distance from it.

        Parameters
        ----------
        ra, dec
            ICRS position of the boresight [deg].
        rotation
            Rotation at the boresight [deg].

        Returns
        -------
        ra, dec, rotation
            Position of the detector's centre and the rotation there [deg].
        """
        if self.place == (0.0, 0.0):
            return ra, dec, rotation
        plane = tangent_plane(ra, dec, rotation, self.pixel_scale)
        x, y = self.place
        (ra0, dec0), (ra1, dec1) = plane.wcs_pix2world([[x, y], [x, y + 1.0]], 0)
        local = tangent_plane(ra0, dec0, 0.0, self.pixel_scale)
        # At rotation 0, +y is at position angle 180 deg and x runs east; the rest is the rotation.
        dx, dy = local.wcs_world2pix([[ra1, dec1]], 0)[0]

        return float(ra0), float(dec0), float(np.rad2deg(np.arctan2(-dx, dy)))


def tangent_plane(ra: float, dec: float, rotation: float, scale: float) -> WCS:
    """Return the tangent plane of a camera, with pixel (0, 0) at the boresight.

    Parameters
    ----------
    ra, dec
        ICRS position of the boresight [deg].
    rotation
        Rotation R of `~prompt_processing.simulation.optics.true_wcs` [deg].
    scale
        Pixel scale [arcsec].

    Returns
    -------
    wcs
        TAN projection; call it with origin 0.
    """
    cosine, sine = np.cos(np.deg2rad(rotation)), np.sin(np.deg2rad(rotation))
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [ra, dec]
    wcs.wcs.crpix = [1.0, 1.0]
    wcs.wcs.cd = scale / 3600.0 * np.array([[cosine, -sine], [-sine, -cosine]])
    wcs.wcs.set()
    return wcs


LATISS: Final = SimulatedDetector("LATISS", 0, "R00_S00", "ITL", "AT_O", 0.095695, 7.5, 9.0, "SDSSr_65mm")


def simulated_detectors(instrument: str, numbers: Sequence[int]) -> list[SimulatedDetector]:
    """Return the detectors of a camera by their numbers.

    Parameters
    ----------
    instrument
        Name of the camera.
    numbers
        Numbers of the detectors; if empty, the detector in the middle.

    Returns
    -------
    detectors
        One for each number, in the given order, without repetitions.

    Raises
    ------
    ConfigError
        If there is no such camera or detector.
    """
    known = {"LATISS": {0: LATISS}, "LSSTCam": _lsstcam()}
    if instrument not in known:
        raise ConfigError(f"cannot simulate instrument {instrument!r}: known are {', '.join(known)}")
    detectors = known[instrument]
    wanted = list(dict.fromkeys(numbers)) or [94 if instrument == "LSSTCam" else 0]
    unknown = [number for number in wanted if number not in detectors]
    if unknown:
        raise ConfigError(f"{instrument} has no detector {', '.join(map(str, unknown))}")
    return [detectors[number] for number in wanted]


def _lsstcam() -> dict[int, SimulatedDetector]:
    """Return the science detectors of LSSTCam: a square of 15 x 15 without its corners of 3 x 3."""
    cells = [
        (row, column)
        for row in range(_SIDE)
        for column in range(_SIDE)
        if not {row // 3, column // 3} <= {0, 4}
    ]
    # Numbers run through the rafts, and in a raft through its detectors.
    cells.sort(key=lambda cell: (cell[0] // 3, cell[1] // 3, cell))
    middle = _SIDE // 2
    pitch_in_raft, pitch_of_rafts = 4225.0, 12700.0
    found = {}
    for number, (row, column) in enumerate(cells):
        raft_row, raft_column = row // 3, column // 3
        across, down = (
            pitch_of_rafts * (raft - middle // 3) + pitch_in_raft * (cell % 3 - 1)
            for raft, cell in ((raft_column, column), (raft_row, row))
        )
        found[number] = SimulatedDetector(
            "LSSTCam",
            number,
            f"R{raft_row}{raft_column}_S{row % 3}{column % 3}",
            "E2V" if column >= _E2V_FROM_COLUMN[raft_row] else "ITL",
            "MC_O",
            0.2,
            3.75,
            4.5,
            "r_57",
            # The rows of an image run against those of the rafts.
            (across, -down),
        )
    return found
