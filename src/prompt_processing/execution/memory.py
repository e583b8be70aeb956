"""A Butler that keeps what it is given in memory and reads the rest from another one."""

from collections.abc import Iterable
from typing import Any

from lsst.daf.butler import (
    Butler,
    ButlerMetrics,
    DatasetId,
    DatasetProvenance,
    DatasetRef,
    DimensionUniverse,
    LimitedButler,
    StorageClass,
)


class MemoryButler(LimitedButler):
    """Holds the outputs of a run in memory, under the ids that the quantum graph gave them.

    A task's outputs are handed to the next task as they are, so a task must not change its inputs: the same
    pipeline run through files would then give something else.

    Parameters
    ----------
    source
        Where datasets come from that were not put here.
    """

    def __init__(self, source: Butler) -> None:
        self._metrics = ButlerMetrics()
        self._source = source
        self._objects: dict[DatasetId, Any] = {}
        self._refs: dict[DatasetId, DatasetRef] = {}

    @property
    def outputs(self) -> dict[DatasetRef, Any]:
        """Everything that was put, by reference, in the order it was put."""
        return {self._refs[key]: value for key, value in self._objects.items()}

    @property
    def dimensions(self) -> DimensionUniverse:
        """The dimension universe of the source."""
        return self._source.dimensions

    def isWriteable(self) -> bool:  # noqa: N802 (name of the base class)
        """Return `True`: memory can always be written."""
        return True

    def put(self, obj: Any, ref: DatasetRef, /, *, provenance: DatasetProvenance | None = None) -> DatasetRef:
        """Keep an object under a resolved reference."""
        del provenance  # written with the file when the dataset is persisted
        self._objects[ref.id] = obj
        self._refs[ref.id] = ref
        return ref

    def get(
        self,
        ref: DatasetRef,
        /,
        *,
        parameters: dict[str, Any] | None = None,
        storageClass: StorageClass | str | None = None,  # noqa: N803 (name of the base class)
    ) -> Any:
        """Return the object of a reference, from memory if it is here.

        Raises
        ------
        TypeError
            If a component or a part of an object in memory is asked for: whole objects only.
        """
        if ref.id not in self._objects:
            return self._source.get(ref, parameters=parameters, storageClass=storageClass)
        if ref.isComponent() or parameters:
            raise TypeError(f"only whole datasets can be read from memory, not {ref} with {parameters}")
        return self._objects[ref.id]

    def stored_many(self, refs: Iterable[DatasetRef]) -> dict[DatasetRef, bool]:
        """Tell for each reference whether it can be read."""
        refs = list(refs)
        elsewhere = [ref for ref in refs if ref.id not in self._objects]
        return dict.fromkeys(refs, True) | self._source.stored_many(elsewhere)

    def stored(self, ref: DatasetRef) -> bool:
        """Tell whether a reference can be read."""
        return self.stored_many([ref])[ref]

    def pruneDatasets(  # noqa: N802 (name of the base class)
        self,
        refs: Iterable[DatasetRef],
        *,
        disassociate: bool = True,
        unstore: bool = False,
        tags: Iterable[str] = (),
        purge: bool = False,
    ) -> None:
        """Forget objects that were put here; the source is never changed."""
        del disassociate, unstore, tags, purge
        for ref in refs:
            self._objects.pop(ref.id, None)
            self._refs.pop(ref.id, None)
