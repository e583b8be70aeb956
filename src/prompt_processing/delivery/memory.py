"""Sinks in memory, for tests and for trying things out."""

from collections.abc import Iterable, Sequence

from lsst.daf.butler import Butler, DatasetRef

from prompt_processing.delivery.metrics import VisitMetrics
from prompt_processing.delivery.port import Packet
from prompt_processing.domain.errors import ConflictError, StoreError


class MemoryAlerts:
    """An `~prompt_processing.delivery.port.AlertSink` that keeps alerts in a dictionary."""

    def __init__(self) -> None:
        self.packets: dict[int, bytes] = {}

    def send(self, packets: Sequence[Packet]) -> None:
        """Keep alerts; see the port."""
        for source_id, data in packets:
            if self.packets.setdefault(source_id, data) != data:
                raise ConflictError(f"alert {source_id}: another alert was sent under this id")


class MemoryMetrics:
    """A `~prompt_processing.delivery.port.MetricsSink` that keeps metrics in a dictionary."""

    def __init__(self) -> None:
        self.metrics: dict[tuple[str, int, int], VisitMetrics] = {}

    def send(self, metrics: VisitMetrics) -> None:
        """Keep metrics; see the port."""
        self.metrics[metrics.instrument, metrics.visit, metrics.detector] = metrics


class MemoryProducts:
    """A `~prompt_processing.delivery.port.ProductSink` that keeps datasets in a dictionary."""

    def __init__(self) -> None:
        self.datasets: dict[tuple[str, str, str], object] = {}

    def transfer(self, source: Butler, refs: Iterable[DatasetRef]) -> int:
        """Keep datasets; see the port."""
        new: dict[tuple[str, str, str], object] = {}
        for ref in refs:
            key = ref.datasetType.name, str(ref.dataId), ref.run
            if key in self.datasets:
                continue
            try:
                new[key] = source.get(ref)
            except FileNotFoundError as error:
                raise StoreError(f"{ref}: {error}") from error
        self.datasets |= new
        return len(new)
