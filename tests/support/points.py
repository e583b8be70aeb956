"""Points of the flow at which a worker dies, stops or meets a store that does not answer, and its clock."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from astropy.time import Time, TimeDelta

from local_cloud.visits import EVENT
from prompt_processing.delivery.memory import MemoryAlerts
from prompt_processing.domain.errors import StaleClaimError
from prompt_processing.ledger.memory import MemoryLedger


class Crash(BaseException):
    """The process ends here and now."""


class TestClock:
    """Moves only when told; the night's time and the monotonic one move together."""

    __test__ = False

    def __init__(self) -> None:
        self.seconds = 0.0
        self._start = Time(EVENT["startTime"] - 100.0, format="unix_tai", scale="tai")

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> Time:
        return (self._start + TimeDelta(self.seconds, format="sec")).utc

    def advance(self, seconds: float) -> None:
        self.seconds += seconds


@dataclass
class Skewed:
    """The clock of a machine that is wrong."""

    clock: TestClock
    skew: float

    def now(self) -> Time:
        return self.clock.now() + TimeDelta(self.skew, format="sec")


class Faults:
    """Makes something happen at the n-th point from now on, or at the next one of a name."""

    def __init__(self) -> None:
        self._where: int | str = 0
        self._action: Any = None
        self.passed: list[str] = []

    def arm(self, where: int | str, action: Any) -> None:
        self._where, self._action = where, action

    def disarm(self) -> None:
        self._action = None

    def point(self, name: str) -> None:
        self.passed.append(name)
        if self._action is None:
            return
        if isinstance(self._where, int):
            self._where -= 1
        if self._where in {0, name}:
            action = self._action
            self.disarm()
            action(name)


class Watched:
    """A port whose every call has a point before and one after it."""

    def __init__(self, port: Any, name: str, faults: Faults) -> None:
        self._port, self._name, self._faults = port, name, faults

    def __getattr__(self, method: str) -> Any:
        call = getattr(self._port, method)

        def watched(*args: Any, **kwargs: Any) -> Any:
            self._faults.point(f"before {self._name}.{method}")
            result = call(*args, **kwargs)
            self._faults.point(f"after {self._name}.{method}")
            return result

        return watched


class Guard:
    """Watches that one worker does each effect right after a check of a claim that did hold then."""

    def __init__(self, ledger: MemoryLedger, on_violation: Callable[[str], None]) -> None:
        self._ledger = ledger
        self._on_violation = on_violation
        self._holds = False

    def check(self, claim: Any) -> None:
        self._holds = False
        self._ledger.check(claim)
        # Whatever this ledger says, the truth is what a ledger should say.
        with contextlib.suppress(StaleClaimError):
            MemoryLedger.check(self._ledger, claim)
            self._holds = True

    def use(self, effect: str) -> None:
        if not self._holds:
            self._on_violation(effect)
        self._holds = False

    def __getattr__(self, method: str) -> Any:
        return getattr(self._ledger, method)


class Guarded:
    """A port with one method that is an effect."""

    def __init__(self, port: Any, effect: str, guard: Guard) -> None:
        self._port, self._effect, self._guard = port, effect, guard

    def __getattr__(self, method: str) -> Any:
        if method == self._effect:
            self._guard.use(f"{type(self._port).__name__}.{method}")
        return getattr(self._port, method)


class OneByOne:
    """Sends alerts one at a time, so that a worker can die between two of them."""

    def __init__(self, alerts: MemoryAlerts, faults: Faults) -> None:
        self._alerts, self._faults = alerts, faults

    def send(self, packets: Any) -> None:
        for packet in packets:
            self._alerts.send([packet])
            self._faults.point("between alerts")
