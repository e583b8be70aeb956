"""The cameras that are known: LATISS, with one detector, and LSSTCam, with 189 science detectors.

Importing this loads neither the LSST middleware nor numerical libraries: the bridge needs nothing else.
"""

import re
from typing import Final

from prompt_processing.domain.errors import ConfigError
from prompt_processing.instruments.camera import AUXILIARY_TELESCOPE, SIMONYI_TELESCOPE, Camera
from prompt_processing.instruments.lsstcam_layout import PIXEL_SIZE, SHAPES, number, places

_LATISS_BANDS: Final = {
    "SDSSg": "g", "SDSSr": "r", "SDSSi": "i",
    **{f"SDSS{band}_65mm": band for band in "ugrizy"},
    "BG40": "g", "BG40_65mm_1": "g", "BG40_65mm_2": "g", "OG550_65mm_1": "g", "OG550_65mm_2": "g",
    "RG610": "r", "FELH0600": "r",
    "KPNO_1111_436nm": "g", "KPNO_373A_677nm": "r", "KPNO_406_828nm": "z",
    "empty": "white", "blank_bk7_wg05": "white", "collimator": "white", "cyl_lens": "white",
    "diffuser": "diffuser", "quadnotch1": "notch", "unknown": "unknown",
}  # fmt: skip
_SLOAN: Final = re.compile(r"SDSS([ugrizy])(?:_.*)?")
_SLOAN_FILTERS: Final = tuple(name for name in _LATISS_BANDS if name.endswith("_65mm"))
_LSSTCAM_FILTERS: Final = {"u_24": "u", "g_6": "g", "r_57": "r", "i_39": "i", "z_20": "z", "y_10": "y"}
_NO_FILTERS: Final = {"empty": "white", "unknown": "unknown"}


class LatissCamera(Camera):
    """LATISS."""

    name = "LATISS"
    pixel_scale = 0.095695
    """9.5695 arcsec/mm, pixels of 10 um."""
    saturation = 135_000.0
    site = AUXILIARY_TELESCOPE
    readout = 2.0
    detectors = (0,)

    def band_of(self, physical_filter: str) -> str:
        """See the port. Physical filters are ``FILTER~GRATING``.

        The filter wheel decides; with an empty one a filter in the grating wheel does. A filter of another
        name has the band of its Sloan letter if it has one, and is ``unknown`` otherwise.
        """
        optic, _, grating = physical_filter.partition("~")
        if optic == "empty" and grating in _SLOAN_FILTERS:
            optic = grating
        sloan = _SLOAN.fullmatch(optic)
        return _LATISS_BANDS.get(optic) or (sloan[1] if sloan else "unknown")

    def filters(self) -> list[str]:
        """Return the names of the filters with an empty grating wheel, or in it."""
        return [f"{name}~empty" for name in _LATISS_BANDS] + [f"empty~{name}" for name in _SLOAN_FILTERS]

    def detector_shape(self, detector: int) -> tuple[int, int]:
        """See the port."""
        del detector
        return 4000, 4072

    def raw_name(self, detector: int) -> str:
        """See the port."""
        del detector
        return "R00_S00"

    def raft_and_sensor(self, detector: int) -> tuple[str, str]:
        """See the port. The raft of the only detector is ``RXX``."""
        del detector
        return "RXX", "S00"


class LsstCamCamera(Camera):
    """LSSTCam."""

    name = "LSSTCam"
    pixel_scale = 0.2
    saturation = 90_000.0
    site = SIMONYI_TELESCOPE
    readout = 2.4
    detectors = tuple(range(189))

    def band_of(self, physical_filter: str) -> str:
        """See the port. For example, ``r_57`` has band r.

        A filter of another serial number has the band of its first letter if it has one.
        """
        band, _, serial = physical_filter.partition("_")
        known = {**_LSSTCAM_FILTERS, **_NO_FILTERS}.get(physical_filter)
        return known or (band if band in set("ugrizy") and serial.isdigit() else "unknown")

    def filters(self) -> list[str]:
        """Return the names of the filters."""
        return [*_LSSTCAM_FILTERS, *_NO_FILTERS]

    def detector_shape(self, detector: int) -> tuple[int, int]:
        """See the port. The shape depends on the vendor."""
        return SHAPES[places()[detector].vendor]

    def raw_name(self, detector: int) -> str:
        """See the port."""
        return places()[detector].name

    def raft_and_sensor(self, detector: int) -> tuple[str, str]:
        """See the port."""
        place = places()[detector]
        return place.raft, place.sensor

    def number_of(self, raw_name: str) -> int | None:
        """See the port. For example, 94 is ``R22_S11``."""
        try:
            return number(raw_name)
        except KeyError:
            return None

    def offset(self, detector: int) -> tuple[float, float]:
        """See the port.

        The rows of an image run against the camera's y axis, as those of LATISS do (``docs/reference``).
        """
        place = places()[detector]
        return place.x / PIXEL_SIZE, -place.y / PIXEL_SIZE


LATISS: Final = LatissCamera()
LSSTCAM: Final = LsstCamCamera()
CAMERAS: Final[dict[str, Camera]] = {camera.name: camera for camera in (LATISS, LSSTCAM)}
"""Every camera by its name in data ids."""


def get_camera(name: str) -> Camera:
    """Return the camera of a name.

    Parameters
    ----------
    name
        Name of the instrument in data ids.

    Returns
    -------
    camera
        The camera.

    Raises
    ------
    ConfigError
        If there is no such camera.
    """
    if name not in CAMERAS:
        raise ConfigError(f"there is no instrument {name!r}; known are {', '.join(sorted(CAMERAS))}")
    return CAMERAS[name]


def band_of(instrument: str, physical_filter: str) -> str:
    """Return the band of a physical filter of a camera.

    Parameters
    ----------
    instrument
        Name of the instrument in data ids.
    physical_filter
        Name of the filter in the header.

    Returns
    -------
    band
        Name of the band, or ``unknown``.

    Raises
    ------
    ConfigError
        If there is no such camera.
    """
    return get_camera(instrument).band_of(physical_filter)
