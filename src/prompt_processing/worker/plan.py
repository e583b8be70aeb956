"""Comparing an image with the event that announced it."""

from collections.abc import Iterator
from typing import Any, Final

import astropy.units as u
from astropy.coordinates import SkyCoord

from prompt_processing.config import WorkerSettings
from prompt_processing.domain.errors import PlanMismatchError
from prompt_processing.domain.visit import DetectorVisit

TIME_TOLERANCE: Final = 1.0
"""By how much an exposure may be longer than the script that it is part of [s]."""


def check_plan(visit: DetectorVisit, info: dict[str, Any], settings: WorkerSettings) -> None:
    """Compare the header of a raw with the event; what the event leaves open is not compared.

    Parameters
    ----------
    visit
        What was announced.
    info
        What the header tells, from `prompt_processing.instruments.info.info_from_observation`.
    settings
        The limits of rotation and position.

    Raises
    ------
    PlanMismatchError
        If they disagree; the message gives both values of everything that differs.
    """
    problems = list(_differences(visit, info, settings))
    if problems:
        raise PlanMismatchError(f"exposure {info['exposure']}: {'; '.join(problems)}")


def _differences(visit: DetectorVisit, info: dict[str, Any], settings: WorkerSettings) -> Iterator[str]:
    announced, found = (visit.instrument, visit.detector), (info["instrument"], info["detector"])
    if announced != found:
        yield f"detector: {announced[0]} {announced[1]} announced, {found[0]} {found[1]} in the header"
    if info["observation_type"] != "science":
        yield f"image type: science announced, {info['observation_type']} in the header"
    names = visit.filter_names
    if names and info["physical_filter"] not in names:
        yield f"filter: {' or '.join(names)} announced, {info['physical_filter']} in the header"
    if not 0 < info["exposure_time"] <= visit.duration + TIME_TOLERANCE:
        yield (
            f"exposure time: a script of {visit.duration:.1f} s announced, {info['exposure_time']:.1f} s "
            "in the header"
        )
    if info["ra"] is not None:
        yield from _offset(visit, info, settings.max_offset_arcsec)
    if info["rotation"] is not None and visit.rotation is not None:
        yield from _rotation(visit.rotation, info["rotation"], settings.max_rotation_deg)


def _offset(visit: DetectorVisit, info: dict[str, Any], limit: float) -> Iterator[str]:
    announced = SkyCoord(visit.ra, visit.dec, unit="deg")
    offset = announced.separation(SkyCoord(info["ra"], info["dec"], unit="deg")).to_value(u.arcsec)
    if offset > limit:
        yield (
            f"position: ra {visit.ra:.5f}, dec {visit.dec:.5f} deg announced, ra {info['ra']:.5f}, "
            f"dec {info['dec']:.5f} deg in the header, {offset:.0f} arcsec apart (limit {limit:g})"
        )


def _rotation(announced: float, found: float, limit: float) -> Iterator[str]:
    difference = abs((found - announced + 180.0) % 360.0 - 180.0)
    if difference > limit:
        yield (
            f"rotation: {announced:.2f} deg announced, {found % 360.0:.2f} deg in the header, "
            f"{difference:.2f} deg apart (limit {limit:g})"
        )
