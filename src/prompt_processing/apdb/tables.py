"""Columns of the APDB's tables, as its schema has them (``apdb.yaml`` of lsst.sdm.schemas)."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple, get_args

import numpy as np
import pandas as pd
import yaml
from lsst.resources import ResourcePath

from prompt_processing.domain.errors import RepositoryError

SCHEMA_FILE: Final = "resource://lsst.sdm.schemas/apdb.yaml"

TableName = Literal["DiaObject", "DiaSource", "DiaForcedSource", "DiaObjectLast"]

KEYS: Final[dict[TableName, tuple[str, ...]]] = {
    "DiaObject": ("diaObjectId", "validityStartMjdTai"),
    "DiaSource": ("diaSourceId",),
    "DiaForcedSource": ("diaObjectId", "visit", "detector"),
}
"""Columns that identify a row."""

# pandas types for columns that must, and that need not, have a value.
_TYPES: Final[dict[str, tuple[Any, Any]]] = {
    "long": (np.dtype(np.int64), pd.Int64Dtype()),
    "int": (np.dtype(np.int32), pd.Int32Dtype()),
    "short": (np.dtype(np.int16), pd.Int16Dtype()),
    "float": (np.dtype(np.float32), np.dtype(np.float32)),
    "double": (np.dtype(np.float64), np.dtype(np.float64)),
    "boolean": (pd.BooleanDtype(), pd.BooleanDtype()),
    "string": (pd.StringDtype(na_value=np.nan), pd.StringDtype(na_value=np.nan)),
    "char": (pd.StringDtype(na_value=np.nan), pd.StringDtype(na_value=np.nan)),
}
_LARGEST_EXACT: Final = 2**53


class Column(NamedTuple):
    """One column of a table."""

    name: str
    dtype: Any
    """pandas type."""
    required: bool
    """Whether every row must have a value."""


@lru_cache(maxsize=1)
def _schema() -> dict[str, tuple[Column, ...]]:
    # The compiled loader is ten times faster, but not every build of PyYAML has it.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    content = yaml.load(ResourcePath(SCHEMA_FILE).read(), loader)  # noqa: S506 (both loaders are safe)
    return {
        table["name"]: tuple(map(_column, table["columns"]))
        for table in content["tables"]
        if table["name"] in get_args(TableName)
    }


def _column(definition: dict[str, Any]) -> Column:
    required = not definition.get("nullable", True)
    return Column(definition["name"], _TYPES[definition["datatype"]][0 if required else 1], required)


def columns(table: TableName) -> tuple[Column, ...]:
    """Return the columns of a table, in the order of the schema."""
    return _schema()[table]


def empty(table: TableName) -> pd.DataFrame:
    """Return a table with all columns and no rows."""
    return _empty(table).copy()


@lru_cache
def _empty(table: TableName) -> pd.DataFrame:
    return pd.DataFrame({column.name: pd.Series(dtype=column.dtype) for column in columns(table)})


def conform(table: TableName, frame: pd.DataFrame) -> pd.DataFrame:
    """Return rows in exactly the form that the APDB gives them back.

    All columns, in the schema's order and with its types; numbers that the schema keeps in single precision
    are rounded to it. A column that is missing is filled: counts of data points (``...Ndata``) with 0,
    columns that need no value with nothing.

    Parameters
    ----------
    table
        Name of the table.
    frame
        Rows; their labels are dropped.

    Raises
    ------
    RepositoryError
        If a column is not in the schema, lacks a value that it must have, or holds something that the
        column's type cannot; the message names the table and the column.
    """
    known = {column.name for column in columns(table)}
    unknown = [str(name) for name in frame.columns if name not in known]
    if unknown:
        raise RepositoryError(f"{table} has no column {', '.join(unknown)}")
    frame = frame.reset_index(drop=True)
    return pd.DataFrame(
        {column.name: _conform_column(table, column, frame) for column in columns(table)}, index=frame.index
    )


def _conform_column(table: TableName, column: Column, frame: pd.DataFrame) -> pd.Series:
    where = f"{table}.{column.name}"
    if column.name not in frame.columns:
        if column.required and not column.name.endswith("Ndata"):
            raise RepositoryError(f"{where}: the column is missing")
        value = 0 if column.required else None
        return pd.Series([value] * len(frame), dtype=column.dtype, index=frame.index)
    series = frame[column.name]
    if column.required and series.hasnans:
        raise RepositoryError(f"{where}: row {int(series.isna().to_numpy().argmax())} has no value")
    if series.dtype == column.dtype:
        return series
    # An identifier that went through a float may have lost its last digits.
    if (
        column.dtype.name in {"int64", "Int64"}
        and series.dtype.kind == "f"
        and _largest(series) > _LARGEST_EXACT
    ):
        raise RepositoryError(f"{where}: large whole numbers must not be held as {series.dtype}")
    try:
        return series.astype(column.dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise RepositoryError(f"{where}: {error}") from error


def _largest(series: pd.Series) -> float:
    return float(np.nanmax(np.abs(series.to_numpy(dtype=float)), initial=0.0))


def from_rows(table: TableName, rows: Sequence[Sequence[Any]]) -> pd.DataFrame:
    """Return rows of a database as a table in the form that `conform` makes.

    Parameters
    ----------
    table
        Name of the table.
    rows
        Values of all columns in the schema's order, `None` for what is missing.
    """
    if not rows:
        return empty(table)
    found = zip(columns(table), zip(*rows, strict=True), strict=True)
    return pd.DataFrame({column.name: _array(column.dtype, list(items)) for column, items in found})


def _array(dtype: Any, items: list[Any]) -> Any:
    # numpy reads a missing number as NaN, and is much faster where it can be used.
    return np.array(items, dtype=dtype) if isinstance(dtype, np.dtype) else pd.array(items, dtype=dtype)


def values(series: pd.Series) -> list[Any]:
    """Return a column as Python's own values, with `None` for what is missing."""
    found: list[Any]
    if isinstance(series.dtype, pd.api.extensions.ExtensionDtype):
        found = series.array.to_numpy(dtype=object, na_value=None).tolist()
    else:
        found = series.to_numpy().tolist()
        if series.hasnans:
            found = [None if missing else value for value, missing in zip(found, series.isna(), strict=True)]
    return found


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows as dictionaries of Python's own values, with `None` for what is missing."""
    names = [str(name) for name in frame.columns]
    rows = zip(*(values(frame[name]) for name in names), strict=True)
    return [dict(zip(names, row, strict=True)) for row in rows]
