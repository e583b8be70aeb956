"""Where results go: ports for decisions, alerts, metrics and products.

Each effect is safe to repeat: sending again what was sent changes nothing.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from lsst.daf.butler import Butler, DatasetRef

from prompt_processing.delivery.metrics import VisitMetrics
from prompt_processing.domain.decision import Decision
from prompt_processing.domain.visit import DetectorVisitKey

Packet = tuple[int, bytes]
"""``diaSourceId`` and the alert in Confluent wire format."""


class Decisions(Protocol):
    """Keeps decisions: the first one on a visit on a detector stands.

    All methods raise `StoreError` if the store does not answer, and `RepositoryError` if what stands there is
    not a decision.
    """

    def store(self, decision: Decision) -> Decision:
        """Store a decision, and return the one that stands: this one, or one that was stored before."""
        ...

    def find(self, visit: DetectorVisitKey) -> Decision | None:
        """Return the decision on a visit on a detector, or `None` if there is none."""
        ...

    def all(self) -> Iterator[Decision]:
        """Return all decisions, in the order of their keys."""
        ...


class AlertSink(Protocol):
    """Takes alerts."""

    def send(self, packets: Sequence[Packet]) -> None:
        """Send alerts; when it returns they are safe.

        Raises
        ------
        ConflictError
            If another alert was sent under the same ``diaSourceId``.
        StoreError
            If the other side does not answer; some alerts may have been taken.
        """
        ...


class MetricsSink(Protocol):
    """Takes the metrics of a visit on a detector."""

    def send(self, metrics: VisitMetrics) -> None:
        """Send metrics, in place of those sent before for the same visit and detector.

        Raises
        ------
        StoreError
            If the other side does not answer. Metrics must never hurt processing: log it and go on.
        """
        ...


class ProductSink(Protocol):
    """Takes data products."""

    def transfer(self, source: Butler, refs: Iterable[DatasetRef]) -> int:
        """Transfer datasets with all records that they need; all or none.

        A dataset whose type, data id and run are there already is left out, also if it was made by another
        attempt and so has another UUID.

        Parameters
        ----------
        source
            Butler that holds the datasets.
        refs
            References of that Butler.

        Returns
        -------
        number
            Datasets that were transferred now.

        Raises
        ------
        ConflictError
            If a dataset type is another one there.
        StoreError
            If a dataset's file is missing, or a store does not answer.
        """
        ...
