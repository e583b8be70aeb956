"""What stands in the central Butler, and what each pipeline leaves there."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from lsst.daf.butler import Butler, DatasetRef, DatasetType

from prompt_processing.audit.evidence import RAW, Product, ProductType
from prompt_processing.domain import collections
from prompt_processing.execution.graphs import VisitGraph, load_graph
from prompt_processing.preload.preloader import FIELD, HISTORY_TYPES
from prompt_processing.selection.override import Overrides
from prompt_processing.selection.selection import Selection
from prompt_processing.worker.pixels import kept
from prompt_processing.worker.provenance import PROVENANCE

_DIMENSIONS: Final = ("visit", "exposure", "group")


def pipeline_products(
    central: Butler, selection: Selection, overrides: Overrides, instruments: Iterable[str]
) -> dict[str, frozenset[ProductType]]:
    """Return what a detector-visit leaves in the central Butler, by instrument and pipeline.

    Parameters
    ----------
    central
        The central Butler.
    selection, overrides
        Name the pipelines.
    instruments
        Names of the instruments.
    """
    found = {}
    said = selection.files(overrides.pipelines())
    for instrument in instruments:
        for name in {path.stem for path in (*selection.pipelines, *said)}:
            path = selection.named(instrument, name, said)
            if path is not None:
                found[f"{instrument}/{name}"] = frozenset(_made_by(load_graph(path, central)))
    return found


def _made_by(graph: VisitGraph) -> Iterator[ProductType]:
    """Yield what a pipeline leaves: raw, origin, what was preloaded for it alone, and its outputs."""
    yield RAW
    yield ProductType(PROVENANCE, "visit")
    for name in kept(graph) | (graph.inputs.keys() & {*HISTORY_TYPES, FIELD}):
        dimension = _dimension(graph.dataset_type(name))
        if dimension is not None:
            yield ProductType(name, dimension)


def products(
    central: Butler, instruments: Iterable[str], days: Sequence[int]
) -> tuple[dict[Product, tuple[str, ...]], frozenset[Product]]:
    """Return the products of some observing days, with one query for each dataset type and run.

    Parameters
    ----------
    central
        The central Butler.
    instruments
        Names of the instruments.
    days
        Observing days as YYYYMMDD.

    Returns
    -------
    runs
        The runs in which each product stands.
    unreadable
        Products whose file is gone.
    """
    runs: dict[Product, list[str]] = defaultdict(list)
    unreadable: set[Product] = set()
    for instrument in instruments:
        for refs in (*_outputs(central, instrument, days), _raws(central, instrument, days)):
            stored = central.stored_many(refs)
            for ref in refs:
                product = _product(ref)
                runs[product].append(ref.run)
                if not stored[ref]:
                    unreadable.add(product)
    return {product: tuple(found) for product, found in runs.items()}, frozenset(unreadable)


def _outputs(central: Butler, instrument: str, days: Sequence[int]) -> Iterator[list[DatasetRef]]:
    """Yield the datasets of each type and run of the pipelines' outputs."""
    for day in days:
        for run in central.collections.query(collections.outputs(instrument, day, "*", "*", kind="*")):
            summary = central.collections.get_info(run, include_summary=True).dataset_types or ()
            for name in sorted(summary):
                if _dimension(central.get_dataset_type(name)) is not None:
                    yield central.query_datasets(
                        name, collections=run, find_first=False, limit=None, explain=False
                    )


def _raws(central: Butler, instrument: str, days: Sequence[int]) -> list[DatasetRef]:
    run = collections.raws(instrument)
    if not central.collections.query(run):
        return []
    where = f"instrument = '{instrument}' AND exposure.day_obs IN ({', '.join(map(str, days))})"
    return central.query_datasets(
        "raw", collections=run, where=where, find_first=False, limit=None, explain=False
    )


def _dimension(dataset_type: DatasetType) -> str | None:
    """Return what numbers the visit in a type's data ids; `None` if it is of no detector-visit."""
    required = dataset_type.dimensions.required
    return next((name for name in _DIMENSIONS if name in required), None) if "detector" in required else None


def _product(ref: DatasetRef) -> Product:
    dimension = _dimension(ref.datasetType) or ""
    kind = ProductType(ref.datasetType.name, dimension)
    values = ref.dataId.required
    return Product(kind, str(values["instrument"]), values[dimension], int(values["detector"]))
