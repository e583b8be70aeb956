"""What an audit finds."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from prompt_processing.domain.outcome import Outcome
from prompt_processing.domain.visit import DetectorVisitKey


class Kind(StrEnum):
    """What sort of thing a finding is."""

    LOST = "lost"
    """An expected detector-visit that nobody has ever claimed."""
    UNFINISHED = "unfinished"
    """An expected detector-visit without an outcome."""
    DUPLICATED = "duplicated"
    """Something that is there twice, or that no decision has made."""
    MISMATCHING = "mismatching"
    """Something that is not as the ledger or the decision says."""
    PENDING = "pending"
    """Alerts that were not possible to send and are left to the relay."""
    LATE = "late"
    """A detector-visit whose image came after its deadline."""
    UNEXPECTED = "unexpected"
    """A detector-visit without an event, or a raw without a detector-visit."""
    EXTRA = "extra"
    """A raw that was not used, because its detector-visit was finished without it."""
    METRICS = "metrics"
    """Metrics that are missing or wrong."""
    NOT_OBSERVED = "not-observed"
    """A line that is no event, or an event that cannot be observed."""


FAULTS: Final = frozenset({Kind.LOST, Kind.UNFINISHED, Kind.DUPLICATED, Kind.MISMATCHING, Kind.PENDING})
"""Kinds with which an audit does not pass; the others are for information."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it was expected."""

    kind: Kind
    where: str
    """Detector-visit, raw or store."""
    what: str


@dataclass(frozen=True, slots=True)
class Audit:
    """The judgement on a night."""

    expected: int
    """Number of detector-visits that the events announce."""
    outcomes: Mapping[DetectorVisitKey, Outcome | None]
    """Current outcome of each expected detector-visit, as the ledger has it."""
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing is lost, unfinished, pending, duplicated or mismatching."""
        return not any(finding.kind in FAULTS for finding in self.findings)

    @property
    def done(self) -> dict[str, int]:
        """How many expected detector-visits have each outcome, without flags."""
        labels = (label(outcome) for outcome in self.outcomes.values() if outcome is not None)
        return dict(sorted(Counter(labels).items()))

    def count(self, kind: Kind) -> int:
        """Return the number of findings of a kind."""
        return sum(finding.kind is kind for finding in self.findings)


def label(outcome: Outcome) -> str:
    """Return status and reason of an outcome."""
    return str(outcome.status) if outcome.reason is None else f"{outcome.status}:{outcome.reason}"


def name(key: DetectorVisitKey) -> str:
    """Return how a detector-visit is named to people."""
    return f"{key.instrument} {key.group} detector {key.detector}"


def some(items: Iterable[Any], limit: int = 3) -> str:
    """Return the first of several things as text, and how many more there are."""
    found = [str(item) for item in items]
    more = f" and {len(found) - limit} more" if len(found) > limit else ""
    return ", ".join(found[:limit]) + more
