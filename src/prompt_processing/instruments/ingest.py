"""Raws into a Butler: dimension records of the exposure, the visit, and the raw itself."""

from pathlib import Path
from typing import Any, Final

import astropy.units as u
from astro_metadata_translator import ObservationInfo
from astropy.time import Time, TimeDelta
from lsst.daf.butler import (
    Butler,
    CollectionType,
    DatasetIdGenEnum,
    DatasetRef,
    FileDataset,
    Timespan,
)
from lsst.daf.butler.registry import ConflictingDefinitionError
from lsst.sphgeom import ConvexPolygon

from prompt_processing.domain.errors import ConflictError, HeaderError
from prompt_processing.instruments.formatters import RawFormatter
from prompt_processing.instruments.latiss import VISIT_SYSTEM, band_of, get_instrument
from prompt_processing.instruments.observation import observation_info, with_group
from prompt_processing.instruments.pointing import DEFAULT_PADDING, detector_region, predicted_wcs
from prompt_processing.instruments.raw import read_raw_header

_LENGTHS: Final = {"target_name": 64, "science_program": 64, "observation_reason": 68}
"""Longest texts that the dimension records take; a longer one is cut."""

_SHARED: Final = (
    *("physical_filter", "day_obs", "seq_num", "exposure_time", "target_name", "observation_reason"),
    *("science_program", "azimuth", "zenith_angle", "timespan"),
)
"""What a visit takes over from its exposure."""


def ingest_raw(
    butler: Butler, path: str | Path, *, run: str, transfer: str = "copy"
) -> tuple[DatasetRef, ObservationInfo]:
    """Make the records of an exposure and ingest its raw; safe to repeat.

    The dataset id follows from run and data id, so the same raw has the same id in every repository.

    Parameters
    ----------
    butler
        Writeable Butler with the instrument and the dataset type ``raw`` registered.
    path
        Local path of the raw; its sidecar is looked for beside it.
    run
        RUN collection, made if needed.
    transfer
        How the file gets into the datastore: ``copy``, ``move``, ``direct``, ``hardlink``, ``symlink`` ...

    Returns
    -------
    ref
        Reference of the raw, its data id expanded.
    observation
        The translated header, with the group.

    Raises
    ------
    HeaderError
        If a card is missing or makes no sense, or a science raw has no group.
    RawError
        If the file is not FITS.
    WrongCameraError
        If the raw is of an instrument that is not supported.
    ConflictError
        If another exposure has the same id.
    """
    header = with_group(read_raw_header(path), path)
    observation = observation_info(header, path)
    if observation.observation_type == "science" and not header.get("GROUPID"):
        raise HeaderError(f"{path}: card GROUPID is missing, and there is no sidecar that tells the group")
    register_exposure(butler, observation, path)
    butler.collections.register(run, CollectionType.RUN)
    data_id = butler.registry.expandDataId(
        instrument=observation.instrument, exposure=observation.exposure_id, detector=observation.detector_num
    )
    ref = DatasetRef(
        butler.get_dataset_type("raw"),
        data_id,
        run=run,
        id_generation_mode=DatasetIdGenEnum.DATAID_TYPE_RUN,
    )
    butler.ingest(
        FileDataset(path=str(path), refs=[ref], formatter=RawFormatter), transfer=transfer, skip_existing=True
    )
    return ref, observation


def register_exposure(butler: Butler, observation: ObservationInfo, path: str | Path) -> None:
    """Insert the records of an exposure: filter if it is new, day, group and exposure; safe to repeat.

    Parameters
    ----------
    butler
        Writeable Butler with the instrument registered.
    observation
        Translated header.
    path
        File it came from, for messages.

    Raises
    ------
    ConflictError
        If another exposure has the same id.
    """
    instrument = observation.instrument
    registry = butler.registry
    physical_filter = observation.physical_filter
    registry.insertDimensionData(
        "physical_filter",
        {"instrument": instrument, "name": physical_filter, "band": band_of(physical_filter)},
        skip_existing=True,
    )
    registry.insertDimensionData(
        "day_obs",
        {
            "instrument": instrument,
            "id": observation.observing_day,
            "timespan": day_timespan(observation.observing_day),
        },
        skip_existing=True,
    )
    registry.insertDimensionData(
        "group", {"instrument": instrument, "name": observation.exposure_group}, skip_existing=True
    )
    try:
        registry.syncDimensionData("exposure", _exposure_values(observation))
    except ConflictingDefinitionError as error:
        raise ConflictError(
            f"{path}: exposure {observation.exposure_id} of {instrument} is already known with other values "
            f"({error})"
        ) from error


def define_visit(
    butler: Butler, observation: ObservationInfo, shape: tuple[int, int], *, padding: float = DEFAULT_PADDING
) -> int:
    """Insert the records of the visit that an exposure makes; safe to repeat.

    Visits are one to one: the visit has the id and the name of its exposure.

    Parameters
    ----------
    butler
        Writeable Butler that has the exposure's records.
    observation
        Translated header of a science exposure.
    shape
        Shape ``(ny, nx)`` of the detector.
    padding
        Margin of the region for errors of the pointing [arcsec].

    Returns
    -------
    visit
        Visit id.

    Raises
    ------
    HeaderError
        If the exposure has no position on the sky.
    """
    region = observation_region(observation, shape, padding=padding)
    instrument, visit = observation.instrument, observation.exposure_id
    exposure = _exposure_values(observation)
    record = {
        "instrument": instrument,
        "id": visit,
        "name": observation.observation_id,
        "region": region,
        **{key: exposure[key] for key in _SHARED},
    }
    system = {"instrument": instrument, "visit_system": VISIT_SYSTEM, "visit": visit}
    definition = {"instrument": instrument, "visit": visit, "exposure": observation.exposure_id}
    detector = {
        "instrument": instrument,
        "visit": visit,
        "detector": observation.detector_num,
        "region": region,
    }
    with butler.transaction():
        for element, values in (
            ("visit", record),
            ("visit_definition", definition),
            ("visit_system_membership", system),
            ("visit_detector_region", detector),
        ):
            butler.registry.insertDimensionData(element, values, skip_existing=True)
    return visit


def observation_region(
    observation: ObservationInfo, shape: tuple[int, int], *, padding: float = DEFAULT_PADDING
) -> ConvexPolygon:
    """Return the region of the sky that an exposure should cover, with a margin.

    Parameters
    ----------
    observation
        Translated header of a science exposure.
    shape
        Shape ``(ny, nx)`` of the detector.
    padding
        Margin on every side [arcsec].

    Raises
    ------
    HeaderError
        If the exposure has no position on the sky.
    """
    radec, rotation = observation.tracking_radec, observation.boresight_rotation_angle
    if radec is None or rotation is None:
        raise HeaderError(
            f"{observation.filename or observation.observation_id}: no position on the sky (cards RA, DEC, "
            f"ROTPA, TRACKSYS), so there is no visit; observation type {observation.observation_type}"
        )
    scale = get_instrument(observation.instrument).pixel_scale
    wcs = predicted_wcs(
        float(radec.icrs.ra.deg), float(radec.icrs.dec.deg), float(rotation.deg), shape, scale
    )
    return detector_region(wcs, shape, padding)


def day_timespan(day_obs: int) -> Timespan:
    """Return the time that belongs to a day of observation: from 12 h TAI to 12 h TAI of the next date."""
    text = str(day_obs)
    begin = Time(f"{text[:4]}-{text[4:6]}-{text[6:]}T12:00:00", format="isot", scale="tai")
    return Timespan(begin, begin + TimeDelta(1.0 * u.day))


def _exposure_values(observation: ObservationInfo) -> dict[str, Any]:
    radec, rotation, altaz = (
        observation.tracking_radec,
        observation.boresight_rotation_angle,
        observation.altaz_begin,
    )
    on_sky = observation.boresight_rotation_coord == "sky" and rotation is not None
    values = {
        "instrument": observation.instrument,
        "id": observation.exposure_id,
        "obs_id": observation.observation_id,
        "physical_filter": observation.physical_filter,
        "group": observation.exposure_group,
        "day_obs": observation.observing_day,
        "seq_num": observation.observation_counter,
        "seq_start": observation.group_counter_start,
        "seq_end": observation.group_counter_end,
        "exposure_time": float(observation.exposure_time.to_value("s")),
        "dark_time": float(observation.dark_time.to_value("s")),
        "observation_type": observation.observation_type,
        "observation_reason": observation.observation_reason,
        "target_name": observation.object,
        "science_program": observation.science_program,
        "tracking_ra": None if radec is None else float(radec.icrs.ra.deg),
        "tracking_dec": None if radec is None else float(radec.icrs.dec.deg),
        "sky_angle": float(rotation.deg) if on_sky else None,
        "azimuth": None if altaz is None else float(altaz.az.deg),
        "zenith_angle": None if altaz is None else 90.0 - float(altaz.alt.deg),
        "has_simulated": observation.has_simulated_content,
        "can_see_sky": observation.can_see_sky,
        "timespan": _exposure_timespan(observation),
    }
    return {
        key: value[: _LENGTHS[key]] if key in _LENGTHS and value is not None else value
        for key, value in values.items()
    }


def _exposure_timespan(observation: ObservationInfo) -> Timespan:
    """Return when the shutter was open; never empty, because an empty time overlaps with no calib."""
    begin, end = observation.datetime_begin, observation.datetime_end
    return Timespan(begin, max(end, begin + TimeDelta(1.0 * u.ms)))
