"""A Butler that holds everything in memory: what a detector-visit starts from, and what is made of it."""

from collections.abc import Iterable
from typing import Any

from lsst.daf.butler import (
    ButlerMetrics,
    DatasetId,
    DatasetProvenance,
    DatasetRef,
    DimensionUniverse,
    LimitedButler,
    StorageClass,
)
from lsst.pipe.base import InMemoryDatasetHandle


class MemoryButler(LimitedButler):
    """Holds datasets in memory, under the ids that their references have.

    A task's outputs are handed to the next task as they are, so a task must not change its inputs: the same
    pipeline run through files would then give something else.

    Parameters
    ----------
    universe
        Dimensions of the references.
    """

    def __init__(self, universe: DimensionUniverse) -> None:
        self._metrics = ButlerMetrics()
        self._universe = universe
        self._handles: dict[DatasetId, InMemoryDatasetHandle] = {}
        self._outputs: dict[DatasetId, DatasetRef] = {}

    @property
    def outputs(self) -> dict[DatasetRef, Any]:
        """Everything that was put, by reference, in the order it was put."""
        return {ref: self._handles[key].inMemoryDataset for key, ref in self._outputs.items()}

    @property
    def dimensions(self) -> DimensionUniverse:
        """The dimension universe."""
        return self._universe

    def isWriteable(self) -> bool:  # noqa: N802 (name of the base class)
        """Return `True`: memory can always be written."""
        return True

    def hold(self, obj: Any, ref: DatasetRef) -> None:
        """Hold an input, which is not one of the `outputs`."""
        self._handles[ref.id] = InMemoryDatasetHandle(
            obj, storageClass=ref.datasetType.storageClass, dataId=ref.dataId
        )

    def put(self, obj: Any, ref: DatasetRef, /, *, provenance: DatasetProvenance | None = None) -> DatasetRef:
        """Hold an output under a resolved reference."""
        del provenance  # written with the file when the dataset is persisted
        self.hold(obj, ref)
        self._outputs[ref.id] = ref
        return ref

    def get(
        self,
        ref: DatasetRef,
        /,
        *,
        parameters: dict[str, Any] | None = None,
        storageClass: StorageClass | str | None = None,  # noqa: N803 (name of the base class)
    ) -> Any:
        """Return the object of a reference, or a component or part of it.

        Raises
        ------
        FileNotFoundError
            If it is not here.
        """
        if ref.id not in self._handles:
            raise FileNotFoundError(f"{ref} is not in memory")
        return self._handles[ref.id].get(
            component=ref.datasetType.component(),
            parameters=parameters,
            storageClass=storageClass or ref.datasetType.storageClass,
        )

    def stored_many(self, refs: Iterable[DatasetRef]) -> dict[DatasetRef, bool]:
        """Tell for each reference whether it is here."""
        return {ref: ref.id in self._handles for ref in refs}

    def stored(self, ref: DatasetRef) -> bool:
        """Tell whether a reference is here."""
        return ref.id in self._handles

    def pruneDatasets(  # noqa: N802 (name of the base class)
        self,
        refs: Iterable[DatasetRef],
        *,
        disassociate: bool = True,
        unstore: bool = False,
        tags: Iterable[str] = (),
        purge: bool = False,
    ) -> None:
        """Forget objects."""
        del disassociate, unstore, tags, purge
        for ref in refs:
            self._handles.pop(ref.id, None)
            self._outputs.pop(ref.id, None)
