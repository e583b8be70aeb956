"""The APDB in an SQL database, with the tables of ``lsst.dax.apdb``.

The tables are made, opened and checked by ``ApdbSql``, and its readers work on them. Rows are stored and read
here, because the stock methods cannot keep what is promised: ``store`` makes whatever comes last the newest
version of an object, fails on a repeat, and its history has no end in time.
"""

from collections.abc import Iterable, Iterator
from itertools import batched
from pathlib import Path
from typing import Any, Final

import pandas as pd
from lsst.dax.apdb import ApdbSql, ApdbSqlConfig, IncompatibleVersionError
from lsst.sphgeom import LonLat, Region, UnitVector3d
from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    MetaData,
    Select,
    Table,
    and_,
    bindparam,
    literal,
    make_url,
    or_,
    select,
)
from sqlalchemy.exc import DBAPIError, NoSuchTableError

from prompt_processing.apdb.port import (
    DAYS_PER_MONTH,
    HISTORY_MONTHS,
    History,
    LightCurve,
    inside,
    new_rows,
    row_key,
    time_column,
)
from prompt_processing.apdb.summaries import outdated, recomputed
from prompt_processing.apdb.tables import KEYS, TableName, columns, conform, from_rows, records
from prompt_processing.domain.errors import RepositoryError, StoreError
from prompt_processing.storage import database

_IDS_PER_QUERY: Final = 1000
_TABLES: Final[tuple[TableName, ...]] = ("DiaObject", "DiaObjectLast", "DiaSource", "DiaForcedSource")


def init(url: str) -> None:
    """Make the tables of an empty APDB.

    Parameters
    ----------
    url
        SQLAlchemy URL. The folder of an SQLite file is made if needed.

    Raises
    ------
    RepositoryError
        If the SQLite file exists already.
    StoreError
        If the database does not answer.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        if Path(parsed.database).exists():
            raise RepositoryError(f"{parsed.database}: exists already")
    try:
        ApdbSql.init_database(url, dia_object_index="last_object_table")
    except DBAPIError as error:
        raise StoreError(f"APDB: {error.orig}") from error


class SqlApdb:
    """An `~prompt_processing.apdb.port.Apdb` in SQLite or PostgreSQL.

    Parameters
    ----------
    url
        SQLAlchemy URL of a database that `init` has prepared.
    months
        Length of the history [months of 30 days].
    engine
        Engine to use instead of one made from ``url``.

    Raises
    ------
    RepositoryError
        If there is no APDB, or it is of a version that the installed dax_apdb cannot use.
    StoreError
        If the database does not answer.
    """

    def __init__(self, url: str, *, months: int = HISTORY_MONTHS, engine: Engine | None = None) -> None:
        shown = make_url(url).render_as_string()
        try:
            stock = ApdbSql(ApdbSqlConfig(db_url=url))
        except (NoSuchTableError, IncompatibleVersionError, RuntimeError) as error:
            raise RepositoryError(f"{shown}: is not a usable APDB: {error}") from error
        except DBAPIError as error:
            if "unable to open database file" in str(error.orig):
                raise RepositoryError(f"{shown}: there is no APDB") from error
            raise StoreError(f"APDB: {error.orig}") from error
        if stock.config.dia_object_index != "last_object_table" or stock.config.enable_replica:
            raise RepositoryError(f"{shown}: the APDB must have a last-object table and no replica tables")
        self._days = months * DAYS_PER_MONTH
        self._pixels = stock.pixelator
        self._max_ranges = stock.config.pixelization.htm_max_ranges
        self._pixel_column = stock.config.pixelization.htm_index_column
        self._engine = engine or database.engine(url)
        metadata = MetaData(schema=stock.config.namespace)
        with database.reading(self._engine, "APDB") as connection:
            self._tables = {
                name: Table(stock.config.prefix + name, metadata, autoload_with=connection)
                for name in _TABLES
            }

    def history(self, region: Region, before: float) -> History:
        """Return what was known of a field before a visit; see the port."""
        objects = self._tables["DiaObject"].c
        last = self._tables["DiaObjectLast"].c
        # Only the last-object table is searched by position: the others hold many rows for each object.
        nearby = self._nearby(last[self._pixel_column], region)
        same_version = and_(
            objects.diaObjectId == last.diaObjectId, objects.validityStartMjdTai == last.validityStartMjdTai
        )
        current = self._select("DiaObject").where(nearby, same_version, objects.validityStartMjdTai < before)
        newer = select(last.diaObjectId).where(nearby, last.validityStartMjdTai >= before)
        at_that_time = and_(
            objects.validityStartMjdTai < before,
            or_(objects.validityEndMjdTai.is_(None), objects.validityEndMjdTai >= before),
        )
        older = self._select("DiaObject").where(objects.diaObjectId.in_(newer), at_that_time)
        with database.reading(self._engine, "APDB: history") as connection:
            rows = [*connection.execute(current), *connection.execute(older)]
            found = inside(from_rows("DiaObject", rows), region)
            sources = self._measurements(connection, "DiaSource", nearby, before)
            forced = self._measurements(connection, "DiaForcedSource", nearby, before)
        known = set(found["diaObjectId"])
        return History(
            objects=found.sort_values("diaObjectId", ignore_index=True),
            sources=_of_objects(sources, known),
            forced=_of_objects(forced, known),
        )

    def store(
        self, visit_time: float, objects: pd.DataFrame, sources: pd.DataFrame, forced: pd.DataFrame
    ) -> None:
        """Store the rows of one visit on one detector; see the port."""
        versions = objects.assign(validityStartMjdTai=visit_time, validityEndMjdTai=float("nan"))
        object_rows = self._with_pixels(records(conform("DiaObject", versions)))
        source_rows = self._with_pixels(records(conform("DiaSource", sources)))
        forced_rows = records(conform("DiaForcedSource", forced))
        with database.writing(self._engine, "APDB: store") as connection:
            new = self._insert(connection, "DiaSource", source_rows)
            new += self._insert(connection, "DiaForcedSource", forced_rows)
            self._insert_versions(connection, object_rows, visit_time)
            if not new:
                return
            measured = {row["diaObjectId"] for row in [*object_rows, *forced_rows]}
            self._renew_summaries(connection, measured, visit_time)

    def contains(self, visit: int, detector: int) -> bool:
        """Tell whether there is any row of a visit on a detector; see the port."""
        names: tuple[TableName, ...] = ("DiaSource", "DiaForcedSource")
        tables = [self._tables[name].c for name in names]
        with database.reading(self._engine, "APDB: contains") as connection:
            return any(
                connection.execute(
                    select(literal(1)).where(table.visit == visit, table.detector == detector).limit(1)
                ).first()
                for table in tables
            )

    def visit_sources(self, visit: int, detector: int) -> pd.DataFrame:
        """Return the sources of a visit on a detector; see the port."""
        table = self._tables["DiaSource"].c
        query = self._select("DiaSource").where(table.visit == visit, table.detector == detector)
        with database.reading(self._engine, "APDB: sources") as connection:
            rows = connection.execute(query.order_by(table.diaSourceId)).all()
        return from_rows("DiaSource", rows)

    def rows(self, table: TableName, begin: float, end: float) -> pd.DataFrame:
        """Return all rows of a span of time; see the port."""
        found = self._tables[table].c
        time = found[time_column(table)]
        query = self._select(table).where(time >= begin, time < end)
        order = (found[name] for name in KEYS.get(table, KEYS["DiaObject"]))
        with database.reading(self._engine, "APDB: rows") as connection:
            return from_rows(table, connection.execute(query.order_by(*order)).all())

    def light_curve(self, dia_object_id: int) -> LightCurve:
        """Return all measurements of an object; see the port."""
        with database.reading(self._engine, "APDB: light curve") as connection:

            def of(name: TableName) -> pd.DataFrame:
                table = self._tables[name].c
                query = self._select(name).where(table.diaObjectId == dia_object_id)
                order = (table.midpointMjdTai, *(table[key] for key in KEYS[name]))
                return from_rows(name, connection.execute(query.order_by(*order)).all())

            return LightCurve(sources=of("DiaSource"), forced=of("DiaForcedSource"))

    def _select(self, name: TableName) -> Select[Any]:
        """Return a query for the columns of the schema, without those that only this database has."""
        return select(*(self._tables[name].c[column.name] for column in columns(name)))

    def _nearby(self, pixel: ColumnElement[int], region: Region) -> ColumnElement[bool]:
        """Return the condition that a row's pixel touches a region."""
        ranges = self._pixels.envelope(region, self._max_ranges).ranges()
        return or_(False, *(pixel.between(first, end - 1) for first, end in ranges))

    def _measurements(
        self, connection: Connection, name: TableName, nearby: ColumnElement[bool], before: float
    ) -> pd.DataFrame:
        table, last = self._tables[name].c, self._tables["DiaObjectLast"].c
        query = (
            self._select(name)
            .where(nearby, table.diaObjectId == last.diaObjectId)
            .where(table.midpointMjdTai < before, table.midpointMjdTai >= before - self._days)
            .order_by(*(table[key] for key in KEYS[name]))
        )
        return from_rows(name, connection.execute(query).all())

    def _with_pixels(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for row in rows:
            direction = UnitVector3d(LonLat.fromDegrees(row["ra"], row["dec"]))
            row[self._pixel_column] = self._pixels.index(direction)
        return rows

    def _insert(self, connection: Connection, name: TableName, rows: list[dict[str, Any]]) -> int:
        """Insert the rows that are not there yet, and return how many they were."""
        table = self._tables[name]
        standing: dict[tuple[Any, ...], dict[str, Any]] = {}
        visits = {row["visit"] for row in rows}
        for query in self._by_ids(select(table), name, rows):
            # Only forced sources can have rows of other visits under the same first key.
            limited = query.where(table.c.visit.in_(visits)) if name == "DiaForcedSource" else query
            standing |= self._by_key(connection, name, limited)
        new = new_rows(name, rows, standing)
        if new:
            connection.execute(table.insert(), new)
        return len(new)

    def _insert_versions(self, connection: Connection, rows: list[dict[str, Any]], visit_time: float) -> None:
        """Insert versions of objects, each with its end, and keep the newest in the last-object table."""
        table, last = self._tables["DiaObject"], self._tables["DiaObjectLast"]
        standing: dict[tuple[Any, ...], dict[str, Any]] = {}
        starts: dict[int, list[float]] = {}
        for query in self._by_ids(select(table), "DiaObject", rows):
            at_this_time = query.where(table.c.validityStartMjdTai == visit_time)
            standing |= self._by_key(connection, "DiaObject", at_this_time)
        key = [table.c[name] for name in KEYS["DiaObject"]]
        for query in self._by_ids(select(*key), "DiaObject", rows):
            # One order for all, or two visits could wait for each other's locks. The statement that waited
            # for a lock does not see the rows that its holder inserted; the next one does.
            connection.execute(query.order_by(*key).with_for_update()).all()
            for object_id, start in connection.execute(query):
                starts.setdefault(object_id, []).append(start)
        new = new_rows("DiaObject", rows, standing)
        if not new:
            return
        newest, shortened = [], []
        for row in new:
            others = starts.get(row["diaObjectId"], [])
            row["validityEndMjdTai"] = min((start for start in others if start > visit_time), default=None)
            earlier = max((start for start in others if start < visit_time), default=None)
            if earlier is not None:
                shortened.append({"object": row["diaObjectId"], "start": earlier})
            if row["validityEndMjdTai"] is None:
                newest.append(row)
        if shortened:
            connection.execute(
                table.update()
                .where(
                    table.c.diaObjectId == bindparam("object"),
                    table.c.validityStartMjdTai == bindparam("start"),
                )
                .values(validityEndMjdTai=visit_time),
                shortened,
            )
        connection.execute(table.insert(), new)
        if newest:
            names = [column.name for column in last.c]
            connection.execute(
                last.delete().where(last.c.diaObjectId == bindparam("object")),
                [{"object": row["diaObjectId"]} for row in newest],
            )
            connection.execute(last.insert(), [{name: row[name] for name in names} for row in newest])

    def _renew_summaries(self, connection: Connection, measured: set[int], visit_time: float) -> None:
        """Recompute the summaries that this visit has outdated, from this visit's versions on."""
        table, last = self._tables["DiaObject"], self._tables["DiaObjectLast"]
        for ids in batched(sorted(measured), _IDS_PER_QUERY):
            of_ids = and_(table.c.diaObjectId.in_(ids), table.c.validityStartMjdTai >= visit_time)
            versions = [dict(row) for row in connection.execute(select(table).where(of_ids)).mappings()]
            found = [row["diaObjectId"] for row in versions]
            sources = self._all_of(connection, "DiaSource", found)
            old = outdated(versions, sources, visit_time, self._days)
            if not old:
                continue
            forced = self._all_of(connection, "DiaForcedSource", [row["diaObjectId"] for row in old])
            for version in self._with_pixels([recomputed(row, sources, forced, self._days) for row in old]):
                key = and_(*(table.c[name] == version[name] for name in KEYS["DiaObject"]))
                connection.execute(table.update().where(key).values(version))
                key = and_(*(last.c[name] == version[name] for name in KEYS["DiaObject"]))
                columns_of_last = {column.name: version[column.name] for column in last.c}
                connection.execute(last.update().where(key).values(columns_of_last))

    def _all_of(self, connection: Connection, name: TableName, object_ids: list[int]) -> pd.DataFrame:
        """Return all measurements of some objects."""
        query = self._select(name).where(self._tables[name].c.diaObjectId.in_(object_ids))
        return from_rows(name, connection.execute(query).all())

    def _by_ids(
        self, query: Select[Any], name: TableName, rows: Iterable[dict[str, Any]]
    ) -> Iterator[Select[Any]]:
        """Limit a query to the first key of rows, in parts that a database can take."""
        first = KEYS[name][0]
        for ids in batched(sorted({row[first] for row in rows}), _IDS_PER_QUERY):
            yield query.where(self._tables[name].c[first].in_(ids))

    def _by_key(
        self, connection: Connection, name: TableName, query: Select[Any]
    ) -> dict[tuple[Any, ...], dict[str, Any]]:
        """Return stored rows by their key, with values as `conform` makes them."""
        found = connection.execute(query).mappings().all()
        if not found:
            return {}
        names = [column.name for column in columns(name)]
        rows = records(from_rows(name, [[row[column] for column in names] for row in found]))
        for row, stored in zip(rows, found, strict=True):
            if self._pixel_column in stored:
                row[self._pixel_column] = stored[self._pixel_column]
        return {row_key(name, row): row for row in rows}


def _of_objects(measurements: pd.DataFrame, known: set[int]) -> pd.DataFrame:
    return measurements[measurements["diaObjectId"].isin(known)].reset_index(drop=True)
