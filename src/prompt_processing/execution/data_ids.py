"""Data ids of one detector-visit, made from its dimension records without asking a database."""

from collections.abc import Iterable
from typing import Any

from lsst.daf.butler import (
    DataCoordinate,
    DatasetIdGenEnum,
    DatasetRef,
    DatasetType,
    DimensionGroup,
    DimensionRecord,
    DimensionUniverse,
)


class DataIds:
    """Knows the one value of each dimension.

    Parameters
    ----------
    universe
        The dimensions.
    records
        What is known already.
    """

    def __init__(self, universe: DimensionUniverse, records: Iterable[DimensionRecord]) -> None:
        self._universe = universe
        self._records: dict[str, DimensionRecord] = {}
        self._values: dict[str, Any] = {}
        self._made: dict[DimensionGroup, DataCoordinate] = {}
        self.add(records)

    def add(self, records: Iterable[DimensionRecord]) -> None:
        """Add records; of two with one element the first counts, such as the visit of the first snap."""
        for record in records:
            element = record.definition.name
            if element in self._records:
                continue
            self._records[element] = record
            self._values |= {
                key: value for key, value in record.dataId.mapping.items() if key not in self._values
            }
            if element == "physical_filter":
                band = self._universe["band"].RecordClass(name=record.band)
                self._records["band"], self._values["band"] = band, record.band
        self._made.clear()

    @property
    def records(self) -> list[DimensionRecord]:
        """The records that are known."""
        return list(self._records.values())

    @property
    def values(self) -> dict[str, Any]:
        """The value of each dimension that is known."""
        return dict(self._values)

    def make(self, dimensions: DimensionGroup) -> DataCoordinate:
        """Return the data id of some dimensions, with its records.

        Raises
        ------
        KeyError
            If the value of a dimension is not known.
        """
        if dimensions not in self._made:
            required = tuple(self._values[name] for name in dimensions.required)
            self._made[dimensions] = DataCoordinate.from_required_values(dimensions, required).expanded(
                self._records
            )
        return self._made[dimensions]

    def ref(self, dataset_type: DatasetType, run: str) -> DatasetRef:
        """Return the reference of a dataset, with the id that follows from type, data id and run.

        So every attempt at a visit, on any machine, gives a dataset the same id.
        """
        return DatasetRef(
            dataset_type,
            self.make(dataset_type.dimensions),
            run=run,
            id_generation_mode=DatasetIdGenEnum.DATAID_TYPE_RUN,
        )
