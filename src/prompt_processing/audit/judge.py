"""The judgement: from evidence to what is lost, unfinished, duplicated or mismatching.

All functions are pure. The ledger's outcomes are claims: what they say must be found in the other stores.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

from prompt_processing.audit.dia_objects import object_versions
from prompt_processing.audit.effects import LookUp, effects
from prompt_processing.audit.evidence import Claimed, Evidence
from prompt_processing.audit.findings import Audit, Finding, Kind, label, name, some
from prompt_processing.audit.identity import identity
from prompt_processing.audit.strays import strays
from prompt_processing.domain.outcome import Outcome, Status
from prompt_processing.domain.visit import DetectorVisitKey
from prompt_processing.ledger.port import REOPENED_BY_IMAGE

LATE: Final = "late"
"""Flag of an outcome whose image came late."""
EXPIRED: Final = "expired"
"""Reason of an outcome that an image does not change."""


def judge(evidence: Evidence) -> Audit:
    """Judge a night.

    Parameters
    ----------
    evidence
        Everything that is known of it.

    Returns
    -------
    audit
        The counts, and what was found, the gravest first.
    """
    claims = {claim.key: claim for claim in evidence.claims}
    look_up = LookUp.of(evidence)
    findings = [
        *(Finding(Kind.NOT_OBSERVED, "events", text) for text in evidence.not_observed),
        *_progress(evidence, claims),
        *_ledger(evidence),
        *(finding for claim in claims.values() for finding in _outcome(claim, evidence)),
        *_decisions(evidence, claims, look_up),
        *object_versions(evidence),
        *strays(evidence, look_up),
        *_raws(evidence, claims),
    ]
    order = list(Kind)
    return Audit(
        expected=len(evidence.expected),
        outcomes={key: claims[key].outcome if key in claims else None for key in sorted(evidence.expected)},
        findings=tuple(sorted(findings, key=lambda finding: (order.index(finding.kind), finding.where))),
    )


def _progress(evidence: Evidence, claims: Mapping[DetectorVisitKey, Claimed]) -> Iterator[Finding]:
    """Yield what is lost, what is unfinished, what was late, and what nobody has announced."""
    for key in evidence.expected:
        if key not in claims:
            yield Finding(Kind.LOST, name(key), "nobody has ever claimed it")
        elif claims[key].outcome is None:
            yield Finding(Kind.UNFINISHED, name(key), _state(claims[key]))
    for key, claim in claims.items():
        if claim.outcome is not None and LATE in claim.outcome.flags:
            yield Finding(Kind.LATE, name(key), str(claim.outcome))
        if key not in evidence.expected:
            state = _state(claim) if claim.outcome is None else str(claim.outcome)
            yield Finding(Kind.UNEXPECTED, name(key), f"no event announces it; {state}")


def _state(claim: Claimed) -> str:
    """Return how far a detector-visit without an outcome is."""
    if claim.working is not None:
        return f"attempt {claim.attempts}, {claim.working} works on it"
    return f"queued after {claim.attempts} attempts" + (f", the last: {claim.error}" if claim.error else "")


def _ledger(evidence: Evidence) -> Iterator[Finding]:
    """Yield what stands twice in the ledger."""
    if evidence.surplus_outcomes > 0:
        text = f"{evidence.surplus_outcomes} current outcomes more than there are detector-visits"
        yield Finding(Kind.DUPLICATED, "ledger", text)
    for key, count in Counter(claim.key for claim in evidence.claims).items():
        if count > 1:
            yield Finding(Kind.DUPLICATED, name(key), f"the ledger holds it {count} times")


def _outcome(claim: Claimed, evidence: Evidence) -> Iterator[Finding]:
    """Yield where an outcome does not fit to whether there is a decision, and whether there are raws."""
    if claim.outcome is None:
        return
    stands = claim.key in evidence.decisions or claim.key in evidence.damaged_decisions
    match claim.outcome.status:
        case Status.PROCESSED:
            if not stands:
                yield Finding(Kind.MISMATCHING, name(claim.key), "processed, but there is no decision")
            else:
                yield from _flags(claim, claim.outcome, evidence)
        case Status.SKIPPED:
            if stands:
                text = f"{label(claim.outcome)}, but there is a decision"
                yield Finding(Kind.MISMATCHING, name(claim.key), text)
            if claim.outcome.reason in REOPENED_BY_IMAGE:
                yield from _dropped(claim, claim.outcome, evidence)


def _flags(claim: Claimed, outcome: Outcome, evidence: Evidence) -> Iterator[Finding]:
    decided = evidence.decisions.get(claim.key)
    hidden = set(decided.info.flags) - set(outcome.flags) if decided is not None else set()
    if hidden:
        text = f"the outcome does not tell what the decision does: {some(sorted(hidden))}"
        yield Finding(Kind.MISMATCHING, name(claim.key), text)


def _dropped(claim: Claimed, outcome: Outcome, evidence: Evidence) -> Iterator[Finding]:
    raws = sorted(key for key, visit in evidence.raws.items() if visit == claim.key)
    if raws:
        text = f"{label(outcome)}, but its image has arrived: {some(raws)}"
        yield Finding(Kind.MISMATCHING, name(claim.key), text)


def _decisions(
    evidence: Evidence, claims: Mapping[DetectorVisitKey, Claimed], look_up: LookUp
) -> Iterator[Finding]:
    """Yield what is wrong with decisions, and with what they have brought about."""
    for key, reason in evidence.damaged_decisions.items():
        yield Finding(Kind.MISMATCHING, name(key), f"the decision cannot be read: {reason}")
    for key, decided in evidence.decisions.items():
        claim = claims.get(key)
        if claim is None:
            text = "there is a decision, but the ledger does not know the detector-visit"
            yield Finding(Kind.MISMATCHING, name(key), text)
        outcome = claim.outcome if claim is not None else None
        complete = outcome is not None and outcome.status is Status.PROCESSED
        pending = claim.pending if claim is not None else frozenset[str]()
        yield from identity(key, decided, evidence)
        yield from effects(key, decided, evidence, look_up, complete=complete, pending=pending)


def _raws(evidence: Evidence, claims: Mapping[DetectorVisitKey, Claimed]) -> Iterator[Finding]:
    """Yield raws that belong to nothing, and raws that were not used."""
    for text in evidence.damaged_pointers:
        yield Finding(Kind.MISMATCHING, "arrivals", text)
    for raw, key in evidence.raws.items():
        if key is None:
            yield Finding(Kind.UNEXPECTED, raw, "it cannot be told to which detector-visit it belongs")
        elif key not in claims and key not in evidence.expected:
            yield Finding(Kind.UNEXPECTED, raw, f"{name(key)} is not known")
        else:
            yield from _unused(raw, key, evidence, claims)


def _unused(
    raw: str, key: DetectorVisitKey, evidence: Evidence, claims: Mapping[DetectorVisitKey, Claimed]
) -> Iterator[Finding]:
    outcome = claims[key].outcome if key in claims else None
    decided = evidence.decisions.get(key)
    if decided is not None and raw not in decided.info.raws:
        yield Finding(Kind.EXTRA, raw, f"{name(key)} was processed without it")
    elif outcome is not None and outcome.reason == EXPIRED:
        yield Finding(Kind.EXTRA, raw, f"{name(key)} had expired")
