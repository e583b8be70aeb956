"""Whether a decision is what it says: of this detector-visit, from its own images, and one in itself."""

from collections.abc import Iterator

from prompt_processing.audit.evidence import Decided, Evidence, raw_exposure
from prompt_processing.audit.findings import Finding, Kind, name, some
from prompt_processing.domain.visit import DetectorVisitKey


def identity(key: DetectorVisitKey, decided: Decided, evidence: Evidence) -> Iterator[Finding]:
    """Yield what is wrong with a decision itself.

    Parameters
    ----------
    key
        The detector-visit under whose key the decision is stored.
    decided
        The decision.
    evidence
        The night.
    """
    for text in (*_subject(key, decided, evidence), *_agreement(decided)):
        yield Finding(Kind.MISMATCHING, name(key), f"decision: {text}")


def _subject(key: DetectorVisitKey, decided: Decided, evidence: Evidence) -> Iterator[str]:
    info = decided.info
    told = DetectorVisitKey(info.instrument, info.group, info.detector)
    if told != key:
        yield f"it is about {name(told)}"
    for raw in info.raws:
        owner = evidence.raws.get(raw)
        if raw not in evidence.raws:
            yield f"{raw} has never arrived"
        elif owner is not None and owner != key:
            yield f"{raw} is an image of {name(owner)}"
    first = raw_exposure(info.raws[0]) if info.raws else None
    if first is not None and first != info.exposure:
        yield f"{info.raws[0]} is not exposure {info.exposure}"


def _agreement(decided: Decided) -> Iterator[str]:
    """Yield where rows and alerts of a decision do not fit together: each source has one alert."""
    alerts = [number for number, _ in decided.packets]
    sources = {int(number) for number in decided.tables["DiaSource"]["diaSourceId"]}
    if len(alerts) > len(set(alerts)):
        yield f"{len(alerts) - len(set(alerts))} alerts are there twice"
    if set(alerts) - sources:
        yield f"alerts without their source: {some(sorted(set(alerts) - sources))}"
    if sources - set(alerts):
        yield f"sources without their alert: {some(sorted(sources - set(alerts)))}"
    place = decided.info.visit, decided.info.detector
    for table in ("DiaSource", "DiaForcedSource"):
        rows = decided.tables[table]
        others = set(zip(rows["visit"], rows["detector"], strict=True)) - {place}
        if others:
            yield f"{table}: rows of another visit and detector: {some(sorted(others))}"
    starts = set(decided.tables["DiaObject"]["validityStartMjdTai"]) - {decided.info.midpoint_mjd_tai}
    if starts:
        yield f"DiaObject: versions of another time: {some(sorted(starts))}"
