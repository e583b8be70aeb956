"""The clock that a night is played on."""

from collections.abc import Sequence

from astropy.time import Time

from prompt_processing.domain.clock import NightClock, WallClock, seconds_between, utc_seconds
from prompt_processing.night.plan import Action


class SkippingClock:
    """A clock that can be moved forward, never back.

    Parameters
    ----------
    start
        What it shows now.
    """

    def __init__(self, start: Time) -> None:
        self._clock = NightClock.starting_at(start)

    def now(self) -> Time:
        """Return the present time of the night (UTC scale)."""
        return self._clock.now()

    def skip_to(self, moment: Time) -> None:
        """Move to a moment, if it is still to come."""
        ahead = seconds_between(self.now(), moment)
        if ahead > 0:
            self._clock = NightClock(self._clock.offset + ahead)


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
