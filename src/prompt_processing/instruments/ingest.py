"""Raws into a Butler: dimension records of the exposure, the visit, and the raw itself."""

from collections.abc import Iterable, Sequence
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
    DimensionRecord,
    DimensionUniverse,
    FileDataset,
    Timespan,
)
from lsst.daf.butler.registry import ConflictingDefinitionError
from lsst.sphgeom import ConvexPolygon

from prompt_processing.domain.errors import ConflictError, HeaderError
from prompt_processing.domain.ids import visit_id_from_group
from prompt_processing.instruments.cameras import band_of, get_camera
from prompt_processing.instruments.formatters import RawFormatter
from prompt_processing.instruments.instrument import GROUP_VISIT_SYSTEM, VISIT_SYSTEM
from prompt_processing.instruments.observation import observation_info, with_group
from prompt_processing.instruments.raw import read_raw_header
from prompt_processing.instruments.regions import DEFAULT_PADDING, detector_region, visit_region

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
    observation = read_observation(path)
    insert_records(butler, exposure_records(butler.dimensions, observation), path)
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


def read_observation(path: str | Path) -> ObservationInfo:
    """Return what header and sidecar of a raw tell of the observation.

    Raises
    ------
    HeaderError
        If a card is missing or makes no sense, or a science raw has no group.
    RawError
        If the file is not FITS.
    WrongCameraError
        If the raw is of an instrument that is not supported.
    """
    header = with_group(read_raw_header(path), path)
    observation = observation_info(header, path)
    if observation.observation_type == "science" and not header.get("GROUPID"):
        raise HeaderError(f"{path}: card GROUPID is missing, and there is no sidecar that tells the group")
    return observation


def exposure_records(universe: DimensionUniverse, observation: ObservationInfo) -> list[DimensionRecord]:
    """Return the records of filter, day, group and exposure, in order of insertion."""
    instrument, physical_filter = observation.instrument, observation.physical_filter
    day = observation.observing_day
    values = {
        "physical_filter": {
            "instrument": instrument,
            "name": physical_filter,
            "band": band_of(instrument, physical_filter),
        },
        "day_obs": {"instrument": instrument, "id": day, "timespan": day_timespan(day)},
        "group": {"instrument": instrument, "name": observation.exposure_group},
        "exposure": _exposure_values(observation),
    }
    return [universe[element].RecordClass(**row) for element, row in values.items()]


def visit_records(
    universe: DimensionUniverse,
    observations: Sequence[ObservationInfo],
    shape: tuple[int, int],
    *,
    padding: float = DEFAULT_PADDING,
) -> list[DimensionRecord]:
    """Return the records of the visits that the exposures of one group make, in order of insertion.

    Every exposure is a visit of its own with its id and name (visit system ``one-to-one``). Several together
    make one more, whose id follows from the group (visit system ``by-group-metadata``).

    Parameters
    ----------
    universe
        Dimensions of the repository.
    observations
        Translated headers of science exposures of one detector, in order.
    shape
        Shape ``(ny, nx)`` of the detector.
    padding
        Margin of the region for errors of the pointing [arcsec].

    Raises
    ------
    HeaderError
        If an exposure has no position on the sky.
    """
    made = [
        record
        for observation in observations
        for record in _visit(
            universe,
            [observation],
            observation_region(observation, shape, padding=padding),
            _visit_region(observation, shape, padding),
            visit=observation.exposure_id,
            name=observation.observation_id,
            system=(VISIT_SYSTEM, "one-to-one"),
        )
    ]
    if len(observations) > 1:
        group = observations[0].exposure_group
        made += _visit(
            universe,
            observations,
            observation_region(observations[0], shape, padding=padding),
            _visit_region(observations[0], shape, padding),
            visit=visit_id_from_group(group),
            name=group,
            system=(GROUP_VISIT_SYSTEM, "by-group-metadata"),
        )
    return made


def insert_records(butler: Butler, records: Iterable[DimensionRecord], path: str | Path) -> None:
    """Insert dimension records; safe to repeat.

    Parameters
    ----------
    butler
        Writeable Butler with the instrument registered.
    records
        From `exposure_records` and `visit_records`.
    path
        File they came from, for messages.

    Raises
    ------
    ConflictError
        If another exposure has the same id.
    """
    registry = butler.registry
    with butler.transaction():
        for record in records:
            element = record.definition.name
            if element != "exposure":
                registry.insertDimensionData(element, record, skip_existing=True)
                continue
            try:
                registry.syncDimensionData(element, record)
            except ConflictingDefinitionError as error:
                instrument, exposure = record.dataId["instrument"], record.dataId["exposure"]
                raise ConflictError(
                    f"{path}: exposure {exposure} of {instrument} is already known with other values "
                    f"({error})"
                ) from error


def define_visit(
    butler: Butler, observation: ObservationInfo, shape: tuple[int, int], *, padding: float = DEFAULT_PADDING
) -> int:
    """Insert the records of the visit that an exposure makes, and return its id; safe to repeat.

    Parameters
    ----------
    butler
        Writeable Butler that has the exposure's records.
    observation, shape, padding
        As in `visit_records`.

    Raises
    ------
    HeaderError
        If the exposure has no position on the sky.
    """
    records = visit_records(butler.dimensions, [observation], shape, padding=padding)
    insert_records(butler, records, observation.filename or "")
    return int(observation.exposure_id)


def _visit(
    universe: DimensionUniverse,
    observations: Sequence[ObservationInfo],
    region: ConvexPolygon,
    visit_region: ConvexPolygon,
    *,
    visit: int,
    name: str,
    system: tuple[int, str],
) -> list[DimensionRecord]:
    """Return the records of one visit."""
    first, last = (_exposure_values(observation) for observation in (observations[0], observations[-1]))
    instrument = first["instrument"]
    shared = {key: first[key] for key in _SHARED}
    shared["exposure_time"] = sum(_exposure_values(snap)["exposure_time"] for snap in observations)
    shared["timespan"] = Timespan(first["timespan"].begin, last["timespan"].end)
    key = {"instrument": instrument, "visit": visit}
    rows = [
        ("visit_system", {"instrument": instrument, "id": system[0], "name": system[1]}),
        ("visit", {"instrument": instrument, "id": visit, "name": name, "region": visit_region, **shared}),
        *(("visit_definition", {**key, "exposure": snap.exposure_id}) for snap in observations),
        ("visit_system_membership", {**key, "visit_system": system[0]}),
        ("visit_detector_region", {**key, "detector": observations[0].detector_num, "region": region}),
    ]
    return [universe[element].RecordClass(**row) for element, row in rows]


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
    wcs = get_camera(observation.instrument).predicted_wcs(
        int(observation.detector_num), *_pointing(observation), shape
    )
    return detector_region(wcs, shape, padding)


def _visit_region(observation: ObservationInfo, shape: tuple[int, int], padding: float) -> ConvexPolygon:
    """Return the region of all detectors of a visit: it must not depend on the one that is ingested first."""
    camera = get_camera(observation.instrument)
    if len(camera.detectors) == 1:
        return observation_region(observation, shape, padding=padding)
    return visit_region(camera, *_pointing(observation), padding)


def _pointing(observation: ObservationInfo) -> tuple[float, float, float]:
    """Return boresight and rotation of an exposure of the sky [deg]."""
    radec, rotation = observation.tracking_radec, observation.boresight_rotation_angle
    if radec is None or rotation is None:
        raise HeaderError(
            f"{observation.filename or observation.observation_id}: no position on the sky (cards RA, DEC, "
            f"ROTPA, TRACKSYS), so there is no visit; observation type {observation.observation_type}"
        )
    return float(radec.icrs.ra.deg), float(radec.icrs.dec.deg), float(rotation.deg)


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
