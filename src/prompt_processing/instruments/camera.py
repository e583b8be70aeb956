"""What the program needs to know of a camera, whichever it is: plain facts, light to import."""

from abc import ABC, abstractmethod
from typing import ClassVar, Final

from astropy.coordinates import EarthLocation
from astropy.wcs import WCS

from prompt_processing.domain.errors import EventError
from prompt_processing.instruments.pointing import predicted_wcs, recentred

AUXILIARY_TELESCOPE: Final = EarthLocation.from_geodetic(-70.747698, -30.244728, 2663.0)
SIMONYI_TELESCOPE: Final = EarthLocation.from_geodetic(-70.749417, -30.244639, 2663.0)


class Camera(ABC):
    """Names, detectors, bands, site and geometry of a camera."""

    name: ClassVar[str]
    """Name in data ids."""
    pixel_scale: ClassVar[float]
    """Pixel scale [arcsec]."""
    saturation: ClassVar[float]
    """Level above the overscan at which a pixel counts as saturated [adu]."""
    site: ClassVar[EarthLocation]
    """Where the telescope stands."""
    readout: ClassVar[float]
    """From shutter close until a raw is in the landing store [s]."""
    detectors: ClassVar[tuple[int, ...]]
    """Numbers of the science detectors."""

    @abstractmethod
    def band_of(self, physical_filter: str) -> str:
        """Return the band of a physical filter.

        Parameters
        ----------
        physical_filter
            Name of the filter in the header.

        Returns
        -------
        band
            Name of the band, such as ``r`` or ``white``; ``unknown`` for an unknown filter.
        """

    @abstractmethod
    def filters(self) -> list[str]:
        """Return the names of the physical filters."""

    @abstractmethod
    def detector_shape(self, detector: int) -> tuple[int, int]:
        """Return the shape of a detector, to predict a footprint before the raw arrives.

        Parameters
        ----------
        detector
            Number of the detector.

        Returns
        -------
        shape
            ``(ny, nx)`` [px].
        """

    @abstractmethod
    def raw_name(self, detector: int) -> str:
        """Return the name of a detector in the keys of raws, such as ``R22_S11``.

        Parameters
        ----------
        detector
            Number of the detector.

        Returns
        -------
        name
            Raft and sensor.
        """

    @abstractmethod
    def raft_and_sensor(self, detector: int) -> tuple[str, str]:
        """Return the names of a detector's raft and slot in data ids.

        Parameters
        ----------
        detector
            Number of the detector.

        Returns
        -------
        raft, slot
            The two names.
        """

    def offset(self, detector: int) -> tuple[float, float]:
        """Return the offset of a detector's centre from the boresight.

        Parameters
        ----------
        detector
            Number of the detector.

        Returns
        -------
        x, y
            Offset along the detector's axes [px].
        """
        del detector
        return 0.0, 0.0

    def number_of(self, raw_name: str) -> int | None:
        """Return the number of the detector of a raw.

        Parameters
        ----------
        raw_name
            Name of the detector, as `raw_name` returns it.

        Returns
        -------
        number
            `None` if no science detector has the name.
        """
        return next((number for number in self.detectors if self.raw_name(number) == raw_name), None)

    def predicted_wcs(
        self, detector: int, ra: float, dec: float, rotation: float, shape: tuple[int, int] | None = None
    ) -> WCS:
        """Return the WCS of a detector, predicted from the pointing in a header or an event.

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
        """Return the position of a detector's centre on the sky.

        Parameters
        ----------
        detector
            Number of the detector.
        ra, dec
            Boresight, ICRS [deg].
        rotation
            ``ROTPA`` [deg]; `None` if the event has none.

        Returns
        -------
        ra, dec
            Position, ICRS [deg].

        Raises
        ------
        EventError
            If the detector is not at the boresight and the rotation is unknown.
        """
        if self.offset(detector) == (0.0, 0.0):
            return ra, dec
        if rotation is None:
            name = self.raw_name(detector)
            raise EventError(f"the event has no sky rotation angle, so the field of {name} is unknown")
        centre = self.predicted_wcs(detector, ra, dec, rotation).wcs.crval
        return float(centre[0]), float(centre[1])
