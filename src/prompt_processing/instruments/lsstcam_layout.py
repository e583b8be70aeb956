"""The focal plane of LSSTCam: 21 science rafts of nine detectors each, from two vendors.

Numbers, names, vendors and the nominal positions are those of the published policy of ``lsst/obs_lsst``
(``policy/lsstCam/Rxx.yaml``; as a table in ``lsst_science_detectors.csv`` of ``m4opt/m4opt``). Measured
deviations of single sensors, at most a few tenths of a millimetre, are left out: astrometry starts from the
nominal place.
"""

from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

Vendor = Literal["E2V", "ITL"]

PIXEL_SIZE: Final = 0.01
"""Side of a pixel [mm]."""
RAFT_PITCH: Final = 127.0
"""Distance of the centres of neighbouring rafts [mm]."""
SENSOR_PITCH: Final = 42.25
"""Distance of the centres of neighbouring detectors in a raft [mm]."""
SHAPES: Final[dict[Vendor, tuple[int, int]]] = {"E2V": (4004, 4096), "ITL": (4000, 4072)}
"""Shape ``(ny, nx)`` of a detector by its vendor."""
_ITL_RAFTS: Final = frozenset({"R01", "R02", "R03", "R10", "R20", "R41", "R42", "R43"})
_CORNERS: Final = frozenset({"R00", "R04", "R40", "R44"})


@dataclass(frozen=True, slots=True)
class Place:
    """A science detector in the focal plane."""

    number: int
    raft: str
    sensor: str
    vendor: Vendor
    x: float
    """Centre from the boresight [mm]: along the columns of the rafts' names, as in the camera's frame."""
    y: float

    @property
    def name(self) -> str:
        """Name, such as ``R22_S11``."""
        return f"{self.raft}_{self.sensor}"


@cache
def places() -> tuple[Place, ...]:
    """Return all 189 science detectors in the order of their numbers.

    Rafts are counted by row and column, and in each of them the detectors by row and column.
    """
    rafts = [f"R{row}{column}" for row in range(5) for column in range(5)]
    found: list[Place] = []
    for raft in (name for name in rafts if name not in _CORNERS):
        vendor: Vendor = "ITL" if raft in _ITL_RAFTS else "E2V"
        for sensor in (f"S{row}{column}" for row in range(3) for column in range(3)):
            x, y = (
                (int(raft[axis]) - 2) * RAFT_PITCH + (int(sensor[axis]) - 1) * SENSOR_PITCH for axis in (2, 1)
            )
            found.append(Place(len(found), raft, sensor, vendor, x, y))
    return tuple(found)


@cache
def _numbers() -> dict[str, int]:
    return {place.name: place.number for place in places()}


def number(name: str) -> int:
    """Return the number of a detector, such as 94 of ``R22_S11``.

    Raises
    ------
    KeyError
        If there is no science detector of that name.
    """
    return _numbers()[name]
