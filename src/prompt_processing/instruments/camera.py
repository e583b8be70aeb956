"""What the program needs to know of a camera, whichever it is."""

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
from astropy.coordinates import EarthLocation
from astropy.wcs import WCS
from lsst.daf.butler import FormatterV2, Registry
from lsst.pipe.base import Instrument
from lsst.sphgeom import ConvexPolygon, LonLat, UnitVector3d

from prompt_processing.domain.errors import EventError
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

        Raises
        ------
        EventError
            If it is not at the boresight and the rotation is not known.
        """
        if self.offset(detector) == (0.0, 0.0):
            return ra, dec
        if rotation is None:
            name = self.raw_name(detector)
            raise EventError(f"without an angle on the sky nobody knows where {name} looks")
        centre = self.predicted_wcs(detector, ra, dec, rotation).wcs.crval
        return float(centre[0]), float(centre[1])

    def visit_region(self, ra: float, dec: float, rotation: float, padding: float) -> ConvexPolygon:
        """Return the region around all detectors, the same whichever detector of a visit is looked at.

        Parameters
        ----------
        ra, dec
            Boresight, ICRS [deg].
        rotation
            ``ROTPA`` [deg].
        padding
            Margin on every side [arcsec].
        """
        half = max(max(self.detector_shape(detector)) for detector in self.detectors) / 2
        margin = half + padding / self.pixel_scale
        centres = np.array([self.offset(detector) for detector in self.detectors])
        sides = np.array([(x, y) for x in (-margin, margin) for y in (-margin, margin)])
        corners = (centres[:, None] + sides).reshape(-1, 2)
        # The pixels of a detector of one pixel at the boresight, continued over the focal plane.
        plane = predicted_wcs(ra, dec, rotation, (1, 1), self.pixel_scale)
        sky = plane.wcs_pix2world(corners, 0)
        return ConvexPolygon.convexHull([UnitVector3d(LonLat.fromDegrees(*place)) for place in sky.tolist()])

    def register(self, registry: Registry, *, update: bool = False) -> None:
        """Insert the records of the instrument, its detectors, filters and visit systems; safe to repeat.

        Raises
        ------
        lsst.daf.butler.registry.ConflictingDefinitionError
            If the instrument is there already, but different, and ``update`` is false.
        """
        with registry.transaction():
            for element, records in self._records().items():
                rows = [{"instrument": self.name, **record} for record in records]
                if element == "instrument":
                    registry.syncDimensionData(element, rows[0], update=update)
                else:  # many at once: one after the other they take more than a second
                    registry.insertDimensionData(element, *rows, replace=update, skip_existing=not update)

    def getRawFormatter(self, dataId: Any) -> type[FormatterV2]:  # noqa: N802, N803 - as above
        """Return the formatter that reads a raw."""
        del dataId
        return RawFormatter

    def _records(self) -> dict[str, list[dict[str, Any]]]:
        """Return the values of every dimension record, by element."""
        instrument = {
            "name": self.name,
            "class_name": f"{type(self).__module__}.{type(self).__qualname__}",
            "visit_max": EXPOSURE_ID_MAX + 1,
            "exposure_max": EXPOSURE_ID_MAX + 1,
            "detector_max": max(self.detectors) + 1,
            "visit_system": VISIT_SYSTEM,
        }
        return {
            "instrument": [instrument],
            "detector": [self._detector(detector) for detector in self.detectors],
            "visit_system": [{"id": VISIT_SYSTEM, "name": "one-to-one"}],
            "physical_filter": [{"name": name, "band": self.band_of(name)} for name in self.filters()],
        }

    def _detector(self, detector: int) -> dict[str, Any]:
        raft, sensor = self.raft_and_sensor(detector)
        return {
            "id": detector,
            "full_name": f"{raft}_{sensor}",
            "name_in_raft": sensor,
            "raft": raft,
            "purpose": "SCIENCE",
        }
