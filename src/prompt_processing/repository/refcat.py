"""A reference catalogue, cut into shards of the sky."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
from astropy.table import Table
from lsst.daf.butler import CollectionType
from lsst.sphgeom import HtmPixelization, LonLat, UnitVector3d

from prompt_processing.domain import collections
from prompt_processing.domain.errors import RepositoryError
from prompt_processing.repository.central import open_central

_HTM: Final = HtmPixelization(7)
REQUIRED: Final = ("id", "ra", "dec")


def ingest_refcat(repo: Path, file: Path, *, progress: Callable[[str, int, int], None]) -> int:
    """Ingest a reference catalogue; the same file again changes nothing.

    Where two catalogues cover one part of the sky, the one that was ingested last is used.

    Parameters
    ----------
    repo
        Folder of the repository.
    file
        Table that astropy reads (ECSV, FITS, Parquet ...) with the columns ``id``, ``ra``, ``dec`` [deg,
        ICRS], at least one ``<band>_mag`` [AB mag] with ``<band>_magErr``, and optionally ``pm_ra`` (with the
        factor cos dec), ``pm_dec`` [mas/yr]; the metadata may hold ``epoch``, a Julian year.
    progress
        Called with the stage, the shards that are done and their number.

    Returns
    -------
    number
        Number of sources in the catalogue.

    Raises
    ------
    RepositoryError
        If there is no repository, or the file is not such a table; the message names the column.
    """
    catalogue = read_refcat(file)
    points = [
        UnitVector3d(LonLat.fromDegrees(float(row["ra"]), float(row["dec"])))
        for row in catalogue["ra", "dec"]
    ]
    shard = np.array([_HTM.index(point) for point in points])
    run = collections.version_run(collections.REFCATS, collections.fingerprint(file.read_bytes().hex()))
    with open_central(repo) as butler:
        butler.collections.register(run, CollectionType.RUN)
        indices = np.unique(shard)
        for done, index in enumerate(indices):
            progress("reference catalogue", done, len(indices))
            data_id = {"htm7": int(index)}
            if butler.find_dataset("refcat", data_id, collections=run) is None:
                butler.put(catalogue[shard == index], "refcat", data_id, run=run)
        progress("reference catalogue", len(indices), len(indices))
        butler.collections.prepend_chain(collections.REFCATS, run)
    return len(catalogue)


def read_refcat(file: Path) -> Table:
    """Read and check a reference catalogue.

    Raises
    ------
    RepositoryError
        If it cannot be read, lacks a column, or has a position that is not on the sky.
    """
    try:
        catalogue = Table.read(file)
    except Exception as error:  # astropy's readers raise errors of every kind
        raise RepositoryError(f"{file}: not a table that can be read ({error})") from error
    absent = [name for name in REQUIRED if name not in catalogue.colnames]
    bands = [name for name in catalogue.colnames if name.endswith("_mag")]
    if not bands:
        absent.append("<band>_mag")
    absent += [f"{name}Err" for name in bands if f"{name}Err" not in catalogue.colnames]
    if absent:
        raise RepositoryError(f"{file}: column {', '.join(absent)} is missing")
    ra, dec = np.asarray(catalogue["ra"], dtype=float), np.asarray(catalogue["dec"], dtype=float)
    wrong = ~(np.isfinite(ra) & np.isfinite(dec) & (np.abs(dec) <= 90))
    if wrong.any():
        row = int(wrong.argmax())
        raise RepositoryError(f"{file}: row {row}: ra {ra[row]}, dec {dec[row]} is not a position on the sky")
    return catalogue
