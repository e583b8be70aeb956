"""What an operator says that is to be done, whatever the rules say, until it is taken back.

Each change is an object of its own that is never changed again; the newest one counts. So the trail of all
changes, with who made them and why, is the state itself.
"""

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Annotated, Literal

from lsst.resources import ResourcePath
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from prompt_processing.domain.errors import ConfigError, StoreError
from prompt_processing.domain.visit import DetectorVisit
from prompt_processing.storage import object_store


class Override(BaseModel):
    """One change: pipelines for all visits, or for those of an instrument or a survey, from now on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    action: Literal["set", "clear"]
    pipelines: tuple[str, ...] = Field(default=(), description="Best first; none: visits are skipped")
    reason: Annotated[str, Field(min_length=1)]
    who: str = Field(description="User and machine")
    when: str = Field(description="UTC, ISO 8601")
    instrument: str | None = None
    survey: str | None = Field(default=None, description="Pattern, such as BLOCK-T*")

    def applies_to(self, visit: DetectorVisit) -> bool:
        """Tell whether a visit is meant."""
        return (self.instrument is None or self.instrument == visit.instrument) and (
            self.survey is None or fnmatchcase(visit.survey, self.survey)
        )


class Overrides:
    """All changes of a repository.

    Parameters
    ----------
    root
        Where they are kept.
    """

    def __init__(self, root: ResourcePath) -> None:
        self._root = root

    def current(self) -> Override | None:
        """Return what holds now.

        Raises
        ------
        ConfigError
            If the newest object cannot be understood.
        StoreError
            If the store does not answer.
        """
        keys = list(object_store.list_after(self._root))
        if not keys:
            return None
        newest = self._read(keys[-1])
        return newest if newest.action == "set" else None

    def history(self) -> list[Override]:
        """Return all changes, oldest first; raises as `current` does."""
        return [self._read(key) for key in object_store.list_after(self._root)]

    def pipelines(self) -> list[str]:
        """Return the pipelines of all changes that can be understood: only these ever had an effect.

        Raises
        ------
        StoreError
            If the store does not answer.
        """
        names: dict[str, None] = {}
        for key in object_store.list_after(self._root):
            with suppress(ConfigError):
                names |= dict.fromkeys(self._read(key).pipelines)
        return list(names)

    def add(self, make: Callable[[str], Override]) -> Override:
        """Make a change.

        Parameters
        ----------
        make
            Makes it, given the time.

        Raises
        ------
        StoreError
            If the store does not answer.
        """
        override = make(datetime.now(UTC).isoformat(timespec="seconds"))
        data = override.model_dump_json(indent=2).encode() + b"\n"
        # Another operator may take this number at the same time; then try the next number.
        for number in range(len(list(object_store.list_after(self._root))) + 1, 1_000_000):
            if object_store.create(object_store.child(self._root, f"{number:06d}.json"), data):
                return override
        raise StoreError(f"{self._root}: too many changes")

    def _read(self, key: str) -> Override:
        path = object_store.child(self._root, key)
        try:
            return Override.model_validate_json(object_store.read(path) or b"")
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise ConfigError(f"{path}: is no override: {problems}") from error
