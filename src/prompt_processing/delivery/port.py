"""Where results go: ports for decisions, alerts, metrics and products.

Each effect is safe to repeat: sending again what was sent changes nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from lsst.daf.butler import DatasetRef, DimensionRecord
from lsst.resources import ResourcePath

from prompt_processing.delivery.decision import Decision
from prompt_processing.delivery.metrics import VisitMetrics
from prompt_processing.domain.visit import DetectorVisit

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

    def find(self, visit: DetectorVisit) -> Decision | None:
        """Return the decision on a visit on a detector, or `None` if there is none.

        Looks under each of `DetectorVisit.paths`.
        """
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
            If the other side does not answer. Metrics never hurt processing: they are left to the relay.
        """
        ...


@dataclass(frozen=True, slots=True)
class RawFile:
    """A raw in the landing store that belongs to the products of a visit."""

    place: ResourcePath
    ref: DatasetRef


@dataclass(frozen=True, slots=True)
class Products:
    """What a detector-visit leaves in the central Butler."""

    datasets: Mapping[DatasetRef, Any]
    """Images, tables, metadata and logs in memory, all of one RUN collection. The ids follow from data id and
    run, so they are the same in every attempt."""
    init_outputs: Mapping[DatasetRef, Any]
    """Configurations and package versions, which a RUN collection holds once."""
    raws: Sequence[RawFile]
    """The raws."""
    records: Sequence[DimensionRecord]
    """Dimension records of exposures and visits, in order of insertion."""


class ProductSink(Protocol):
    """Takes data products."""

    def store(self, products: Products) -> int:
        """Store all products of a detector-visit with the records that they need: all, or none.

        Those that are there already, from another attempt, stay as they are.

        Parameters
        ----------
        products
            The products.

        Returns
        -------
        number
            Datasets that were stored now.

        Raises
        ------
        ConflictError
            If a dataset type or an exposure is another one there.
        StoreError
            If the store does not answer, or the disk is full.
        """
        ...
