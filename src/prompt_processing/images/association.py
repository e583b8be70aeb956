"""Association: which source belongs to which object, and what an object is after a visit.

Pure functions of tables, which have the columns of the APDB. An object's row is always computed anew from all
of its sources, so it does not depend on the order in which visits were processed.
"""

from typing import Any, Final

import numpy as np
import pandas as pd
from astropy import units as u
from astropy.coordinates import SkyCoord, search_around_sky
from numpy.typing import NDArray

BANDS: Final = "ugrizy"


def associate(sources: pd.DataFrame, objects: pd.DataFrame, radius: float) -> pd.DataFrame:
    """Give every source its object: the known one it fits, else a new one.

    A source and an object belong together when each is the other's nearest, and they are not farther apart
    than the radius. What has no object founds one, which takes the id of its first source; so the result
    depends on nothing but the tables, whatever the order of their rows.

    Parameters
    ----------
    sources
        New sources: ``diaSourceId``, ``ra``, ``dec`` [deg].
    objects
        Known objects: ``diaObjectId``, ``ra``, ``dec`` [deg].
    radius
        Largest distance [arcsec].

    Returns
    -------
    sources
        The same rows with ``diaObjectId`` (int64).
    """
    found = sources["diaSourceId"].to_numpy(dtype=np.int64).copy()
    if len(sources) and len(objects):
        ordered = objects.sort_values("diaObjectId", kind="stable")
        mine, theirs = _mutual_nearest(sources, ordered, radius)
        found[mine] = ordered["diaObjectId"].to_numpy(dtype=np.int64)[theirs]
    return sources.assign(diaObjectId=found)


def _mutual_nearest(
    sources: pd.DataFrame, objects: pd.DataFrame, radius: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the positions of the sources and objects that are each other's nearest."""
    left, right, distance, _ = search_around_sky(_sky(sources), _sky(objects), radius * u.arcsec)
    # Ties are broken by identifier, so that the order of the rows does not matter.
    ids = sources["diaSourceId"].to_numpy(dtype=np.int64)[left]
    order = np.lexsort((right, ids, distance.to_value(u.deg)))
    left, right = left[order], right[order]
    nearest_object = np.full(len(sources), -1)
    nearest_source = np.full(len(objects), -1)
    # Written from the farthest to the nearest: the nearest stays.
    nearest_object[left[::-1]] = right[::-1]
    nearest_source[right[::-1]] = left[::-1]
    mine = np.nonzero(nearest_object >= 0)[0]
    mine = mine[nearest_source[nearest_object[mine]] == mine]
    return mine, nearest_object[mine]


def _sky(table: pd.DataFrame) -> SkyCoord:
    return SkyCoord(table["ra"].to_numpy(dtype=float), table["dec"].to_numpy(dtype=float), unit="deg")


def before(table: pd.DataFrame, mjd: float) -> pd.DataFrame:
    """Return the measurements before a visit.

    Parameters
    ----------
    table
        Measurements with the column ``midpointMjdTai`` [d].
    mjd
        Midpoint of the visit [MJD, TAI].

    Returns
    -------
    earlier
        The rows before the midpoint.
    """
    return table[table["midpointMjdTai"] < mjd]


def summarise(sources: pd.DataFrame, forced: pd.DataFrame) -> pd.DataFrame:
    """Compute the rows of objects from all of their measurements.

    Parameters
    ----------
    sources
        All sources of the objects, of this visit and before: ``diaObjectId``, ``ra``, ``dec`` [deg],
        ``raErr``, ``decErr`` [deg], ``midpointMjdTai`` [d], ``band``, ``psfFlux``, ``psfFluxErr`` [nJy],
        ``scienceFlux``, ``scienceFluxErr``.
    forced
        All forced sources of the objects: ``diaObjectId``, ``band``, ``psfFlux``, ``psfFluxErr``,
        ``scienceFlux``, ``scienceFluxErr`` [nJy].

    Returns
    -------
    objects
        One row per object, sorted by ``diaObjectId``, with columns of the APDB's DiaObject table: weighted
        mean position; number, first and last time of the sources; for each band the weighted mean of the
        difference fluxes with its error, their standard deviation, extremes, number, largest rise between two
        visits [nJy/d], and the weighted means of the forced fluxes.
    """
    forced_of = dict(list(forced.groupby("diaObjectId", sort=False)))
    rows = []
    for object_id, members in sources.groupby("diaObjectId", sort=True):
        ordered = members.sort_values(["midpointMjdTai", "diaSourceId"], kind="stable")
        row: dict[str, Any] = {"diaObjectId": object_id, **_position(ordered)}
        row["nDiaSources"] = len(ordered)
        row["firstDiaSourceMjdTai"] = ordered["midpointMjdTai"].iloc[0]
        row["lastDiaSourceMjdTai"] = ordered["midpointMjdTai"].iloc[-1]
        for band, part in ordered.groupby("band", sort=True):
            row |= {f"{band}_{name}": value for name, value in _light(part).items()}
        if object_id in forced_of:
            for band, part in forced_of[object_id].groupby("band", sort=True):
                row |= {f"{band}_{name}": value for name, value in _forced_light(part).items()}
        rows.append(row)
    objects = pd.DataFrame(rows, columns=_columns())
    counts = [f"{band}_psfFluxNdata" for band in BANDS]
    for name in ("diaObjectId", "nDiaSources", *counts):
        objects[name] = objects[name].fillna(0).astype(np.int64 if name == "diaObjectId" else np.int32)
    return objects


def _columns() -> list[str]:
    """Return all columns in a fixed order, whatever measurements there are."""
    light = ["psfFluxMean", "psfFluxMeanErr", "psfFluxSigma", "psfFluxNdata", "psfFluxMin", "psfFluxMax"]
    light += ["psfFluxMaxSlope", "psfFluxErrMean"]
    light += ["fpFluxMean", "fpFluxMeanErr", "scienceFluxMean", "scienceFluxMeanErr"]
    fixed = ["diaObjectId", "ra", "raErr", "dec", "decErr", "ra_dec_Cov"]
    fixed += ["nDiaSources", "firstDiaSourceMjdTai", "lastDiaSourceMjdTai"]
    return fixed + [f"{band}_{name}" for band in BANDS for name in light]


def _position(sources: pd.DataFrame) -> dict[str, float]:
    """Return the weighted mean position with its errors [deg]."""
    ra, dec = (sources[name].to_numpy(dtype=float) for name in ("ra", "dec"))
    # Relative to the first source, so that 0 and 360 deg do not mix.
    offset = (ra - ra[0] + 180.0) % 360.0 - 180.0
    mean_ra, ra_err = _weighted_mean(offset, sources["raErr"].to_numpy(dtype=float))
    mean_dec, dec_err = _weighted_mean(dec, sources["decErr"].to_numpy(dtype=float))
    return {"ra": (ra[0] + mean_ra) % 360.0, "raErr": ra_err, "dec": mean_dec, "decErr": dec_err}


def _weighted_mean(values: NDArray[np.float64], errors: NDArray[np.float64]) -> tuple[float, float]:
    """Return the mean, weighted by inverse variance, and its error; the plain mean without errors."""
    usable = np.isfinite(values) & np.isfinite(errors) & (errors > 0)
    if not usable.any():
        finite = values[np.isfinite(values)]
        return (float(finite.mean()), np.nan) if finite.size else (np.nan, np.nan)
    weights = errors[usable] ** -2.0
    return float((values[usable] * weights).sum() / weights.sum()), float(weights.sum() ** -0.5)


def _light(sources: pd.DataFrame) -> dict[str, float]:
    """Return the summary of one band's sources, which are sorted by time."""
    flux, error, mjd = _single(sources, "psfFlux"), _single(sources, "psfFluxErr"), sources["midpointMjdTai"]
    finite = np.isfinite(flux)
    flux, error, time = flux[finite], error[finite], mjd.to_numpy(dtype=float)[finite]
    if not flux.size:
        return {"psfFluxNdata": 0}
    mean, mean_err = _weighted_mean(flux, error)
    steps = np.diff(time)
    slopes = np.diff(flux)[steps > 0] / steps[steps > 0]
    return {
        "psfFluxMean": mean,
        "psfFluxMeanErr": mean_err,
        "psfFluxSigma": float(flux.std(ddof=1)) if flux.size > 1 else np.nan,
        "psfFluxNdata": flux.size,
        "psfFluxMin": float(flux.min()),
        "psfFluxMax": float(flux.max()),
        "psfFluxMaxSlope": float(slopes.max()) if slopes.size else np.nan,
        "psfFluxErrMean": float(error.mean()),
    }


def _forced_light(forced: pd.DataFrame) -> dict[str, float]:
    """Return the summary of one band's forced sources."""
    difference = _weighted_mean(_single(forced, "psfFlux"), _single(forced, "psfFluxErr"))
    science = _weighted_mean(_single(forced, "scienceFlux"), _single(forced, "scienceFluxErr"))
    return {
        "fpFluxMean": difference[0],
        "fpFluxMeanErr": difference[1],
        "scienceFluxMean": science[0],
        "scienceFluxMeanErr": science[1],
    }


def _single(table: pd.DataFrame, name: str) -> NDArray[np.float64]:
    """Return a column in single precision, as the APDB gives it back: old and new rows weigh the same."""
    return table[name].to_numpy(dtype=np.float32).astype(np.float64)
