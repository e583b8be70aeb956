"""LSSTCam, the camera of Rubin's Simonyi Survey Telescope: 189 science detectors of sixteen amplifiers."""

from typing import Final

from prompt_processing.instruments.camera import Camera
from prompt_processing.instruments.lsstcam_layout import PIXEL_SIZE, SHAPES, number, places
from prompt_processing.instruments.translators import SIMONYI_TELESCOPE, LsstCamTranslator

_FILTERS: Final = {"u_24": "u", "g_6": "g", "r_57": "r", "i_39": "i", "z_20": "z", "y_10": "y"}
_OTHER: Final = {"empty": "white", "unknown": "unknown"}


class LsstCam(Camera):
    """LSSTCam for the LSST middleware."""

    name = "LSSTCam"
    pixel_scale = 0.2
    saturation = 90_000.0
    site = SIMONYI_TELESCOPE
    translator = LsstCamTranslator
    detectors = tuple(range(189))

    def band_of(self, physical_filter: str) -> str:
        """Return the band of a physical filter, such as r of ``r_57``.

        A filter of another serial number has the band of its first letter if it has one.
        """
        band, _, serial = physical_filter.partition("_")
        known = {**_FILTERS, **_OTHER}.get(physical_filter)
        return known or (band if band in set("ugrizy") and serial.isdigit() else "unknown")

    def filters(self) -> list[str]:
        """Return the names of the filters."""
        return [*_FILTERS, *_OTHER]

    def detector_shape(self, detector: int) -> tuple[int, int]:
        """Return the shape ``(ny, nx)`` of a detector, which depends on its vendor."""
        return SHAPES[places()[detector].vendor]

    def raw_name(self, detector: int) -> str:
        """Return the name of a detector, such as ``R22_S11``."""
        return places()[detector].name

    def raft_and_sensor(self, detector: int) -> tuple[str, str]:
        """Return the names of raft and slot, such as ``R22`` and ``S11``."""
        place = places()[detector]
        return place.raft, place.sensor

    def number_of(self, raw_name: str) -> int | None:
        """Return the number of a detector, such as 94 of ``R22_S11``."""
        try:
            return number(raw_name)
        except KeyError:
            return None

    def offset(self, detector: int) -> tuple[float, float]:
        """Return where a detector's centre is from the boresight [px], along the detector's axes.

        The rows of an image run against the camera's y axis, as those of LATISS do (``docs/reference``).
        """
        place = places()[detector]
        return place.x / PIXEL_SIZE, -place.y / PIXEL_SIZE
