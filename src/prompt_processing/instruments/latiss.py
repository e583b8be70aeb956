"""LATISS, the imager and spectrograph of Rubin's Auxiliary Telescope: one detector of sixteen amplifiers."""

import re
from typing import Final

from prompt_processing.instruments.camera import Camera
from prompt_processing.instruments.translators import AUXILIARY_TELESCOPE, LatissTranslator

_BANDS: Final = {
    "SDSSg": "g", "SDSSr": "r", "SDSSi": "i",
    **{f"SDSS{band}_65mm": band for band in "ugrizy"},
    "BG40": "g", "BG40_65mm_1": "g", "BG40_65mm_2": "g", "OG550_65mm_1": "g", "OG550_65mm_2": "g",
    "RG610": "r", "FELH0600": "r",
    "KPNO_1111_436nm": "g", "KPNO_373A_677nm": "r", "KPNO_406_828nm": "z",
    "empty": "white", "blank_bk7_wg05": "white", "collimator": "white", "cyl_lens": "white",
    "diffuser": "diffuser", "quadnotch1": "notch", "unknown": "unknown",
}  # fmt: skip
_SLOAN: Final = re.compile(r"SDSS([ugrizy])(?:_.*)?")
_SLOAN_FILTERS: Final = tuple(name for name in _BANDS if name.endswith("_65mm"))


class Latiss(Camera):
    """LATISS for the LSST middleware."""

    name = "LATISS"
    pixel_scale = 0.095695
    """9.5695 arcsec/mm, pixels of 10 um."""
    saturation = 135_000.0
    site = AUXILIARY_TELESCOPE
    translator = LatissTranslator
    detectors = (0,)

    def band_of(self, physical_filter: str) -> str:
        """Return the band of a physical filter ``FILTER~GRATING``.

        The filter wheel decides; with an empty one a filter in the grating wheel does. A filter of another
        name has the band of its Sloan letter if it has one, and is ``unknown`` otherwise.
        """
        optic, _, grating = physical_filter.partition("~")
        if optic == "empty" and grating in _SLOAN_FILTERS:
            optic = grating
        sloan = _SLOAN.fullmatch(optic)
        return _BANDS.get(optic) or (sloan[1] if sloan else "unknown")

    def filters(self) -> list[str]:
        """Return the names of the filters with an empty grating wheel, or in it."""
        return [f"{name}~empty" for name in _BANDS] + [f"empty~{name}" for name in _SLOAN_FILTERS]

    def detector_shape(self, detector: int) -> tuple[int, int]:
        """Return the shape ``(ny, nx)`` of the detector."""
        del detector
        return 4000, 4072

    def raw_name(self, detector: int) -> str:
        """Return ``R00_S00``."""
        del detector
        return "R00_S00"

    def raft_and_sensor(self, detector: int) -> tuple[str, str]:
        """Return ``RXX`` and ``S00``."""
        del detector
        return "RXX", "S00"
