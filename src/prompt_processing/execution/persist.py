"""Outputs in memory become files, in a folder from which a Butler can take them over."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from lsst.daf.butler import ButlerConfig, DatasetRef, DimensionUniverse, QuantumBackedButler

from prompt_processing.domain.errors import StoreError
from prompt_processing.instruments.dataset_types import butler_config


@lru_cache
def _defaults() -> ButlerConfig:
    """Return our configuration on top of the middleware's, which takes many small files to read."""
    config = butler_config()
    config["root"] = "."
    return ButlerConfig(config)


@contextmanager
def write_files(
    datasets: Mapping[DatasetRef, Any], folder: Path, universe: DimensionUniverse
) -> Iterator[QuantumBackedButler]:
    """Write datasets into a folder, without a registry.

    Parameters
    ----------
    datasets
        What to write.
    folder
        Where; made if needed.
    universe
        Dimensions of the references.

    Yields
    ------
    butler
        To be given to ``transfer_from`` of another Butler.

    Raises
    ------
    StoreError
        If the files cannot be written, for example because the disk is full.
    """
    config = ButlerConfig(_defaults())
    config["root"] = str(folder)
    butler = QuantumBackedButler.from_predicted(
        config=config,
        predicted_inputs=(),
        predicted_outputs=[ref.id for ref in datasets],
        dimensions=universe,
        datastore_records={},
        dataset_types={ref.datasetType.name: ref.datasetType for ref in datasets},
    )
    try:
        for ref, obj in datasets.items():
            try:
                butler.put(obj, ref)
            except OSError as error:
                raise StoreError(f"{folder}: {ref.datasetType.name} cannot be written: {error}") from error
        yield butler
    finally:
        butler.close()
