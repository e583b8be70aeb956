"""A night as it is to be played: what is in its folder, and the clock that it is played on."""

from collections.abc import Callable, Sequence
from pathlib import Path

from prompt_processing.domain.clock import NightClock, WallClock, utc_seconds
from prompt_processing.domain.errors import RepositoryError
from prompt_processing.night.camera import find_shots
from prompt_processing.night.plan import Action
from prompt_processing.night.player import read_events
from prompt_processing.night.visits import Visit, gather_visits


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


def clock_for(actions: Sequence[Action], start_in: float) -> NightClock:
    """Return a clock on which the first action is due in some time.

    Parameters
    ----------
    actions
        A plan, not empty, in the order of time.
    start_in
        Time until then [s].

    Returns
    -------
    clock
        Its offset is in whole milliseconds, so that others can be given the same.
    """
    return NightClock(round(actions[0].at - start_in - utc_seconds(WallClock().now()), 3))
