"""The ``truth`` folder of a simulated night: tables to write, and readers for those who compare.

=============================  ====================================================================
``simulation.json``            instrument, seed, visits, size
``exposures.ecsv``             one row per exposure: ids, header and true pointing, PSF, sky, throughput
``amplifiers.ecsv``            gain, read noise and bias level of each amplifier
``bad_pixels.ecsv``            hot pixels and bad columns
``galaxies.ecsv``              all galaxies of the scene
``<obs_id>/transients.ecsv``   events of one science visit with flux and S/N
``<obs_id>/variables.ecsv``    stars that differ from the template epochs; flux is the difference
``<obs_id>/moving.ecsv``       moving objects; the position is that at mid-exposure
``<obs_id>/stars.ecsv``        stars of the scene within the image (science and template)
``<obs_id>/cosmic_rays.ecsv``  tracks (also of darks and flats)
``<obs_id>/streaks.ecsv``      satellite trails by their ends on the detector
=============================  ====================================================================

Positions are ICRS [deg] at the time of the exposure and 0-based pixels after assembly by DETSEC. Fluxes are
nJy, errors and S/N as `~prompt_processing.simulation.noise.NoiseModel` defines them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from astropy.table import Table, vstack
from astropy.units import Unit
from astropy.wcs import WCS

from prompt_processing.simulation.detector import Electronics
from prompt_processing.simulation.frames import BAND, Frame
from prompt_processing.simulation.optics import PsfField, moffat_peak, true_wcs
from prompt_processing.simulation.profiles import FULL_WELL
from prompt_processing.simulation.render import StaticSky
from prompt_processing.simulation.sky import Galaxies, njy_to_magnitude
from prompt_processing.simulation.transients import Row

_EVENT: Final = {"id": "i8"} | dict.fromkeys(
    ("ra", "dec", "x", "y", "flux", "flux_err", "snr", "electrons"), "f8"
)
_TRANSIENT: Final = _EVENT | {"near_galaxy": "bool", "persistent": "bool"}
_VARIABLE: Final = _EVENT | {"star": "i8", "mean_flux": "f8"}
_ENDS: Final = ("x_begin", "y_begin", "x_end", "y_end")
_MOVING: Final = _EVENT | dict.fromkeys((*_ENDS, "rate", "position_angle"), "f8")
_UNITS: Final = {
    **dict.fromkeys(("ra", "dec", "position_angle"), "deg"),
    **dict.fromkeys(("x", "y", *_ENDS), "pix"),
    **dict.fromkeys(("flux", "flux_err", "mean_flux"), "nJy"),
    "electrons": "electron",
    "rate": "arcsec / min",
    "mag": "mag",
}


def truth_folders(night: Path) -> list[Path]:
    """Return the folders of the truth, one for each detector.

    Parameters
    ----------
    night
        Folder of the night.

    Returns
    -------
    folders
        Sorted by name; empty if the night has no truth.
    """
    folder = night / "truth"
    return [folder] if (folder / "exposures.ecsv").exists() else sorted(folder.glob("R*_S*"))


def read_exposures(folder: Path) -> Table:
    """Return the table of all exposures of a detector.

    Parameters
    ----------
    folder
        A folder of `truth_folders`.

    Returns
    -------
    exposures
        One row per exposure.

    Raises
    ------
    FileNotFoundError
        If there is no truth.
    """
    return Table.read(folder / "exposures.ecsv")


def read_wcs(folder: Path, obs_id: str) -> WCS:
    """Return the true WCS of an exposure.

    Parameters
    ----------
    folder
        A folder of `truth_folders`.
    obs_id
        Name of the exposure.

    Returns
    -------
    wcs
        TAN-SIP; call it with origin 0.

    Raises
    ------
    KeyError
        If there is no such exposure of the sky.
    """
    row = _exposure(folder, obs_id)
    shape = int(row["ny"]), int(row["nx"])
    aim = (float(row[name]) for name in ("true_ra", "true_dec", "true_rotation", "pixel_scale"))
    return true_wcs(shape, *aim)


def read_psf(folder: Path, obs_id: str) -> PsfField:
    """Return the true PSF of an exposure.

    Parameters
    ----------
    folder
        A folder of `truth_folders`.
    obs_id
        Name of the exposure.

    Returns
    -------
    psf
        The PSF with its variation over the detector.

    Raises
    ------
    KeyError
        If there is no such exposure of the sky.
    """
    row = _exposure(folder, obs_id)
    values = [np.array(row[name], dtype=np.float64) for name in ("psf_fwhm", "psf_e1", "psf_e2")]
    return PsfField((int(row["ny"]), int(row["nx"])), *values)


def read_events(folder: Path, obs_id: str) -> Table:
    """Return everything that a difference image of one science visit should show.

    Parameters
    ----------
    folder
        A folder of `truth_folders`.
    obs_id
        Name of the exposure.

    Returns
    -------
    events : `astropy.table.Table`
        Columns ``kind`` (transient, variable, moving), ``id``, ``ra``, ``dec`` [deg], ``x``, ``y`` [px, from
        0], ``flux``, ``flux_err`` [nJy], ``snr``, ``electrons``, ``persistent`` (false for the other kinds).

    Raises
    ------
    FileNotFoundError
        If there is no truth of that visit.
    """
    parts = []
    for kind, name in (("transient", "transients"), ("variable", "variables"), ("moving", "moving")):
        table = Table.read(folder / obs_id / f"{name}.ecsv")
        part = table[list(_EVENT)]
        part["persistent"] = table["persistent"] if kind == "transient" else np.zeros(len(table), dtype=bool)
        part.add_column(np.full(len(table), kind, dtype="U9"), index=0, name="kind")
        part.meta.clear()
        parts.append(part)
    return vstack(parts)


def _exposure(folder: Path, obs_id: str) -> Any:
    table = read_exposures(folder)
    rows = table[(table["obs_id"] == obs_id) & np.isfinite(table["true_ra"])]
    if len(rows) != 1:
        raise KeyError(f"no exposure of the sky {obs_id} in {folder}")
    return rows[0]


def exposures_table(frames: Sequence[Frame]) -> Table:
    """Return one row per exposure; bias, dark and flat exposures have NaN for pointing, PSF and sky.

    Parameters
    ----------
    frames
        All exposures of a detector.

    Returns
    -------
    exposures
        The table ``exposures.ecsv``.
    """
    blank = np.full(6, np.nan)
    rows = []
    for frame in frames:
        aim = frame.pointing
        ny, nx = frame.shape
        row: Row = {
            "obs_id": frame.obs_id,
            "exposure": frame.exposure_id,
            "kind": frame.kind,
            "group": frame.group,
            "band": BAND,
            "begin": frame.begin.isot,
            "end": frame.end.isot,
            "exposure_time": frame.exposure_time,
            "nx": nx,
            "ny": ny,
            "flat_electrons": frame.level,
            "pixel_scale": frame.detector.pixel_scale,
        }
        for name in ("ra", "dec", "rotation", "true_ra", "true_dec", "true_rotation", "transparency", "sky"):
            row[name] = getattr(aim, name) if aim else np.nan
        row["sky_terms"] = np.array(aim.sky_terms) if aim else np.full(3, np.nan)
        row["electron_per_njy"] = frame.electron_per_njy if aim else np.nan
        row["psf_fwhm"] = aim.psf.fwhm if aim else blank
        row["psf_e1"] = aim.psf.e1 if aim else blank
        row["psf_e2"] = aim.psf.e2 if aim else blank
        rows.append(row)
    return Table(rows)


def amplifiers_table(electronics: Electronics) -> Table:
    """Return gain [electron/adu], read noise [electron] and bias level [adu] of each amplifier.

    Parameters
    ----------
    electronics
        Electronics of the detector.

    Returns
    -------
    amplifiers
        One row per amplifier, in the order of the layout's segments.
    """
    return Table(
        {
            "name": [segment.name for segment in electronics.layout.segments()],
            "gain": electronics.gains,
            "read_noise": electronics.read_noises,
            "bias_level": electronics.bias_levels,
        },
        meta={"full_well_electron": FULL_WELL},
    )


def bad_pixels_table(electronics: Electronics) -> Table:
    """Return hot pixels (with their dark current [electron/s]) and bad columns as ranges of rows.

    Parameters
    ----------
    electronics
        Electronics of the detector.

    Returns
    -------
    bad_pixels
        Columns ``kind``, ``x``, ``y_first``, ``y_last`` [px], ``rate`` (NaN for columns).
    """
    hot, columns = electronics.hot_pixels, electronics.bad_columns
    return Table(
        {
            "kind": ["hot"] * len(hot) + ["column"] * len(columns),
            "x": np.concatenate([hot["x"], columns["x"]]),
            "y_first": np.concatenate([hot["y"], columns["y_first"]]),
            "y_last": np.concatenate([hot["y"], columns["y_last"]]),
            "rate": np.concatenate([hot["rate"], np.full(len(columns), np.nan)]),
        }
    )


def galaxies_table(galaxies: Galaxies) -> Table:
    """Return the galaxies: position [deg], flux [nJy], half-light radius [arcsec], Sersic index, shear.

    Parameters
    ----------
    galaxies
        Galaxies of the scene.

    Returns
    -------
    galaxies
        One row per galaxy.
    """
    names = ("ra", "dec", "flux", "radius", "index", "g1", "g2")
    return Table({name: getattr(galaxies, name) for name in names})


def stars_table(static: StaticSky) -> Table:
    """Return the stars within the image of one exposure, at the time of the exposure.

    Parameters
    ----------
    static
        Stars and galaxies in the exposure.

    Returns
    -------
    stars
        Position [deg, px], flux [nJy], magnitude, charge [electron] and saturation.
    """
    frame, stars = static.frame, static.stars
    ny, nx = frame.shape
    inside = np.flatnonzero((stars.x > -0.5) & (stars.x < nx - 0.5) & (stars.y > -0.5) & (stars.y < ny - 0.5))
    x, y, electrons = stars.x[inside], stars.y[inside], stars.electrons[inside]
    ra, dec = static.wcs.all_pix2world(x, y, 0)
    flux = electrons / frame.electron_per_njy
    fwhm, _, _ = frame.aim.psf.parameters(x, y)
    table = Table({"star": inside, "ra": ra, "dec": dec, "x": x, "y": y, "flux": flux})
    table["mag"] = njy_to_magnitude(flux)
    table["electrons"] = electrons
    table["saturated"] = moffat_peak(electrons, fwhm) > FULL_WELL
    return _with_units(table)


def transients_table(rows: Sequence[Row]) -> Table:
    """Return the transients of one visit.

    Parameters
    ----------
    rows
        One row per event, with a value for each column.

    Returns
    -------
    table
        The table ``transients.ecsv``, with units.
    """
    return _rows_table(rows, _TRANSIENT)


def variables_table(rows: Sequence[Row]) -> Table:
    """Return the variable stars of one visit.

    Parameters
    ----------
    rows
        One row per event, with a value for each column.

    Returns
    -------
    table
        The table ``variables.ecsv``, with units.
    """
    return _rows_table(rows, _VARIABLE)


def moving_table(rows: Sequence[Row]) -> Table:
    """Return the moving objects of one visit.

    Parameters
    ----------
    rows
        One row per event, with a value for each column.

    Returns
    -------
    table
        The table ``moving.ecsv``, with units.
    """
    return _rows_table(rows, _MOVING)


def streaks_table(frame: Frame) -> Table:
    """Return the satellite trails of one exposure.

    Parameters
    ----------
    frame
        The exposure.

    Returns
    -------
    streaks
        Ends [px] and peak; no row if no satellite crossed.
    """
    names = (*_ENDS, "peak")
    streaks = [frame.streak] if frame.streak else []
    return _with_units(Table({name: np.array([getattr(item, name) for item in streaks]) for name in names}))


def _rows_table(rows: Sequence[Row], columns: dict[str, str]) -> Table:
    return _with_units(
        Table({name: np.array([row[name] for row in rows], dtype=kind) for name, kind in columns.items()})
    )


def _with_units(table: Table) -> Table:
    for name in table.colnames:
        if name in _UNITS:
            table[name].unit = Unit(_UNITS[name])
    return table
