"""Products into the central Butler."""

import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from lsst.daf.butler import Butler, CollectionType, DatasetRef, FileDataset
from lsst.daf.butler.registry import ConflictingDefinitionError
from sqlalchemy.exc import SQLAlchemyError

from prompt_processing.delivery.port import Products
from prompt_processing.domain.errors import ConflictError, StoreError
from prompt_processing.execution.persist import write_files
from prompt_processing.instruments.formatters import RawFormatter
from prompt_processing.instruments.ingest import insert_records

_PREFIX: Final = "products-"
_ABANDONED: Final = 86_400.0


class ButlerProducts:
    """A `~prompt_processing.delivery.port.ProductSink` into a Butler repository.

    Files are written into a scratch folder and then linked, or copied, into the repository in one transaction
    with their entries: what is there already is never overwritten.

    Parameters
    ----------
    central
        Writeable central Butler.
    work
        Scratch folder, best on the file system of the repository: then files are linked, not copied.
    """

    def __init__(self, central: Butler, work: Path) -> None:
        self._central = central
        self._work = work
        self._known: set[str] = set()
        _remove_abandoned(work)

    def store(self, products: Products) -> int:
        """Store products; see the port."""
        with _our_errors():
            # Another worker may have stored the first dataset of a type since this Butler has looked.
            self._central.registry.refresh()
            self._register(products)
            where = str(products.raws[0].place) if products.raws else ""
            insert_records(self._central, products.records, where)
            number = self._ingest_raws(products)
            for datasets in (products.init_outputs, products.datasets):
                number += self._store(datasets)
        return number

    def _register(self, products: Products) -> None:
        """Register dataset types and RUN collections that this process has not seen yet."""
        refs = [*products.datasets, *products.init_outputs, *(raw.ref for raw in products.raws)]
        for dataset_type in {ref.datasetType.name: ref.datasetType for ref in refs}.values():
            if dataset_type.name not in self._known:
                self._central.registry.registerDatasetType(dataset_type)
        for run in {ref.run for ref in refs} - self._known:
            self._central.collections.register(run, CollectionType.RUN)
        self._known |= {ref.datasetType.name for ref in refs} | {ref.run for ref in refs}

    def _ingest_raws(self, products: Products) -> int:
        new = [raw for raw in products.raws if self._central.get_dataset(raw.ref.id) is None]
        files = [FileDataset(path=raw.place, refs=[raw.ref], formatter=RawFormatter) for raw in new]
        if files:
            self._central.ingest(*files, transfer="copy", skip_existing=True)
        return len(new)

    def _store(self, datasets: Mapping[DatasetRef, Any]) -> int:
        """Store datasets in one transaction, so that either the last of them is there or none."""
        if not datasets or self._central.get_dataset(next(reversed(datasets)).id) is not None:
            return 0
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self._work))
        try:
            with write_files(datasets, folder, self._central.dimensions) as source:
                self._central.transfer_from(
                    source, datasets, transfer=self._mode(), skip_missing=False, transfer_dimensions=False
                )
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return len(datasets)

    def _mode(self) -> str:
        """Return how files get into the repository: linked if that is on the same file system."""
        roots = [root for root in self._central.get_datastore_roots().values() if root is not None]
        device = self._work.stat().st_dev
        near = all(root.isLocal and Path(root.ospath).stat().st_dev == device for root in roots)
        return "hardlink" if near else "copy"


def _remove_abandoned(work: Path) -> None:
    """Remove what workers that were killed have left in the scratch folder: nobody writes for a whole day."""
    for folder in work.glob(f"{_PREFIX}*"):
        if time.time() - folder.stat().st_mtime > _ABANDONED:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _our_errors() -> Iterator[None]:
    try:
        yield
    except ConflictingDefinitionError as error:
        raise ConflictError(f"central Butler: {error}") from error
    except (OSError, SQLAlchemyError, ExceptionGroup) as error:
        # Files are copied together, so what went wrong with them comes as a group.
        reason = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
        raise StoreError(f"central Butler: {reason}") from error
