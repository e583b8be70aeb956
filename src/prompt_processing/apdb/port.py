"""The Alert Production Database: objects, their sources and their forced photometry."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import pandas as pd
from lsst.sphgeom import Region

from prompt_processing.apdb.tables import KEYS, TableName
from prompt_processing.domain.errors import ConflictError

HISTORY_MONTHS: Final = 12
DAYS_PER_MONTH: Final = 30
"""As dax_apdb counts months."""


@dataclass(frozen=True, slots=True)
class History:
    """What was known of a field before a moment. The tables have all columns of the APDB's schema."""

    objects: pd.DataFrame
    """Objects in the region, each as it stood at that moment; sorted by ``diaObjectId``."""
    sources: pd.DataFrame
    """Their sources; sorted by ``diaSourceId``."""
    forced: pd.DataFrame
    """Their forced sources; sorted by object, visit and detector."""


@dataclass(frozen=True, slots=True)
class LightCurve:
    """All measurements of one object; both tables are sorted by ``midpointMjdTai``."""

    sources: pd.DataFrame
    forced: pd.DataFrame


class Apdb(Protocol):
    """What every APDB can do. All methods raise `StoreError` if the database does not answer."""

    def history(self, region: Region, before: float) -> History:
        """Return what was known of a field before a visit.

        Objects are those inside the region. Measurements are those of these objects, earlier than the visit
        and not older than the history is long; what later visits stored is left out, whenever this is asked.

        Parameters
        ----------
        region
            Field of the visit with its margin (a padded polygon).
        before
            Middle of the visit [MJD, TAI, d].
        """
        ...

    def store(
        self, visit_time: float, objects: pd.DataFrame, sources: pd.DataFrame, forced: pd.DataFrame
    ) -> None:
        """Store the rows of one visit on one detector, in one transaction.

        Rows that are there already are left as they are, so a repeat changes nothing. A version of an object
        is valid from this visit to the next version: a late visit's version goes in between, and never takes
        the place of a newer one. Summaries of objects that this visit outdates (newer versions, and its own
        where another visit was stored meanwhile) are recomputed from all sources in the same transaction.

        Parameters
        ----------
        visit_time
            Middle of the visit [MJD, TAI, d]; becomes ``validityStartMjdTai`` of the objects.
        objects, sources, forced
            New rows. Columns may be left out as `~prompt_processing.apdb.tables.conform` says.

        Raises
        ------
        ConflictError
            If another source or forced source stands under the same key; nothing is stored then.
        RepositoryError
            If a column is wrong or missing; nothing is stored then.
        """
        ...

    def contains(self, visit: int, detector: int) -> bool:
        """Tell whether there is any row of a visit on a detector (a visit may have left none)."""
        ...

    def visit_sources(self, visit: int, detector: int) -> pd.DataFrame:
        """Return the sources of a visit on a detector, sorted by ``diaSourceId``."""
        ...

    def rows(self, table: TableName, begin: float, end: float) -> pd.DataFrame:
        """Return all rows of a span of time, wherever they are on the sky, sorted by their key.

        Parameters
        ----------
        table
            Name of the table. ``DiaObjectLast`` has the newest version of each object.
        begin, end
            First moment of the span and first one after it [MJD, TAI, d], compared with the start of a
            version's validity, or with the middle of a measurement.
        """
        ...

    def light_curve(self, dia_object_id: int) -> LightCurve:
        """Return all measurements of an object, of any age."""
        ...


def inside(objects: pd.DataFrame, region: Region) -> pd.DataFrame:
    """Return the objects that are inside a region, renumbered."""
    if objects.empty:
        return objects
    contained = region.contains(np.radians(objects["ra"].to_numpy()), np.radians(objects["dec"].to_numpy()))
    return objects.loc[np.asarray(contained, dtype=bool)].reset_index(drop=True)


def new_rows(
    table: TableName, rows: Iterable[dict[str, Any]], standing: dict[tuple[Any, ...], dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return the rows that are not stored yet.

    Parameters
    ----------
    table
        Name of the table.
    rows
        Rows to store.
    standing
        Stored rows by the values of their key.

    Raises
    ------
    ConflictError
        If a stored row has the same key and other values, or the same key comes twice.
    """
    seen = dict(standing)
    new = []
    for row in rows:
        key = row_key(table, row)
        old = seen.setdefault(key, row)
        if old is row:
            new.append(row)
            continue
        # What an object's version says may have been recomputed since.
        differing = [] if table == "DiaObject" else [name for name in row if row[name] != old[name]]
        if differing:
            first = differing[0]
            raise ConflictError(
                f"{table} {', '.join(map(str, key))} stands with other values in {len(differing)} columns: "
                f"{first} is {old[first]!r}, not {row[first]!r}"
            )
    return new


def row_key(table: TableName, row: dict[str, Any]) -> tuple[Any, ...]:
    """Return the values that identify a row."""
    return tuple(row[name] for name in KEYS[table])


def time_column(table: TableName) -> str:
    """Return the column that says when a row's visit was: the start of its validity, or its middle."""
    return "validityStartMjdTai" if table in {"DiaObject", "DiaObjectLast"} else "midpointMjdTai"
