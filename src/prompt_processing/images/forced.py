"""Forced photometry at the positions of known objects."""

import numpy as np
from astropy.table import Table
from astropy.wcs import WCS
from numpy.typing import NDArray

from prompt_processing.images.exposure import MaskedImage
from prompt_processing.images.masks import MaskPlane
from prompt_processing.images.photometry import psf_photometry
from prompt_processing.images.psf import PsfModel


def measure_forced(
    difference: MaskedImage,
    science: MaskedImage,
    *,
    difference_psf: PsfModel,
    science_psf: PsfModel,
    wcs: WCS,
    ra: NDArray[np.float64],
    dec: NDArray[np.float64],
) -> Table:
    """Measure fluxes at given positions on the difference and on the science image.

    Parameters
    ----------
    difference, science
        Images on one grid [nJy].
    difference_psf, science_psf
        Their PSFs.
    wcs
        WCS of the grid, origin 0.
    ra, dec
        Positions [deg], shape ``(n,)``.

    Returns
    -------
    table
        One row for each position that is on a pixel with data: ``index`` into the positions, ``psfFlux``,
        ``psfFluxErr`` (difference image), ``scienceFlux``, ``scienceFluxErr`` [nJy]; NaN where no pixel under
        the PSF can be used.
    """
    x, y = wcs.all_world2pix(ra, dec, 0, quiet=True) if len(ra) else (np.empty(0), np.empty(0))
    index = np.nonzero(_on_data(difference, x, y))[0]
    table = Table({"index": index})
    for name, image, psf in (("psf", difference, difference_psf), ("science", science, science_psf)):
        measured = psf_photometry(image, psf, x[index], y[index], free=False)
        table[f"{name}Flux"] = measured["flux"]
        table[f"{name}FluxErr"] = measured["flux_err"]
    return table


def _on_data(image: MaskedImage, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell which places are on a pixel that has data."""
    ny, nx = image.shape
    inside = (x > -0.5) & (x < nx - 0.5) & (y > -0.5) & (y < ny - 0.5)
    found = np.zeros(x.size, dtype=bool)
    columns, rows = np.rint(x[inside]).astype(int), np.rint(y[inside]).astype(int)
    found[inside] = (image.mask[rows, columns] & np.uint16(MaskPlane.NO_DATA)) == 0
    return found
