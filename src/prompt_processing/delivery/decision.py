"""The decision: everything that one visit on one detector changes in the world, as one object.

It is made once and stored before anything else is written. Whoever finishes the visit later stores and sends
what stands there; associating again could give another result, because the APDB may have changed meanwhile.
"""

import io
import zipfile
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
from pydantic import ValidationError

from prompt_processing.domain.decision import FORMAT_VERSION, DecisionInfo, decision_path
from prompt_processing.domain.errors import RepositoryError

TABLES: Final = ("dia_object", "dia_source", "dia_forced_source")

# Columns of Python objects get the type of what they hold: Arrow would guess it anew at each reading.
_OBJECT_TYPES: Final = {"string": "str", "boolean": "boolean", "integer": "Int64", "floating": "float64"}
# The first moment that a zip can hold: a decision must not depend on when it was written.
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """All rows and all packets of one visit on one detector.

    Two decisions are equal when their bytes are. Rows keep their order, their labels are dropped; columns of
    Python objects get the pandas type of what they hold.
    """

    info: DecisionInfo
    dia_object: pd.DataFrame
    """New and changed objects, columns as in the APDB's DiaObject table."""
    dia_source: pd.DataFrame
    """Sources, columns as in the APDB's DiaSource table."""
    dia_forced_source: pd.DataFrame
    """Forced sources, columns as in the APDB's DiaForcedSource table."""
    packets: tuple[tuple[int, bytes], ...] = ()
    """``diaSourceId`` and the alert in Confluent wire format, in the order to send."""

    def __post_init__(self) -> None:
        for name in TABLES:
            object.__setattr__(self, name, _normal(getattr(self, name)))
        object.__setattr__(
            self, "packets", tuple((int(number), bytes(data)) for number, data in self.packets)
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Decision) and self.to_bytes() == other.to_bytes()

    def __hash__(self) -> int:
        return hash(self.info)

    @property
    def path(self) -> str:
        """Key of the object relative to the root of the decisions."""
        info = self.info
        return decision_path(info.instrument, info.day_obs, info.group, info.detector)

    def to_bytes(self) -> bytes:
        """Return the content of the object: the same decision always gives the same bytes.

        It is a zip of ``decision.json``, one Arrow file per table and one file per packet, not compressed:
        the packets are mostly pixels, which do not compress.
        """
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
            _add(archive, "decision.json", self.info.model_dump_json(indent=2).encode() + b"\n")
            for name in TABLES:
                _add(archive, f"{name}.arrow", _table_to_bytes(getattr(self, name)))
            for number, data in self.packets:
                _add(archive, f"packets/{number}.avro", data)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, where: str = "decision") -> "Decision":
        """Read the content of a decision object.

        Parameters
        ----------
        data
            Its content.
        where
            Its key, for the error.

        Raises
        ------
        RepositoryError
            If it is not a decision, or one of a version that this code does not know.
        """
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                info = DecisionInfo.model_validate_json(archive.read("decision.json"))
                if info.format_version != FORMAT_VERSION:
                    raise RepositoryError(
                        f"{where}: decision of format {info.format_version}, not {FORMAT_VERSION}"
                    )
                tables = {name: _table_from_bytes(archive.read(f"{name}.arrow")) for name in TABLES}
                names = [name for name in archive.namelist() if name.startswith("packets/")]
                packets = tuple(
                    (int(name.removeprefix("packets/").removesuffix(".avro")), archive.read(name))
                    for name in names
                )
        except (zipfile.BadZipFile, KeyError, ValueError, ValidationError, pa.ArrowException) as error:
            raise RepositoryError(f"{where}: is not a decision: {error}") from error
        return cls(info=info, packets=packets, **tables)


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, data)


def _normal(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table without row labels, whose columns all survive a trip through Arrow."""
    frame = frame.reset_index(drop=True)
    types: dict[Any, Any] = {
        column: _OBJECT_TYPES.get(pd.api.types.infer_dtype(frame[column], skipna=True), "object")
        for column, dtype in frame.dtypes.items()
        if isinstance(dtype, np.dtype) and dtype.kind == "O"
    }
    return frame.astype(types) if types else frame


def _table_to_bytes(frame: pd.DataFrame) -> bytes:
    table = pa.Table.from_pandas(frame, preserve_index=False)
    buffer = io.BytesIO()
    with pa.ipc.new_file(buffer, table.schema) as writer:
        writer.write_table(table)
    return buffer.getvalue()


def _table_from_bytes(data: bytes) -> pd.DataFrame:
    return pa.ipc.open_file(pa.BufferReader(data)).read_all().to_pandas()
