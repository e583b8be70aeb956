"""Which raws have arrived, and to which detector-visits they belong."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from prompt_processing.arrivals.pointers import Arrivals, detector_number
from prompt_processing.config import RepositorySettings
from prompt_processing.domain.clock import WallClock
from prompt_processing.domain.errors import RawError
from prompt_processing.domain.raws import RawKey, parse_raw_key
from prompt_processing.domain.visit import DetectorVisit, DetectorVisitKey
from prompt_processing.instruments.fan_out import Active, active_detectors
from prompt_processing.ledger.port import ArrivalRecord
from prompt_processing.storage import object_store


def raws(
    places: RepositorySettings,
    arrivals: Iterable[ArrivalRecord],
    subjects: Mapping[DetectorVisitKey, DetectorVisit],
    instruments: Iterable[str],
    days: Sequence[int],
    active: Active | None,
) -> tuple[dict[str, DetectorVisitKey | None], tuple[str, ...]]:
    """Return every raw of some observing days that was ever seen.

    The landing store tells first; pointers and ledger tell of raws that are not there any more.

    Parameters
    ----------
    places
        Where the stores are.
    arrivals
        What the ledger knows of raws.
    subjects
        The detector-visits of the night.
    instruments, days
        Whose raws.
    active
        Which detectors are processed, as in `~prompt_processing.instruments.fan_out`; raws of others do not
        count.

    Returns
    -------
    raws
        Detector-visit of each raw by its key, `None` if that cannot be told.
    damaged
        What is wrong with pointers that cannot be read.
    """
    found: dict[str, DetectorVisitKey | None] = {
        record.pointer.key: record.visit for record in arrivals if record.visit in subjects
    }
    damaged = []
    pointers = Arrivals(object_store.root(places.incoming), object_store.root(places.arrivals), WallClock())
    for key, visit in sorted(subjects.items()):
        try:
            found |= {pointer.key: key for pointer in pointers.find_all(visit)}
        except RawError as error:
            damaged.append(str(error))
    for raw in _landed(places, instruments, days):
        owner = _owner(pointers, raw)
        if owner and owner not in subjects and owner.detector not in active_detectors(raw.instrument, active):
            continue  # nobody was to process it
        # An image that cannot be told apart by itself may have been noted before.
        found[str(raw)] = owner or found.get(str(raw))
    return found, tuple(damaged)


def _landed(places: RepositorySettings, instruments: Iterable[str], days: Sequence[int]) -> Iterator[RawKey]:
    store = object_store.root(places.incoming)
    for instrument in instruments:
        for day in days:
            folder = f"{instrument}/{day}"
            for name in object_store.list_after(object_store.root(object_store.child(store, folder))):
                raw = parse_raw_key(f"{folder}/{name}")
                if raw is not None:
                    yield raw


def _owner(arrivals: Arrivals, raw: RawKey) -> DetectorVisitKey | None:
    """Return the detector-visit that a raw belongs to by its sidecar, else by its header."""
    try:
        return DetectorVisitKey(raw.instrument, arrivals.identify(raw)[0], detector_number(raw))
    except RawError:
        return None
