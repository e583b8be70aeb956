"""The alert archive: one object per alert, in the layout of the observatory's alert database.

``v2/alerts/<first six digits>/<diaSourceId>.avro.gz`` holds the gzipped packet with its wire header,
``v2/schemas/<schema id>.json`` the schema. Identifiers are written as they are. Those of one camera all have
the same number of digits (18 for LATISS until 2088), so that the first six spread the keys evenly.
"""

import gzip
import zlib
from collections.abc import Iterator, Sequence
from typing import Final

from lsst.resources import ResourcePath

from prompt_processing.delivery.packets import AlertSchema, schema_id_of
from prompt_processing.delivery.port import Packet
from prompt_processing.domain.errors import ConflictError, RepositoryError
from prompt_processing.storage import object_store

_ALERTS: Final = "v2/alerts"
_ENDING: Final = ".avro.gz"
# Pixels of noise do not compress: more effort gains nothing.
_LEVEL: Final = 1


class AlertArchive:
    """An `~prompt_processing.delivery.port.AlertSink` that keeps alerts in an object store.

    Parameters
    ----------
    store
        Root of the archive.
    """

    def __init__(self, store: ResourcePath) -> None:
        self._store = store

    def send(self, packets: Sequence[Packet]) -> None:
        """Archive alerts; see the port. Their schemas are archived before them."""
        for schema_id in sorted({schema_id_of(data) for _, data in packets}):
            text = AlertSchema.load(schema_id).text.encode()
            object_store.create(object_store.child(self._store, schema_key(schema_id)), text)
        for source_id, data in packets:
            place = object_store.child(self._store, alert_key(source_id))
            if object_store.create(place, gzip.compress(data, _LEVEL, mtime=0)):
                continue
            if self.read(source_id) != data:
                raise ConflictError(f"{place}: another alert is archived under this id")

    def read(self, source_id: int) -> bytes:
        """Return the packet of an alert, with its wire header.

        Raises
        ------
        RepositoryError
            If there is no such alert, or its object is damaged.
        """
        place = object_store.child(self._store, alert_key(source_id))
        data = object_store.read(place)
        if data is None:
            raise RepositoryError(f"{place}: there is no such alert")
        try:
            return gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise RepositoryError(f"{place}: damaged: {error}") from error

    def ids(self) -> Iterator[int]:
        """Return the identifiers of all alerts, in the order of their keys."""
        for key in object_store.list_after(object_store.child(self._store, _ALERTS)):
            name = key.rpartition("/")[2]
            if name.endswith(_ENDING) and name.removesuffix(_ENDING).isdecimal():
                yield int(name.removesuffix(_ENDING))


def alert_key(source_id: int) -> str:
    """Return the key of an alert in the archive."""
    return f"{_ALERTS}/{str(source_id)[:6]}/{source_id}{_ENDING}"


def schema_key(schema_id: int) -> str:
    """Return the key of a schema in the archive."""
    return f"v2/schemas/{schema_id}.json"
