"""Products into the central Butler."""

from collections import defaultdict
from collections.abc import Iterable

from lsst.daf.butler import Butler, CollectionType, DatasetRef, MissingCollectionError
from lsst.daf.butler.registry import ConflictingDefinitionError
from sqlalchemy.exc import SQLAlchemyError

from prompt_processing.domain.errors import ConflictError, StoreError


class ButlerProducts:
    """A `~prompt_processing.delivery.port.ProductSink` into a Butler repository.

    Parameters
    ----------
    central
        Writeable central Butler.
    chain
        CHAINED collection in which the products can be found; their runs are put at its front.
    """

    def __init__(self, central: Butler, chain: str | None = None) -> None:
        self._central = central
        self._chain = chain

    def transfer(self, source: Butler, refs: Iterable[DatasetRef]) -> int:
        """Transfer datasets; see the port."""
        try:
            # Another worker may have stored the first dataset of a type since this Butler has looked.
            self._central.registry.refresh()
            new = self._missing(list(refs))
            if not new:
                return 0
            self._central.transfer_from(
                source,
                new,
                transfer="copy",
                skip_missing=False,
                register_dataset_types=True,
                transfer_dimensions=True,
            )
            self._extend_chain(sorted({ref.run for ref in new}))
        except ConflictingDefinitionError as error:
            raise ConflictError(f"central Butler: {error}") from error
        except (OSError, SQLAlchemyError, ExceptionGroup) as error:
            # Files are copied together, so what went wrong with them comes as a group.
            reason = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
            raise StoreError(f"central Butler: {reason}") from error
        return len(new)

    def _missing(self, refs: list[DatasetRef]) -> list[DatasetRef]:
        """Return the datasets whose type, data id and run the central Butler does not hold."""
        by_run: dict[str, list[DatasetRef]] = defaultdict(list)
        for ref in refs:
            by_run[ref.run].append(ref)
        return [ref for run, members in by_run.items() for ref in self._missing_in(run, members)]

    def _missing_in(self, run: str, refs: list[DatasetRef]) -> list[DatasetRef]:
        try:
            self._central.collections.get_info(run)
        except MissingCollectionError:
            return refs
        known = {known.name for known in self._central.registry.queryDatasetTypes()}
        return [
            ref
            for ref in refs
            if ref.datasetType.name not in known
            or self._central.find_dataset(ref.datasetType.name, ref.dataId, collections=run) is None
        ]

    def _extend_chain(self, runs: list[str]) -> None:
        if self._chain is None:
            return
        collections = self._central.collections
        collections.register(self._chain, CollectionType.CHAINED)
        present = set(collections.get_info(self._chain).children)
        absent = [run for run in runs if run not in present]
        if absent:
            collections.prepend_chain(self._chain, absent)
