"""The detector-visits that an event announces.

The senders of messages and the audit use the same functions, so they expect the same detector-visits.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import astropy.units as u
from astropy.coordinates import AltAz, SkyCoord
from astropy.utils import iers

from prompt_processing.domain.clock import from_tai_seconds
from prompt_processing.domain.errors import ConfigError, EventError
from prompt_processing.domain.visit import (
    CancelVisit,
    CoordinateSystem,
    DetectorVisit,
    NextVisit,
    WarmUp,
    fan_out,
)
from prompt_processing.instruments.camera import Camera
from prompt_processing.instruments.cameras import get_camera

type Active = Mapping[str, Sequence[int]]

PRESSURE: Final = 750 * u.hPa
"""Air at the site, for refraction: a few hectopascal more or less are an arcsecond at 45 deg."""
TEMPERATURE: Final = 10 * u.deg_C
WAVELENGTH: Final = 0.6 * u.micron


def active_detectors(instrument: str, active: Active | None) -> Sequence[int]:
    """Return the detectors of an instrument that are processed.

    Raises
    ------
    ConfigError
        If the instrument is not known, or has no detector of a number that is named.
    """
    known = get_camera(instrument).detectors
    chosen = (active or {}).get(instrument, known)
    unknown = sorted(set(chosen) - set(known))
    if unknown:
        raise ConfigError(f"instruments.detectors: {instrument} has no detector {unknown[0]}")
    return chosen


def check_camera(message: DetectorVisit | CancelVisit | WarmUp) -> None:
    """Make sure that a message is about a detector that exists.

    Raises
    ------
    EventError
        If there is no such instrument, or it has no such detector.
    """
    try:
        detectors = get_camera(message.instrument).detectors
    except ConfigError as error:
        raise EventError(f"visit message: field instrument: {error}") from error
    if isinstance(message, DetectorVisit) and message.detector not in detectors:
        raise EventError(
            f"visit message: field detector: {message.instrument} has no detector {message.detector}"
        )


def detector_visits(event: NextVisit, active: Active | None = None) -> list[DetectorVisit]:
    """Return the messages of an event, one per active detector of its instrument.

    Parameters
    ----------
    event
        The event. One that is no observation (blank instrument) has no messages. A position in the
        observed system (altitude and azimuth) is turned into ICRS for the start of the visit.
    active
        Numbers of the detectors that are processed, by instrument; all of an instrument that is not named.

    Raises
    ------
    ConfigError
        If the instrument is not known, or has no detector of a number that is named.
    EventError
        If the event cannot be observed: a position in another system, or outside the sky.
    """
    if not event.instrument:
        return []
    instrument = get_camera(event.instrument)
    if event.coordinateSystem is CoordinateSystem.OBSERVED:
        event = _with_icrs(event, instrument)
    return fan_out(event, active_detectors(event.instrument, active))


def _with_icrs(event: NextVisit, instrument: Camera) -> NextVisit:
    """Return an event whose position is ICRS instead of azimuth and altitude."""
    azimuth, altitude = event.position
    if not 0.0 <= altitude <= 90.0:
        return event  # below the horizon or outside the sky: refused like any other impossible position
    frame = AltAz(
        obstime=from_tai_seconds(event.startTime),
        location=instrument.site,
        pressure=PRESSURE,
        temperature=TEMPERATURE,
        obswl=WAVELENGTH,
    )
    # A table of the Earth's rotation that ends too early costs arcseconds, not the visit, and nothing is
    # downloaded while the telescope moves: the table is the one of the package astropy-iers-data.
    with iers.conf.set_temp("iers_degraded_accuracy", "warn"), iers.conf.set_temp("auto_download", False):
        sky = SkyCoord(az=azimuth * u.deg, alt=altitude * u.deg, frame=frame).icrs
    position = (float(sky.ra.deg), float(sky.dec.deg))
    return event.model_copy(update={"coordinateSystem": CoordinateSystem.ICRS, "position": position})
