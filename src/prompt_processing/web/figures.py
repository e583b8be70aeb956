"""Pictures of the report: cutouts as PNG, curves as SVG that takes the page's colours."""

import base64
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from astropy.stats import mad_std
from astropy.visualization import AsinhStretch, ZScaleInterval
from matplotlib.figure import Figure
from matplotlib.image import imsave
from numpy.typing import NDArray

from prompt_processing.views.alerts import Cutouts

INK: Final = "#010203"
"""Drawn in place of the page's text colour; replaced by ``currentColor`` in the SVG."""
ACCENT: Final = "#3b7dd8"
WARM: Final = "#d9822b"
DIFFERENCE_SIGMAS: Final = 5.0
"""Noise levels from mid-grey to white in a difference cutout, before the source's own peak counts."""


def stretch_limits(image: NDArray[np.float32]) -> tuple[float, float]:
    """Return the values that become black and white.

    They are those of IRAF's zscale, the upper one raised to the 99.5th percentile so stars keep their shape.

    Parameters
    ----------
    image
        Cutout of shape ``(ny, nx)``; pixels that are not finite do not count.

    Returns
    -------
    low, high
        Values of black and white, in the unit of the image; 0 and 1 if no pixel is finite.
    """
    finite = image[np.isfinite(image)]
    if finite.size == 0:
        return 0.0, 1.0
    low, high = ZScaleInterval().get_limits(finite)
    return float(low), max(float(high), float(np.percentile(finite, 99.5)))


def stretch(image: NDArray[np.float32], limits: tuple[float, float]) -> NDArray[np.uint8]:
    """Return an image as grey levels 0-255 on an asinh scale; pixels without data are black.

    Parameters
    ----------
    image
        Cutout of shape ``(ny, nx)``.
    limits
        Values of black and white, from `stretch_limits`.

    Returns
    -------
    grey
        Grey levels, shape ``(ny, nx)``.
    """
    low, high = limits
    span = (high - low) or 1.0
    scaled = np.nan_to_num((image - low) / span, nan=0.0, posinf=1.0, neginf=0.0).clip(0, 1)
    return np.round(255 * AsinhStretch(a=0.1)(scaled)).astype(np.uint8)


def stretch_difference(difference: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return a difference cutout as grey levels, zero in the middle.

    Parameters
    ----------
    difference
        Cutout of shape ``(ny, nx)`` [nJy].

    Returns
    -------
    difference
        Grey levels 0-255, of the same shape: 128 is no change, white is brighter, black fainter.
    """
    finite = difference[np.isfinite(difference)]
    if finite.size == 0:
        return np.full(difference.shape, 128, np.uint8)
    limit = max(DIFFERENCE_SIGMAS * float(mad_std(finite)), 0.7 * float(np.abs(finite).max()))
    scaled = np.nan_to_num(difference / (limit or 1.0), nan=0.0, posinf=1.0, neginf=-1.0).clip(-1, 1)
    return np.round(127.5 + 127.5 * scaled).astype(np.uint8)


def png(grey: NDArray[np.uint8]) -> bytes:
    """Return grey levels as a PNG file, with row 0 at the bottom.

    Parameters
    ----------
    grey
        Grey levels 0-255, shape ``(ny, nx)``.

    Returns
    -------
    content
        The file.
    """
    stream = io.BytesIO()
    imsave(stream, grey, cmap="gray", vmin=0, vmax=255, origin="lower", format="png")
    return stream.getvalue()


def data_uri(content: bytes) -> str:
    """Return a PNG file as a data URI.

    Parameters
    ----------
    content
        The file.

    Returns
    -------
    uri
        URI for the ``src`` of an image.
    """
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")


def triplet(cutouts: Cutouts) -> bytes:
    """Return the cutouts of an alert side by side as one PNG file: science, template, difference.

    Parameters
    ----------
    cutouts
        Pictures of the alert; a missing one is left out.

    Returns
    -------
    content
        The PNG file.
    """
    panels = []
    for level in levels(cutouts).values():
        scale = max(1, 240 // max(level.shape))
        panels += [np.kron(level, np.ones((scale, scale), np.uint8))]
    height = max((panel.shape[0] for panel in panels), default=1)
    gap = np.full((height, 6), 255, np.uint8)
    parts = [np.pad(panel, ((0, height - panel.shape[0]), (0, 0)), constant_values=255) for panel in panels]
    joined = [part for panel in parts for part in (gap, panel)]
    return png(np.hstack(joined[1:]) if joined else gap)


def levels(cutouts: Cutouts) -> dict[str, NDArray[np.uint8]]:
    """Return the cutouts of an alert as grey levels by name, without missing cutouts.

    Science and template share one scale, that of the science image if there is one.

    Parameters
    ----------
    cutouts
        Pictures of the alert.

    Returns
    -------
    levels
        Grey levels 0-255, shape ``(ny, nx)``, by ``science``, ``template`` and ``difference``.
    """
    science, template, difference = cutouts.science, cutouts.template, cutouts.difference
    grey: dict[str, NDArray[np.uint8]] = {}
    first = science if science is not None else template
    if first is not None:
        limits = stretch_limits(first)
        if science is not None:
            grey["science"] = stretch(science, limits)
        if template is not None:
            grey["template"] = stretch(template, limits)
    if difference is not None:
        grey["difference"] = stretch_difference(difference)
    return grey


def completeness_curve(edges: Sequence[float], found: Sequence[int], total: Sequence[int]) -> str:
    """Return a plot of the share of true events that were found against their S/N.

    Parameters
    ----------
    edges
        Bin edges in S/N; one more than there are bins.
    found, total
        Events found, and all events, per bin.

    Returns
    -------
    svg
        An ``<svg>`` element.
    """
    with _figure(6.4, 3.0) as (figure, axes):
        for low, high, n_found, n_total in zip(edges, edges[1:], found, total, strict=False):
            if n_total == 0:
                continue
            share = n_found / n_total
            centre = float(np.sqrt(low * high))
            error = np.sqrt(share * (1 - share) / n_total)
            axes.bar(low, share, width=high - low, align="edge", color=ACCENT, alpha=0.35, linewidth=0)
            axes.errorbar(centre, share, yerr=error, fmt="o", color=ACCENT, markersize=5, capsize=2)
            axes.annotate(
                f"{n_found}/{n_total}", (centre, 0.03), ha="center", va="bottom", fontsize=8, color=INK
            )
        axes.set_xscale("log")
        ticks = [edge for edge in edges if edge > 0]
        axes.set_xticks(ticks, [f"{edge:g}" for edge in ticks])
        axes.minorticks_off()
        axes.set(xlim=(edges[0], edges[-1]), ylim=(0, 1.08), xlabel="S/N of the true event", ylabel="found")
    return _svg(figure)


def light_curve(
    days: NDArray[np.float64],
    flux: NDArray[np.float64],
    error: NDArray[np.float64],
    detected: NDArray[np.bool_],
) -> str:
    """Return a plot of the difference flux of one object against time.

    Parameters
    ----------
    days
        Time of each measurement [d].
    flux, error
        Difference flux and its error [nJy].
    detected
        Whether the measurement is a detection (else it is forced).

    Returns
    -------
    svg
        An ``<svg>`` element.
    """
    start = float(np.min(days))
    in_days = float(np.ptp(days)) > 2
    times = (days - start) * (1 if in_days else 24 * 60)
    with _figure(6.4, 3.0) as (figure, axes):
        for mask, marker, colour, label in (
            (~detected, "s", WARM, "forced"),
            (detected, "o", ACCENT, "detected"),
        ):
            if mask.any():
                axes.errorbar(
                    times[mask],
                    flux[mask] / 1000,
                    yerr=error[mask] / 1000,
                    fmt=marker,
                    color=colour,
                    markersize=5,
                    capsize=2,
                    linewidth=1,
                    label=label,
                )
        axes.axhline(0, color=INK, linewidth=0.6, alpha=0.5)
        unit = "days" if in_days else "minutes"
        axes.set(xlabel=f"{unit} after MJD {start:.5f} (TAI)", ylabel="difference flux [µJy]")
        axes.margins(x=0.05, y=0.15)
        if not detected.all():
            axes.legend(frameon=False, labelcolor=INK, fontsize=9)
    return _svg(figure)


@contextmanager
def _figure(width: float, height: float) -> Iterator[tuple[Figure, Any]]:
    """Yield a figure of one plot in the style of the page; sizes in inches."""
    style = {
        "font.size": 10,
        "text.color": INK,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "svg.fonttype": "none",
        "svg.hashsalt": "prompt",
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0)
        yield figure, axes


def _svg(figure: Figure) -> str:
    """Return a figure as an ``<svg>`` element that takes its ink and its fonts from the page."""
    stream = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "prompt"}):
        figure.savefig(
            stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    text = stream.getvalue()
    return text[text.index("<svg") :].replace(INK, "currentColor")
