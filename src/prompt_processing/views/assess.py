"""Alerts against the truth of a simulated night: completeness, false alerts, position and flux errors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord, match_coordinates_sky
from numpy.typing import NDArray

MATCH_RADIUS_PIXELS: Final = 8.0
"""An alert belongs to a true event within this distance."""
BRIGHT_SNR: Final = 10.0
"""S/N above which a transient should be found."""
SNR_EDGES: Final = (5.0, 7.0, 10.0, 14.0, 20.0, 30.0, 50.0)
"""Bins of the completeness; the first and the last one also hold what is beyond them."""
TRANSIENT: Final = "transient"
"""Kind of the events that completeness and flux bias are about."""


@dataclass(frozen=True, slots=True)
class TrueEvent:
    """Something that really changed in one visit."""

    group: str
    kind: str
    """`TRANSIENT`, or another word for what also deserves an alert: a variable star, a moving object."""
    ra: float
    """[deg]"""
    dec: float
    """[deg]"""
    snr: float
    """Of ideal PSF photometry, with the noise of sky, detector, template and host."""
    flux: float
    """Change of flux against the template [nJy]."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What counts of an alert here."""

    id: int
    group: str
    ra: float
    """[deg]"""
    dec: float
    """[deg]"""
    flux: float
    """Difference PSF flux [nJy]."""
    disqualified: bool
    """Whether it carries a flag that says that it is no real source."""


@dataclass(frozen=True, slots=True)
class VisitAssessment:
    """One visit's alerts against its truth."""

    group: str
    n_transients: int
    n_found: int
    n_bright: int
    """Transients with S/N > `BRIGHT_SNR`."""
    n_bright_found: int
    n_false: int
    astrometric_error_arcsec: float | None
    """Median distance of alert and true transient; None where nothing was found."""
    flux_bias: float | None
    """Median of measured over true flux less one, of the bright transients that were found."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """A night's alerts against its truth."""

    match_radius_arcsec: float
    snr_edges: tuple[float, ...]
    found: tuple[int, ...]
    """Transients with an alert, per bin of S/N."""
    total: tuple[int, ...]
    """All transients, per bin of S/N."""
    n_bright: int
    """Transients with S/N > `BRIGHT_SNR`."""
    completeness_bright: float | None
    """Share of the transients with S/N > `BRIGHT_SNR` that have an alert."""
    false_per_visit: float
    astrometric_error_arcsec: float | None
    flux_bias: float | None
    visits: tuple[VisitAssessment, ...]
    labels: dict[int, str]
    """Kind of the true event of each alert that has one, by the alert's id."""


@dataclass(frozen=True, slots=True)
class _Matches:
    """What one visit contributes to the sums."""

    snr: NDArray[np.float64]
    found: NDArray[np.bool_]
    distances: NDArray[np.float64]
    """Of the transients that were found [arcsec]."""
    ratios: NDArray[np.float64]
    """Measured over true flux of the bright transients that were found."""
    n_false: int
    labels: dict[int, str]


def assess(
    events: Sequence[TrueEvent], alerts: Sequence[Measured], groups: Sequence[str], pixel_scale: float
) -> Assessment:
    """Compare alerts with the truth, visit by visit.

    A true event is found if there is an alert within 8 pixels. An alert is false if it has no disqualifying
    flag and is farther than that from every true event, whatever its kind.

    Parameters
    ----------
    events
        The truth.
    alerts
        The alerts.
    groups
        Visits that count: those that were processed.
    pixel_scale
        Scale of the camera [arcsec/pixel].

    Returns
    -------
    assessment
        Figures of the whole and per visit.
    """
    radius = MATCH_RADIUS_PIXELS * pixel_scale
    per_group = {
        group: _match(
            [event for event in events if event.group == group],
            [alert for alert in alerts if alert.group == group],
            radius,
        )
        for group in groups
    }
    parts = list(per_group.values())
    snr = _joined([part.snr for part in parts])
    found = _joined([part.found for part in parts]).astype(bool)
    n_bins = len(SNR_EDGES) - 1
    bins = np.clip(np.digitize(snr, SNR_EDGES) - 1, 0, n_bins - 1)
    bright = snr > BRIGHT_SNR
    labels: dict[int, str] = {}
    for part in parts:
        labels |= part.labels
    return Assessment(
        match_radius_arcsec=radius,
        snr_edges=SNR_EDGES,
        found=tuple(int(np.sum(found[bins == index])) for index in range(n_bins)),
        total=tuple(int(np.sum(bins == index)) for index in range(n_bins)),
        n_bright=int(bright.sum()),
        completeness_bright=float(np.mean(found[bright])) if bright.any() else None,
        false_per_visit=sum(part.n_false for part in parts) / max(len(parts), 1),
        astrometric_error_arcsec=_median(_joined([part.distances for part in parts])),
        flux_bias=_bias(_joined([part.ratios for part in parts])),
        visits=tuple(_visit(group, part) for group, part in per_group.items()),
        labels=labels,
    )


def _match(events: Sequence[TrueEvent], alerts: Sequence[Measured], radius: float) -> _Matches:
    """Match the alerts of one visit to its true events; radius in arcsec."""
    transients = [event for event in events if event.kind == TRANSIENT]
    snr = np.array([event.snr for event in transients], dtype=np.float64)
    usable = [alert for alert in alerts if not alert.disqualified]
    if not events or not alerts:
        nothing = np.empty(0)
        return _Matches(snr, np.zeros(len(snr), bool), nothing, nothing, len(usable), {})
    nearest_event, distance = _nearest(alerts, events)
    near = distance <= radius
    labels = {
        alert.id: events[index].kind
        for alert, index, matched in zip(alerts, nearest_event, near, strict=True)
        if matched
    }
    n_false = sum(alert.id not in labels for alert in usable)
    if not transients:
        return _Matches(snr, np.zeros(0, bool), np.empty(0), np.empty(0), n_false, labels)
    nearest_alert, distance = _nearest(transients, alerts)
    found = distance <= radius
    measured = np.array([alerts[index].flux for index in nearest_alert])
    true = np.array([event.flux for event in transients])
    bright = found & (snr > BRIGHT_SNR)
    return _Matches(snr, found, distance[found], measured[bright] / true[bright], n_false, labels)


def _nearest(
    targets: Sequence[TrueEvent | Measured], catalog: Sequence[TrueEvent | Measured]
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the index of the nearest entry of a catalogue for each target, and its distance [arcsec]."""
    index, distance, _ = match_coordinates_sky(_coordinates(targets), _coordinates(catalog))
    return np.atleast_1d(index), np.atleast_1d(distance.to_value(u.arcsec))


def _coordinates(things: Sequence[TrueEvent | Measured]) -> SkyCoord:
    """Return the positions of events or alerts."""
    return SkyCoord([thing.ra for thing in things], [thing.dec for thing in things], unit="deg")


def _visit(group: str, part: _Matches) -> VisitAssessment:
    """Return the figures of one visit."""
    bright = part.snr > BRIGHT_SNR
    return VisitAssessment(
        group=group,
        n_transients=len(part.snr),
        n_found=int(part.found.sum()),
        n_bright=int(bright.sum()),
        n_bright_found=int((part.found & bright).sum()),
        n_false=part.n_false,
        astrometric_error_arcsec=_median(part.distances),
        flux_bias=_bias(part.ratios),
    )


def _joined(parts: Sequence[NDArray[np.float64] | NDArray[np.bool_]]) -> NDArray[np.float64]:
    """Return all parts as one array, empty if there is none."""
    return np.concatenate([np.asarray(part, dtype=np.float64) for part in parts]) if parts else np.empty(0)


def _median(values: NDArray[np.float64]) -> float | None:
    """Return the median, None of nothing."""
    return float(np.median(values)) if values.size else None


def _bias(ratios: NDArray[np.float64]) -> float | None:
    """Return the median of ratios less one, None of nothing."""
    return float(np.median(ratios)) - 1.0 if ratios.size else None
