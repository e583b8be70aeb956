"""The cards of a raw's primary header."""

from typing import Any, Final

import erfa  # type: ignore[import-untyped]  # pyerfa has no stubs
import numpy as np
from astropy.io import fits
from astropy.time import Time, TimeDelta

from prompt_processing.simulation.cameras import SimulatedDetector
from prompt_processing.simulation.frames import Frame

GRATING: Final = "empty_1"
READOUT_TIME: Final = 2.0
"""From shutter close to the complete image [s]."""
_LONGITUDE: Final = -70.7476862
_LATITUDE: Final = -30.2447889
_HEIGHT: Final = 2663.0
_IMAGE_TYPES: Final = {"bias": "BIAS", "dark": "DARK", "flat": "FLAT"}
_PROGRAMS: Final = {"template": "BLOCK-T17", "science": "BLOCK-306"}
_WCS_CARDS: Final = (
    *("WCSAXES", "CTYPE1", "CTYPE2", "CUNIT1", "CUNIT2", "CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2"),
    *("CD1_1", "CD1_2", "CD2_1", "CD2_2", "EQUINOX"),
)
_POINTING_CARDS: Final = (
    *("RA", "DEC", "RASTART", "DECSTART", "RAEND", "DECEND", "ROTPA", "ROTCOORD", "RADESYS", "TRACKSYS"),
    *("ELSTART", "AZSTART", "AMSTART"),
)


def program(frame: Frame) -> str:
    """Return the observing program of an exposure: the ``PROGRAM`` card and the survey of its event.

    Parameters
    ----------
    frame
        The exposure.

    Returns
    -------
    program
        Name of the program.
    """
    return _PROGRAMS.get(frame.kind, "CALIBRATION")


def raw_header(frame: Frame) -> fits.Header:
    """Return the primary header of an exposure, with the cards that files of LATISS have.

    As in real files the WCS cards are empty, ``CCDGAIN`` is 1, and calibs have no pointing.

    Parameters
    ----------
    frame
        The exposure.

    Returns
    -------
    header
        The header.
    """
    header = fits.Header()
    for group in (
        _camera_cards(frame.detector),
        _time_cards(frame),
        _telescope_cards(frame),
        _visit_cards(frame),
    ):
        header.update(group)
    for name in _WCS_CARDS:
        header[name] = None
    return header


def _camera_cards(detector: SimulatedDetector) -> dict[str, Any]:
    raft, slot = detector.name.split("_")
    is_latiss = detector.instrument == "LATISS"
    return {
        "CCD_MANU": detector.vendor,
        "CCD_TYPE": "3800C" if detector.vendor == "ITL" else "CCD250",
        "BINX": 1,
        "BINY": 1,
        "CCDGAIN": 1.0,
        "CCDNOISE": 10.0,
        "CCDSLOT": slot,
        "RAFTBAY": raft,
        "LSST_NUM": "ITL-3800C-068" if is_latiss else f"{detector.vendor}-{detector.number:03d}",
        "CCD_SERN": "20862",
        "CCDTEMP": -101.02,
        "TEMP_SET": -104.15,
        "INSTRUME": detector.instrument,
        "TELESCOP": "LSST AuxTelescope" if is_latiss else "Simonyi Survey Telescope",
        "FACILITY": "Vera C. Rubin Observatory",
        "OBS-LONG": _LONGITUDE,
        "OBS-LAT": _LATITUDE,
        "OBS-ELEV": _HEIGHT,
        "BUNIT": "adu",
        "HEADVER": 2,
    }


def _time_cards(frame: Frame) -> dict[str, Any]:
    finished = frame.end + TimeDelta(READOUT_TIME, format="sec")
    times = {"": finished, "-OBS": frame.begin, "-TRG": frame.end, "-BEG": frame.begin, "-END": frame.end}
    cards: dict[str, Any] = {"TIMESYS": "TAI"}
    for suffix, time in times.items():
        cards[f"DATE{suffix}"] = time.isot
        cards[f"MJD{suffix}"] = Time(time.isot, scale="tai").mjd
    return cards | {
        "EXPTIME": frame.exposure_time,
        "DARKTIME": frame.dark_time,
        "SHUTTIME": frame.exposure_time,
    }


def _telescope_cards(frame: Frame) -> dict[str, Any]:
    weather = {"AIRTEMP": 9.4, "PRESSURE": 73760.0, "HUMIDITY": 31.5, "SEEING": None}
    focus = {"FOCUSZ": -0.0134, "INSTPORT": 2}
    if frame.pointing is None:
        return dict.fromkeys(_POINTING_CARDS) | {"VIGNETTE": "FULLY"} | focus | weather
    aim = frame.aim
    azimuth, zenith = _horizontal(frame)
    return (
        {
            "RA": aim.ra,
            "DEC": aim.dec,
            "RASTART": aim.ra,
            "DECSTART": aim.dec,
            "RAEND": aim.ra,
            "DECEND": aim.dec,
            "ROTPA": aim.rotation,
            "ROTCOORD": "sky",
            "RADESYS": "ICRS",
            "TRACKSYS": "RADEC",
            "ELSTART": 90.0 - zenith,
            "AZSTART": azimuth,
            "AMSTART": float(1.0 / np.cos(np.deg2rad(zenith))),
            "VIGNETTE": "NO",
        }
        | focus
        | weather
    )


def _horizontal(frame: Frame) -> tuple[float, float]:
    """Return azimuth and zenith distance [deg] at the start of an exposure, above the air.

    ERFA alone, without the earth orientation tables of astropy's frames: reading them takes seconds, and they
    change nothing above 15 arcsec.
    """
    utc = frame.begin.utc
    place = np.deg2rad([frame.aim.ra, frame.aim.dec]), np.deg2rad([_LONGITUDE, _LATITUDE])
    motion, air = (0.0,) * 4, (0.0,) * 4
    earth = (0.0, *place[1], _HEIGHT, 0.0, 0.0)
    azimuth, zenith, *_ = erfa.atco13(*place[0], *motion, utc.jd1, utc.jd2, *earth, *air)
    return float(np.rad2deg(azimuth)), float(np.rad2deg(zenith))


def _visit_cards(frame: Frame) -> dict[str, Any]:
    pointed = frame.pointing is not None
    grating = {"GRATING": GRATING, "GRATBAND": "EMPTY"} if frame.detector.instrument == "LATISS" else {}
    image_type = _IMAGE_TYPES.get(frame.kind, "OBJECT")
    return {
        "OBSID": frame.obs_id,
        "CAMCODE": frame.detector.prefix[:2],
        "CONTRLLR": "O",
        "DAYOBS": str(frame.day_obs),
        "SEQNUM": frame.seq,
        "GROUPID": frame.group,
        "IMGTYPE": image_type,
        "TESTTYPE": image_type,
        "OBJECT": "PROMPT-FIELD" if pointed else "Park position",
        "PROGRAM": program(frame),
        "REASON": "prompt" if frame.kind == "science" else frame.kind,
        "CURINDEX": 1,
        "MAXINDEX": 1,
        "FILTER": frame.detector.filter,
        "FILTBAND": "r",
        **grating,
        "FILENAME": f"{frame.file_stem}.fits",
    }
