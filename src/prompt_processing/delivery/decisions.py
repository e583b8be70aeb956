"""Decisions as objects."""

from collections.abc import Iterator

from lsst.resources import ResourcePath

from prompt_processing.delivery.decision import Decision
from prompt_processing.domain.decision import ENDING
from prompt_processing.domain.errors import StoreError
from prompt_processing.domain.visit import DetectorVisit
from prompt_processing.storage import object_store


class DecisionStore:
    """`~prompt_processing.delivery.port.Decisions` as objects that are created and never changed.

    Parameters
    ----------
    store
        Root of the decisions.
    """

    def __init__(self, store: ResourcePath) -> None:
        self._store = store

    def store(self, decision: Decision) -> Decision:
        """Store a decision, and return the one that stands; see the port."""
        place = object_store.child(self._store, decision.path)
        if object_store.create(place, decision.to_bytes()):
            return decision
        standing = self._read(place)
        if standing is None:
            raise StoreError(f"{place}: the decision has vanished")
        return standing

    def find(self, visit: DetectorVisit) -> Decision | None:
        """Return the decision on a visit on a detector; see the port."""
        for path in visit.paths:
            decision = self.read(f"{path}{ENDING}")
            if decision is not None:
                return decision
        return None

    def read(self, key: str) -> Decision | None:
        """Return the decision under a key, `None` if there is none; errors as in `find`."""
        return self._read(object_store.child(self._store, key))

    def all(self) -> Iterator[Decision]:
        """Return all decisions; see the port."""
        for key in object_store.list_after(self._store):
            decision = self.read(key)
            if decision is not None:
                yield decision

    def _read(self, place: ResourcePath) -> Decision | None:
        data = object_store.read(place)
        return None if data is None else Decision.from_bytes(data, str(place))
