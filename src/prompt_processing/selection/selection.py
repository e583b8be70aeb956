"""Which pipelines a visit gets: the first rule of ``selection.yaml`` that it meets decides."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError

from prompt_processing.domain.errors import ConfigError
from prompt_processing.domain.visit import DetectorVisit
from prompt_processing.instruments.cameras import CAMERAS, get_camera
from prompt_processing.selection.override import Override
from prompt_processing.selection.rules import Rule, SelectionRules

OVERRIDE: Final = "override"
"""Stands for the name of the rule when an operator decides."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What a visit gets, and why."""

    rule: str
    """Name of the rule; `OVERRIDE` if an operator decides, empty if no rule is met."""
    pipelines: tuple[Path, ...]
    """Best first, the others are fall-backs; none: the visit is skipped."""
    canary: bool
    """Whether the pipelines are those that a share of the visits gets, with its products apart."""
    reasons: tuple[str, ...]
    """One line for each rule that was looked at: why it was not met, or that it was."""


class Selection:
    """The rules of a repository, checked; make it with `load`."""

    def __init__(self, rules: tuple[Rule, ...], find: Callable[[str], Path], deployment: str) -> None:
        self.rules = rules
        self._find = find
        self._deployment = deployment

    @classmethod
    def load(cls, file: Path, find: Callable[[str], Path], deployment: str) -> "Selection":
        """Read and check the rules.

        Parameters
        ----------
        file
            The file.
        find
            Returns the file of a pipeline, and raises `ConfigError` if there is none of that name.
        deployment
            Name of the deployment.

        Raises
        ------
        ConfigError
            If something is wrong; the message names file, line and rule.
        """
        lines = _Lines(file)
        try:
            rules = SelectionRules.model_validate(lines.content, context={"folder": file.parent}).rules
        except ValidationError as error:
            told = [lines.tell(details["loc"], details["msg"]) for details in error.errors()]
            raise ConfigError("\n".join(told)) from error
        told = [lines.tell(place, text) for place, text in _problems(rules, find)]
        if told:
            raise ConfigError("\n".join(told))
        return cls(rules, find, deployment)

    @property
    def pipelines(self) -> tuple[Path, ...]:
        """Files of all pipelines that any visit may get."""
        return tuple(dict.fromkeys(self._find(name) for rule in self.rules for _, name in _named(rule)))

    def choose(
        self, visit: DetectorVisit, centre: tuple[float, float], override: Override | None = None
    ) -> Choice:
        """Choose the pipelines of a visit.

        Parameters
        ----------
        visit
            The visit.
        centre
            Where the centre of the detector will look, ICRS [deg].
        override
            What an operator has said.

        Raises
        ------
        ConfigError
            If a pipeline that the operator wants does not exist.
        """
        reasons = []
        if override is not None:
            if override.applies_to(visit):
                reasons.append(f"{OVERRIDE}: set by {override.who} at {override.when}: {override.reason}")
                return Choice(OVERRIDE, self.files(override.pipelines), False, tuple(reasons))
            reasons.append(f"{OVERRIDE}: is for other visits")
        for rule in self.rules:
            problems = list(rule.when.problems(visit, centre, self._deployment))
            if problems:
                reasons.append(f"{rule.name}: not met: {', '.join(problems)}")
                continue
            canary = rule.canary is not None and lot(visit) < rule.canary.share
            names = rule.canary.pipelines if canary and rule.canary is not None else rule.pipelines
            reasons.append(f"{rule.name}: met{', by lot for the canary' if canary else ''}")
            return Choice(rule.name, self.files(names), canary, tuple(reasons))
        return Choice("", (), False, tuple(reasons))

    def named(self, instrument: str, name: str, more: Iterable[Path] = ()) -> Path | None:
        """Return the pipeline that a decision names; of several that of the instrument's own folder.

        Parameters
        ----------
        instrument
            Name of the instrument.
        name
            Name of the pipeline.
        more
            Pipelines beside those of the rules, such as those of overrides.
        """
        found = [path for path in (*self.pipelines, *more) if path.stem == name]
        return min(found, key=lambda path: path.parent.name != instrument, default=None)

    def files(self, names: Iterable[str]) -> tuple[Path, ...]:
        """Return the files of some pipelines.

        Raises
        ------
        ConfigError
            If there is none of a name.
        """
        return tuple(self._find(name) for name in names)


def lot(visit: DetectorVisit) -> float:
    """Return a number from 0 to 1 that follows from the visit's name, the same for all of its detectors."""
    digest = hashlib.sha1(f"{visit.instrument}/{visit.groupId}".encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[:8]) / 2**64


def _named(rule: Rule) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Yield the pipelines of a rule with their places in it."""
    for number, name in enumerate(rule.pipelines):
        yield ("pipelines", number), name
    for number, name in enumerate(rule.canary.pipelines if rule.canary is not None else ()):
        yield ("canary", "pipelines", number), name


def _problems(rules: tuple[Rule, ...], find: Callable[[str], Path]) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Yield the place and the text of what is wrong with rules that are well formed."""
    for number, rule in enumerate(rules):
        here = ("rules", number)
        if rule.name in {OVERRIDE, *(other.name for other in rules[:number])}:
            yield (*here, "name"), "this name is taken"
        for other in rules[:number]:
            if other.when.hold_whenever(rule.when):
                yield (*here, "name"), f"can never match: rule {other.name!r} takes all of its visits"
        for place, name in _named(rule):
            try:
                find(name)
            except ConfigError as error:
                yield (*here, *place), str(error)
        yield from (((*here, "when", place), text) for place, text in _never(rule))


def _never(rule: Rule) -> Iterator[tuple[str, str]]:
    """Yield conditions that no visit can meet."""
    cameras = []
    for name in rule.when.instrument or ():
        try:
            cameras.append(get_camera(name))
        except ConfigError as error:
            yield "instrument", f"can never match: {error}"
    cameras = cameras or list(CAMERAS.values())
    known = {number for camera in cameras for number in camera.detectors}
    unknown = sorted(set(rule.when.detector or ()) - known)
    if unknown:
        names = ", ".join(camera.name for camera in cameras)
        yield "detector", f"can never match: {names} has no detector {unknown[0]}"


class _Lines:
    """A YAML file that remembers the lines of its parts.

    Raises
    ------
    ConfigError
        If it cannot be read, or is not YAML.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        try:
            text = file.read_text(encoding="utf-8")
            self._root = yaml.compose(text, yaml.SafeLoader)
            self.content = yaml.safe_load(text)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{file}: cannot be read: {error}") from error
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark is not None else 1
            raise ConfigError(f"{file}:{line}: is not valid YAML: {error.problem}") from error
        except (yaml.YAMLError, ValueError) as error:  # such as a date that the calendar does not have
            raise ConfigError(f"{file}: is not valid YAML: {error}") from error
        self._refuse_twins(self._root)

    def _refuse_twins(self, node: yaml.Node | None) -> None:
        """Refuse a key that is there twice: only the last one would count."""
        if isinstance(node, yaml.SequenceNode):
            for item in node.value:
                self._refuse_twins(item)
        elif isinstance(node, yaml.MappingNode):
            seen = set()
            for key, value in node.value:
                if key.value in seen:
                    line = key.start_mark.line + 1
                    raise ConfigError(f"{self._file}:{line}: {key.value} is there twice")
                seen.add(key.value)
                self._refuse_twins(value)

    def tell(self, place: tuple[Any, ...], text: str) -> str:
        """Return a message about a part, with file, line, rule and the names on the way to it."""
        rule = ""
        if len(place) > 1 and place[0] == "rules":
            try:
                rule = f"rule {self.content['rules'][place[1]]['name']!r}: "
            except (LookupError, TypeError):
                rule = f"rule {place[1] + 1}: "
            names = place[2:]
        else:
            names = place
        what = ".".join(str(name) for name in names if not isinstance(name, int))
        return f"{self._file}:{self._line(place)}: {rule}{f'{what}: ' if what else ''}{text}"

    def _line(self, place: tuple[Any, ...]) -> int:
        """Return the line of a part, or of the innermost one above it that is there."""
        node, line = self._root, 1
        for step in place:
            if isinstance(node, yaml.MappingNode):
                found = next(((key, value) for key, value in node.value if key.value == step), None)
                if found is None:
                    break
                key, node = found
                line = key.start_mark.line + 1
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
                node = node.value[step]
                line = node.start_mark.line + 1
            else:
                break
        return line
