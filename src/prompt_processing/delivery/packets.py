"""Alert packets: Avro by the schemas of ``lsst.alert.packet``, in Confluent wire format."""

import io
import json
import struct
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Final

import fastavro
import pandas as pd
from lsst.alert.packet import Schema, get_schema_uri

from prompt_processing.apdb.port import History
from prompt_processing.apdb.tables import conform, values
from prompt_processing.delivery.cutouts import cutout_sizes, make_cutouts
from prompt_processing.domain.errors import RepositoryError
from prompt_processing.images.exposure import Exposure

_PREFIX: Final = struct.Struct(">bI")


@dataclass(frozen=True)
class AlertSchema:
    """One version of the alert schema, parsed once."""

    schema_id: int
    """Its number in the schema registry: major version and two digits of the minor version."""
    definition: dict[str, Any]

    @classmethod
    @lru_cache
    def load(cls, schema_id: int | None = None) -> "AlertSchema":
        """Return a schema that comes with ``lsst.alert.packet``.

        Parameters
        ----------
        schema_id
            Its number, for example 1101 for version 11.1; the newest when omitted.

        Raises
        ------
        RepositoryError
            If there is no such schema.
        """
        if schema_id is None:
            schema = Schema.from_uri()
        else:
            major, minor = divmod(schema_id, 100)
            file = get_schema_uri(major, minor).join(f"lsst.v{major}_{minor}.alert.avsc")
            if not file.exists():
                raise RepositoryError(f"alert schema {schema_id}: version {major}.{minor} is not installed")
            schema = Schema.from_uri(file)
        return cls(schema.get_schema_id(), schema.definition)

    @cached_property
    def text(self) -> str:
        """The schema as a registry keeps it: JSON without spaces."""
        plain = {name: value for name, value in self.definition.items() if not name.startswith("__")}
        return json.dumps(plain, separators=(",", ":"))

    def record_fields(self, name: str) -> tuple[tuple[str, bool], ...]:
        """Return the fields of a record by its short name, each with whether it may be null."""
        record = self.definition["__named_schemas"][f"{self.definition['name'].rpartition('.')[0]}.{name}"]
        return tuple((field["name"], "null" in field["type"]) for field in record["fields"])

    def _branch(self, name: str) -> str | None:
        """Return the branch of a field that may be null, or `None` if the field is no union."""
        kind = self._kinds[name]
        if not isinstance(kind, list):
            return None
        branch = next(branch for branch in kind if branch != "null")
        if isinstance(branch, dict):
            return str(branch["name"] if branch["type"] == "record" else branch["type"])
        return str(branch)

    @cached_property
    def _kinds(self) -> dict[str, Any]:
        """Type of each field of an alert."""
        return {field["name"]: field["type"] for field in self.definition["fields"]}

    def encode(self, alert: dict[str, Any]) -> bytes:
        """Return an alert in Confluent wire format: a zero byte, the schema's number and plain Avro."""
        buffer = io.BytesIO()
        buffer.write(_PREFIX.pack(0, self.schema_id))
        # Told the branch of a union, fastavro need not try all records of a history against each branch.
        branches = {
            name: self._branch(name) for name, value in alert.items() if isinstance(value, list | dict)
        }
        named = {name: (branch, alert[name]) for name, branch in branches.items() if branch is not None}
        fastavro.schemaless_writer(buffer, self.definition, alert | named)
        return buffer.getvalue()


def schema_id_of(packet: bytes) -> int:
    """Return the number of the schema that a packet was written with.

    Raises
    ------
    RepositoryError
        If it is not in Confluent wire format.
    """
    if len(packet) < _PREFIX.size or packet[0] != 0:
        raise RepositoryError(f"alert packet of {len(packet)} bytes is not in Confluent wire format")
    number: int = _PREFIX.unpack_from(packet)[1]
    return number


def decode(packet: bytes) -> dict[str, Any]:
    """Return the alert in a packet.

    Raises
    ------
    RepositoryError
        If it is not in Confluent wire format, its schema is not known, or it does not follow the schema.
    """
    schema = AlertSchema.load(schema_id_of(packet))
    try:
        alert = fastavro.schemaless_reader(io.BytesIO(packet[_PREFIX.size :]), schema.definition)
    except (EOFError, ValueError, IndexError, struct.error) as error:
        raise RepositoryError(f"alert packet does not follow schema {schema.schema_id}: {error}") from error
    if not isinstance(alert, dict):
        raise RepositoryError(f"alert packet of schema {schema.schema_id} is not a record")
    return alert


@dataclass(frozen=True, slots=True)
class AlertImages:
    """The images that cutouts are made of, all on one grid of pixels, in nJy."""

    difference: Exposure
    science: Exposure
    template: Exposure


def build_packets(
    *,
    visit_time: float,
    sources: pd.DataFrame,
    objects: pd.DataFrame,
    forced: pd.DataFrame,
    history: History,
    images: AlertImages,
    schema: AlertSchema,
) -> list[tuple[int, bytes]]:
    """Make one alert for every source of a visit on a detector.

    Parameters
    ----------
    visit_time
        Middle of the visit [MJD, TAI, d].
    sources, objects, forced
        What the visit adds to the APDB, in the form that the APDB takes; every source must belong to one
        of the objects. Alerts tell exactly what the APDB will hold.
    history
        What the APDB held before: the previous sources of the object go into ``prvDiaSources``, its forced
        sources, followed by that of this visit, into ``prvDiaForcedSources``.
    images
        Images for the cutouts; positions are the columns ``x`` and ``y``, sizes follow ``bboxSize``.
    schema
        Schema to write.

    Returns
    -------
    packets
        ``diaSourceId`` and packet of each source, in the order of ``sources``.

    Raises
    ------
    RepositoryError
        If a column is wrong or missing, or a source's object is.
    """
    sources = conform("DiaSource", sources)
    if sources.empty:
        return []
    versions = conform("DiaObject", objects.assign(validityStartMjdTai=visit_time))
    object_ids = set(sources["diaObjectId"].dropna())
    object_records = {row["diaObjectId"]: row for row in _records(schema, "diaObject", versions)}
    lost = object_ids - object_records.keys()
    if lost or sources["diaObjectId"].isna().any():
        raise RepositoryError(f"alerts: {len(lost) or 'some'} sources belong to no object of the visit")
    previous = _by_object(schema, "diaSource", history.sources, object_ids)
    all_forced = pd.concat([history.forced, conform("DiaForcedSource", forced)], ignore_index=True)
    previous_forced = _by_object(schema, "diaForcedSource", all_forced, object_ids)
    cutouts = {
        name: make_cutouts(image, sources["x"], sources["y"], cutout_sizes(sources["bboxSize"]))
        for name, image in (
            ("cutoutDifference", images.difference),
            ("cutoutScience", images.science),
            ("cutoutTemplate", images.template),
        )
    }
    packets = []
    for index, record in enumerate(_records(schema, "diaSource", sources)):
        alert = {
            "diaSourceId": record["diaSourceId"],
            "diaSource": record,
            "prvDiaSources": previous.get(record["diaObjectId"]),
            "prvDiaForcedSources": previous_forced.get(record["diaObjectId"]),
            "diaObject": object_records[record["diaObjectId"]],
            **{name: made[index] for name, made in cutouts.items()},
        }
        packets.append((record["diaSourceId"], schema.encode(alert)))
    return packets


def _records(schema: AlertSchema, name: str, frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows as records of a schema: its fields only, missing values as null.

    Raises
    ------
    RepositoryError
        If a field that must have a value has none.
    """
    fields = schema.record_fields(name)
    columns: list[list[Any]] = []
    for field, nullable in fields:
        column = values(frame[field]) if field in frame.columns else [None] * len(frame)
        if not nullable and None in column:
            raise RepositoryError(f"alerts: {name}.{field} has no value in row {column.index(None)}")
        columns.append(column)
    names = [field for field, _ in fields]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _by_object(
    schema: AlertSchema, name: str, frame: pd.DataFrame, object_ids: set[int]
) -> dict[int, list[dict[str, Any]]]:
    """Return the records of some objects' measurements, each in order of time."""
    wanted = frame[frame["diaObjectId"].isin(object_ids)]
    grouped: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for record in _records(schema, name, wanted.sort_values("midpointMjdTai", kind="stable")):
        grouped[record["diaObjectId"]].append(record)
    return dict(grouped)
