"""LATISS, the imager and spectrograph of Rubin's Auxiliary Telescope: one detector of sixteen amplifiers."""

import re
from collections.abc import Iterator
from typing import Any, Final

from lsst.daf.butler import FormatterV2, Registry
from lsst.pipe.base import Instrument

from prompt_processing.domain.errors import ConfigError
from prompt_processing.domain.ids import EXPOSURE_ID_MAX
from prompt_processing.instruments.formatters import RawFormatter
from prompt_processing.instruments.translator import DETECTOR, DETECTOR_GROUP, DETECTOR_NAME, SITE

VISIT_SYSTEM: Final = 0
"""Visit system in which every exposure is a visit of its own and lends it its id."""
GROUP_VISIT_SYSTEM: Final = 1
"""Visit system in which all exposures of a group are one visit."""

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


def band_of(physical_filter: str) -> str:
    """Return the band of a physical filter ``FILTER~GRATING``.

    The filter wheel decides; with an empty one a filter in the grating wheel does. A filter of another name
    has the band of its Sloan letter if it has one, and is ``unknown`` otherwise.
    """
    optic, _, grating = physical_filter.partition("~")
    if optic == "empty" and grating in _SLOAN_FILTERS:
        optic = grating
    sloan = _SLOAN.fullmatch(optic)
    return _BANDS.get(optic) or (sloan[1] if sloan else "unknown")


class Latiss(Instrument):
    """LATISS for the LSST middleware."""

    pixel_scale: Final = 0.095695
    """Pixel scale [arcsec]: 9.5695 arcsec/mm, pixels of 10 um."""
    detector_shape: Final = (4000, 4072)
    """Shape ``(ny, nx)`` of the detector, to predict a footprint before there is a raw."""
    saturation: Final = 135_000.0
    """Level above the overscan at which a pixel counts as saturated [adu]."""
    site: Final = SITE
    """Where the telescope stands."""
    detectors: Final = (DETECTOR,)
    """Detectors that are processed."""

    @classmethod
    def getName(cls) -> str:  # noqa: N802 - the name of the base class
        """Return the name of the instrument in data ids."""
        return "LATISS"

    def register(self, registry: Registry, *, update: bool = False) -> None:
        """Insert the records of the instrument, its detector, filters and visit system; safe to repeat.

        Raises
        ------
        lsst.daf.butler.registry.ConflictingDefinitionError
            If a record is there already, but different, and ``update`` is false.
        """
        for element, record in self._records():
            registry.syncDimensionData(element, {"instrument": self.getName(), **record}, update=update)

    def getRawFormatter(self, dataId: Any) -> type[FormatterV2]:  # noqa: N802, N803 - as above
        """Return the formatter that reads a raw."""
        del dataId
        return RawFormatter

    def _records(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield element and values of every dimension record."""
        yield (
            "instrument",
            {
                "name": self.getName(),
                "class_name": f"{type(self).__module__}.{type(self).__qualname__}",
                "visit_max": EXPOSURE_ID_MAX + 1,
                "exposure_max": EXPOSURE_ID_MAX + 1,
                "detector_max": 1,
                "visit_system": VISIT_SYSTEM,
            },
        )
        yield (
            "detector",
            {
                "id": DETECTOR,
                "full_name": f"{DETECTOR_GROUP}_{DETECTOR_NAME}",
                "name_in_raft": DETECTOR_NAME,
                "raft": DETECTOR_GROUP,
                "purpose": "SCIENCE",
            },
        )
        yield "visit_system", {"id": VISIT_SYSTEM, "name": "one-to-one"}
        names = [f"{name}~empty" for name in _BANDS] + [f"empty~{name}" for name in _SLOAN_FILTERS]
        for name in names:
            yield "physical_filter", {"name": name, "band": band_of(name)}


_INSTRUMENTS: Final[dict[str, type[Latiss]]] = {Latiss.getName(): Latiss}


def get_instrument(name: str) -> Latiss:
    """Return the instrument of a name.

    Raises
    ------
    ConfigError
        If there is no such instrument.
    """
    if name not in _INSTRUMENTS:
        raise ConfigError(f"there is no instrument {name!r}; known are {', '.join(sorted(_INSTRUMENTS))}")
    return _INSTRUMENTS[name]()
