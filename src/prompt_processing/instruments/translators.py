"""Translators of the headers of LATISS and LSSTCam.

Rules and names are those of ``lsst/obs_lsst`` (``translators/latiss.py``, ``translators/lsstCam.py``).
"""

import re
from typing import Any, ClassVar, Final

from astro_metadata_translator import cache_translation

from prompt_processing.instruments import lsstcam_layout
from prompt_processing.instruments.camera import AUXILIARY_TELESCOPE, SIMONYI_TELESCOPE
from prompt_processing.instruments.translator import RubinTranslator

_EMPTY: Final = re.compile(r"empty_?\d*", re.IGNORECASE)
_OPTIC: Final = re.compile(r"[A-Za-z0-9_.+-]+")
_FILTER_LENGTH: Final = 32


class LatissTranslator(RubinTranslator):
    """Translator of the primary headers of LATISS."""

    name = "LATISS"
    supported_instrument = "LATISS"
    instruments = frozenset({"LATISS", "LSST_ATISS"})
    site = AUXILIARY_TELESCOPE

    _const_map: ClassVar[dict[str, Any]] = {
        "instrument": "LATISS",
        "telescope": "Rubin Auxiliary Telescope",
        "detector_group": "RXX",
        "detector_name": "S00",
        "detector_num": 0,
    }

    @cache_translation
    def to_physical_filter(self) -> str:
        """Return ``FILTER~GRATING``; an empty slot is ``empty``, a grating that is not told is ``unknown``.

        Biases and darks need no filter; theirs is ``unknown`` if the card is missing.
        """
        if not self.is_key_ok("FILTER") and self.to_observation_type() in {"bias", "dark"}:
            optic = "unknown"
        else:
            optic = self._optic("FILTER")
        grating = self._optic("GRATING") if self.is_key_ok("GRATING") else "unknown"
        name = f"{optic}~{grating}"
        if len(name) > _FILTER_LENGTH:
            self._wrong("FILTER", f"{name} is longer than {_FILTER_LENGTH} characters")
        return name

    def _optic(self, card: str) -> str:
        """Return the name of what is in the filter or grating wheel."""
        value = self._card(card)
        if card == "GRATING" and value == "":
            return "empty"
        name = self._text(card)
        if _EMPTY.fullmatch(name):
            return "empty"
        if not _OPTIC.fullmatch(name):
            self._wrong(card, "not a name of letters, digits, '_', '.', '+' and '-'")
        return name


class LsstCamTranslator(RubinTranslator):
    """Translator of the primary headers of LSSTCam."""

    name = "LSSTCam"
    supported_instrument = "LSSTCam"
    instruments = frozenset({"LSSTCam", "lsstCam", "LSSTCAM"})
    site = SIMONYI_TELESCOPE

    _const_map: ClassVar[dict[str, Any]] = {
        "instrument": "LSSTCam",
        "telescope": "Simonyi Survey Telescope",
    }

    @cache_translation
    def to_detector_group(self) -> str:
        """Return ``RAFTBAY``, such as ``R22``."""
        return self._text("RAFTBAY")

    @cache_translation
    def to_detector_name(self) -> str:
        """Return ``CCDSLOT``, such as ``S11``."""
        return self._text("CCDSLOT")

    @cache_translation
    def to_detector_num(self) -> int:
        """Return the number of the detector."""
        try:
            return lsstcam_layout.number(f"{self.to_detector_group()}_{self.to_detector_name()}")
        except KeyError:
            self._wrong("CCDSLOT", f"{self.to_detector_group()} has no such science detector")

    @cache_translation
    def to_physical_filter(self) -> str:
        """Return ``FILTER``, such as ``r_57``; biases and darks need none, theirs is ``unknown``."""
        if not self.is_key_ok("FILTER") and self.to_observation_type() in {"bias", "dark"}:
            return "unknown"
        name = self._text("FILTER").removesuffix("~empty")
        if not _OPTIC.fullmatch(name) or len(name) > _FILTER_LENGTH:
            self._wrong("FILTER", "not a name of letters, digits, '_', '.', '+' and '-'")
        return name


TRANSLATORS: Final[tuple[type[RubinTranslator], ...]] = (LatissTranslator, LsstCamTranslator)
"""The translators of all cameras."""
