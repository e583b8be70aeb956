"""What the program needs to know of a camera, whichever it is."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

from astropy.coordinates import EarthLocation
from astropy.wcs import WCS
from lsst.daf.butler import FormatterV2, Registry
from lsst.pipe.base import Instrument

from prompt_processing.domain.ids import EXPOSURE_ID_MAX
from prompt_processing.instruments.formatters import RawFormatter
from prompt_processing.instruments.pointing import predicted_wcs, recentred
from prompt_processing.instruments.translator import RubinTranslator

VISIT_SYSTEM = 0
"""Visit system in which every exposure is a visit of its own and lends it its id."""
GROUP_VISIT_SYSTEM = 1
"""Visit system in which all exposures of a group are one visit."""


class Camera(Instrument):
    """A camera for the LSST middleware and for this program."""

    name: ClassVar[str]
    """Name in data ids."""
    pixel_scale: ClassVar[float]
    """Pixel scale [arcsec]."""
    saturation: ClassVar[float]
    """Level above the overscan at which a pixel counts as saturated [adu]."""
    site: ClassVar[EarthLocation]
    """Where the telescope stands."""
    translator: ClassVar[type[RubinTranslator]]
    """Translator of its headers."""
    detectors: ClassVar[tuple[int, ...]]
    """Numbers of the science detectors."""

    @classmethod
    def getName(cls) -> str:  # noqa: N802 - the name of the base class
        """Return the name of the instrument in data ids."""
        return cls.name

    @abstractmethod
    def band_of(self, physical_filter: str) -> str:
        """Return the band of a physical filter; ``unknown`` if it is not known."""

    @abstractmethod
    def filters(self) -> list[str]:
        """Return the names of the physical filters."""

    @abstractmethod
    def detector_shape(self, detector: int) -> tuple[int, int]:
        """Return the shape ``(ny, nx)`` of a detector, to predict a footprint before there is a raw."""

    @abstractmethod
    def raw_name(self, detector: int) -> str:
        """Return the name of a detector in the keys of raws, such as ``R22_S11``."""

    @abstractmethod
    def raft_and_sensor(self, detector: int) -> tuple[str, str]:
        """Return the names of a detector's raft and slot in data ids."""

    def offset(self, detector: int) -> tuple[float, float]:
        """Return where a detector's centre is from the boresight [px], along the detector's axes."""
        del detector
        return 0.0, 0.0

    def number_of(self, raw_name: str) -> int | None:
        """Return the number of the detector of a raw, `None` if there is no such science detector."""
        return next((number for number in self.detectors if self.raw_name(number) == raw_name), None)

    def predicted_wcs(
        self, detector: int, ra: float, dec: float, rotation: float, shape: tuple[int, int] | None = None
    ) -> WCS:
        """Return the WCS of a detector, by what a header or an event tells.

        Parameters
        ----------
        detector
            Number of the detector.
        ra, dec
            Boresight, ICRS [deg].
        rotation
            ``ROTPA`` [deg].
        shape
            Shape ``(ny, nx)`` of the detector, if it is not that of the real one.

        Returns
        -------
        wcs
            TAN around the detector's centre, without distortion; to be called with origin 0.
        """
        shape = shape or self.detector_shape(detector)
        plane = predicted_wcs(ra, dec, rotation, shape, self.pixel_scale)
        if self.offset(detector) == (0.0, 0.0):
            return plane
        plane.wcs.crpix = plane.wcs.crpix - self.offset(detector)
        plane.wcs.set()
        return recentred(plane, shape)

    def centre(self, detector: int, ra: float, dec: float, rotation: float | None) -> tuple[float, float]:
        """Return where the centre of a detector looks, ICRS [deg].

        Without an angle only a detector at the boresight has a known place: the boresight is returned.
        """
        if rotation is None or self.offset(detector) == (0.0, 0.0):
            return ra, dec
        centre = self.predicted_wcs(detector, ra, dec, rotation).wcs.crval
        return float(centre[0]), float(centre[1])

    def register(self, registry: Registry, *, update: bool = False) -> None:
        """Insert the records of the instrument, its detectors, filters and visit systems; safe to repeat.

        Raises
        ------
        lsst.daf.butler.registry.ConflictingDefinitionError
            If a record is there already, but different, and ``update`` is false.
        """
        with registry.transaction():
            for element, record in self._records():
                registry.syncDimensionData(element, {"instrument": self.name, **record}, update=update)

    def getRawFormatter(self, dataId: Any) -> type[FormatterV2]:  # noqa: N802, N803 - as above
        """Return the formatter that reads a raw."""
        del dataId
        return RawFormatter

    def _records(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield element and values of every dimension record."""
        yield (
            "instrument",
            {
                "name": self.name,
                "class_name": f"{type(self).__module__}.{type(self).__qualname__}",
                "visit_max": EXPOSURE_ID_MAX + 1,
                "exposure_max": EXPOSURE_ID_MAX + 1,
                "detector_max": max(self.detectors) + 1,
                "visit_system": VISIT_SYSTEM,
            },
        )
        for detector in self.detectors:
            raft, sensor = self.raft_and_sensor(detector)
            yield (
                "detector",
                {
                    "id": detector,
                    "full_name": f"{raft}_{sensor}",
                    "name_in_raft": sensor,
                    "raft": raft,
                    "purpose": "SCIENCE",
                },
            )
        yield "visit_system", {"id": VISIT_SYSTEM, "name": "one-to-one"}
        for name in self.filters():
            yield "physical_filter", {"name": name, "band": self.band_of(name)}
