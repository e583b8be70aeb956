"""What a person wants to know of an alert, taken from its record."""

import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from prompt_processing.delivery.archive import AlertArchive
from prompt_processing.delivery.packets import decode
from prompt_processing.delivery.port import Decisions
from prompt_processing.domain.errors import RepositoryError
from prompt_processing.ledger.port import DetectorVisitRecord
from prompt_processing.storage import object_store
from prompt_processing.views.nights import may_have_alerts

CUTOUTS = ("cutoutScience", "cutoutTemplate", "cutoutDifference")
"""Fields of an alert that hold pictures."""


@dataclass(frozen=True, slots=True)
class Cutouts:
    """The pictures of an alert, shape ``(ny, nx)`` [nJy]; None where the alert has none."""

    science: NDArray[np.float32] | None = None
    template: NDArray[np.float32] | None = None
    difference: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class AlertSummary:
    """The main numbers of one alert."""

    id: int
    object_id: int | None
    visit: int
    detector: int
    mjd: float
    """Middle of the exposure (TAI) [d]."""
    band: str | None
    ra: float
    """[deg]"""
    dec: float
    """[deg]"""
    x: float
    """[px]"""
    y: float
    """[px]"""
    snr: float
    flux: float
    """Difference PSF flux [nJy]."""
    flux_err: float
    """[nJy]"""
    flags: tuple[str, ...]
    """Names of the flags that are set."""
    disqualified: bool
    """Whether one of them says that this is no real source."""
    n_history: int
    """Earlier sources of the same object that it holds."""
    truth: str | None = None
    """Kind of the true event it belongs to; None if there is none, or no truth is known."""
    cutouts: Cutouts = field(default=Cutouts(), compare=False, repr=False)


def read_alert(archive: str, alert_id: int) -> dict[str, Any]:
    """Return an alert of an archive.

    Parameters
    ----------
    archive
        Folder or URI of the archive.
    alert_id
        Its ``diaSourceId``.

    Raises
    ------
    RepositoryError
        If there is no such alert, or it is damaged.
    """
    return decode(AlertArchive(object_store.root(archive)).read(alert_id))


def alerts_of(
    records: Iterable[DetectorVisitRecord], decisions: Decisions
) -> Iterator[tuple[DetectorVisitRecord, dict[str, Any]]]:
    """Yield the alerts of detector-visits, each with its detector-visit, from the decisions.

    A decision is read only when its first alert is asked for.

    Parameters
    ----------
    records
        The detector-visits.
    decisions
        The decisions.

    Raises
    ------
    RepositoryError
        If a decision or an alert is damaged.
    StoreError
        If the store does not answer.
    """
    for record in filter(may_have_alerts, records):
        decision = decisions.find(record.visit)
        for _, packet in () if decision is None else decision.packets:
            yield record, decode(packet)


def summarise(alert: Mapping[str, Any], disqualifying: frozenset[str]) -> AlertSummary:
    """Return the main numbers of an alert, without its pictures.

    Parameters
    ----------
    alert
        Record of the alert schema.
    disqualifying
        Names of the flags that say that a source is not real.
    """
    source = alert["diaSource"]
    flags = tuple(name for name, value in source.items() if value is True)
    return AlertSummary(
        id=alert["diaSourceId"],
        object_id=source["diaObjectId"],
        visit=source["visit"],
        detector=source["detector"],
        mjd=source["midpointMjdTai"],
        band=source["band"],
        ra=source["ra"],
        dec=source["dec"],
        x=source["x"],
        y=source["y"],
        snr=_number(source["snr"]),
        flux=_number(source["psfFlux"]),
        flux_err=_number(source["psfFluxErr"]),
        flags=flags,
        disqualified=not disqualifying.isdisjoint(flags),
        n_history=len(alert["prvDiaSources"] or ()),
    )


def cutouts(alert: Mapping[str, Any]) -> Cutouts:
    """Return the pictures of an alert.

    Parameters
    ----------
    alert
        Record of the alert schema.

    Raises
    ------
    RepositoryError
        If one of them is not a FITS file; the message names the alert.
    """
    science, template, difference = (_picture(alert, name) for name in CUTOUTS)
    return Cutouts(science, template, difference)


def _picture(alert: Mapping[str, Any], name: str) -> NDArray[np.float32] | None:
    """Return one picture of an alert, None if it has none."""
    content = alert[name]
    if content is None:
        return None
    try:
        with fits.open(io.BytesIO(content)) as hdus:
            return np.asarray(hdus[0].data, dtype=np.float32)
    except (OSError, TypeError, ValueError) as error:
        raise RepositoryError(f"alert {alert['diaSourceId']}: {name} is not a FITS image: {error}") from error


def _number(value: float | None) -> float:
    """Return a number, NaN for one that is missing."""
    return np.nan if value is None else float(value)
