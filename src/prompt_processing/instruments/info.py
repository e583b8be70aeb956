"""What is known of an observation, as the plain values that an `Exposure` carries."""

from typing import Any

from astro_metadata_translator import ObservationInfo
from astropy.time import Time

from prompt_processing.instruments.cameras import band_of
from prompt_processing.instruments.observation import observation_info
from prompt_processing.instruments.raw import RawExposure


def exposure_info(raw: RawExposure) -> dict[str, Any]:
    """Return what the header of a raw tells, for `prompt_processing.images.exposure.Exposure.info`.

    Raises
    ------
    HeaderError
        If a card is missing or makes no sense.
    WrongCameraError
        If the raw is of another instrument.
    """
    return info_from_observation(observation_info(raw.header, raw.path))


def info_from_observation(observation: ObservationInfo) -> dict[str, Any]:
    """Return an observation as JSON values.

    Parameters
    ----------
    observation
        Translated header.

    Returns
    -------
    info
        ``instrument``, ``detector``, ``exposure``, ``visit`` (the exposure's id: visits are one to one),
        ``obs_id``, ``group``, ``day_obs``, ``seq_num``, ``observation_type``, ``object``, ``band``,
        ``physical_filter``, ``exposure_time``, ``dark_time`` [s], ``mjd_begin_tai``, ``mjd_mid_tai``,
        ``mjd_end_tai`` [d], ``ra``, ``dec``, ``rotation`` [deg; `None` off the sky], ``airmass`` or `None`.
    """
    radec = observation.tracking_radec
    rotation = observation.boresight_rotation_angle
    begin, end = _mjd(observation.datetime_begin), _mjd(observation.datetime_end)
    return {
        "instrument": observation.instrument,
        "detector": observation.detector_num,
        "exposure": observation.exposure_id,
        "visit": observation.exposure_id,
        "obs_id": observation.observation_id,
        "group": observation.exposure_group,
        "day_obs": observation.observing_day,
        "seq_num": observation.observation_counter,
        "observation_type": observation.observation_type,
        "object": observation.object,
        "band": band_of(observation.instrument, observation.physical_filter),
        "physical_filter": observation.physical_filter,
        "exposure_time": float(observation.exposure_time.to_value("s")),
        "dark_time": float(observation.dark_time.to_value("s")),
        "mjd_begin_tai": begin,
        "mjd_mid_tai": begin + (end - begin) / 2,
        "mjd_end_tai": end,
        "ra": None if radec is None else float(radec.icrs.ra.deg),
        "dec": None if radec is None else float(radec.icrs.dec.deg),
        "rotation": None if rotation is None else float(rotation.deg),
        "airmass": observation.boresight_airmass,
    }


def _mjd(time: Time) -> float:
    return float(time.tai.mjd)
