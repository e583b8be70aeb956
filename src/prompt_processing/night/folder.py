"""The folder of a night: its events, and its visits with the raws of each."""

from collections.abc import Callable
from pathlib import Path

from prompt_processing.domain.errors import EventError, RepositoryError
from prompt_processing.domain.visit import NextVisit, parse_event
from prompt_processing.night.shots import find_shots
from prompt_processing.night.visits import Visit, gather_visits


def read_events(file: Path, on_error: Callable[[str], None]) -> list[NextVisit]:
    """Read the events of a night in the order of their publication.

    Parameters
    ----------
    file
        ``events.jsonl``.
    on_error
        Called with what is wrong with a line that is no event; the others are still read.

    Raises
    ------
    RepositoryError
        If the file cannot be read.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RepositoryError(f"{file}: cannot be read: {error}") from error
    events = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                events.append(parse_event(line))
            except EventError as error:
                on_error(f"{file.name} line {number}: {error}")
    return sorted(events, key=lambda event: event.private_sndStamp)


def read_night(night: Path, on_error: Callable[[str], None]) -> list[Visit]:
    """Return the visits of a night in the order in which their shutters open.

    Parameters
    ----------
    night
        Folder of the night.
    on_error
        Called with what is wrong with a line of its events; the others are still read.

    Raises
    ------
    RepositoryError
        If it has no event.
    """
    events = read_events(night / "events.jsonl", on_error)
    if not events:
        raise RepositoryError(f"{night / 'events.jsonl'}: there is no event to play")
    predicted = {event.groupId: event.predicted_shutter_close for event in events}
    return gather_visits(events, find_shots(night / "raw", predicted, events[0].published))
