"""Sinks in memory, for tests and for trying things out."""

from collections.abc import Iterator, Sequence

from lsst.daf.butler import DatasetId

from prompt_processing.delivery.decision import Decision
from prompt_processing.delivery.metrics import VisitMetrics
from prompt_processing.delivery.port import Packet, Products
from prompt_processing.domain.decision import ENDING
from prompt_processing.domain.errors import ConflictError
from prompt_processing.domain.visit import DetectorVisit


class MemoryDecisions:
    """`~prompt_processing.delivery.port.Decisions` in a dictionary, in their stored form."""

    def __init__(self) -> None:
        self._decisions: dict[str, bytes] = {}

    def store(self, decision: Decision) -> Decision:
        """Keep a decision; see the port."""
        return Decision.from_bytes(self._decisions.setdefault(decision.path, decision.to_bytes()))

    def find(self, visit: DetectorVisit) -> Decision | None:
        """Return a decision; see the port."""
        keys = (f"{path}{ENDING}" for path in visit.paths)
        data = next((self._decisions[key] for key in keys if key in self._decisions), None)
        return None if data is None else Decision.from_bytes(data)

    def all(self) -> Iterator[Decision]:
        """Return all decisions; see the port."""
        for key in sorted(self._decisions):
            yield Decision.from_bytes(self._decisions[key])


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
        self.metrics: dict[tuple[str, str], VisitMetrics] = {}

    def send(self, metrics: VisitMetrics) -> None:
        """Keep metrics; see the port."""
        self.metrics[metrics.instrument, metrics.name] = metrics


class MemoryProducts:
    """A `~prompt_processing.delivery.port.ProductSink` that keeps datasets in a dictionary."""

    def __init__(self) -> None:
        self.datasets: dict[DatasetId, object] = {}

    def store(self, products: Products) -> int:
        """Keep datasets; see the port."""
        given = {ref.id: obj for ref, obj in {**products.init_outputs, **products.datasets}.items()}
        given |= {raw.ref.id: raw.place for raw in products.raws}
        new = {key: obj for key, obj in given.items() if key not in self.datasets}
        self.datasets |= new
        return len(new)
