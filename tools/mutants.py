"""Change one token of a module at a time and see whether the tests of its room notice.

``make mutants`` runs this; CI does not. Each mutant is tried in a copy of the tree. A mutant that its tests
let through is a survivor: a test is missing, or the change makes no difference. See
``docs/explanation/mutants.md``.
"""

import argparse
import ast
import copy
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
PACKAGE: Final = Path("src/prompt_processing")
COPIED: Final = ("src", "tests", "tools", "pipelines", "services", "docs", "pyproject.toml")
ROOMS: Final = {
    "worker": ("tests/worker",),
    "ledger": ("tests/ledger",),
    "bridge": ("tests/bridge",),
    "arrivals": ("tests/arrivals",),
    "serving": ("tests/serving",),
}
"""The tests that must notice a mutant of a room."""
COMPARISONS: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
OPERATORS: Final[dict[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
}  # fmt: skip
NAMES: Final = {"min": "max", "max": "min", "any": "all", "all": "any"}


@dataclass(frozen=True, slots=True)
class Mutant:
    """A module with one token changed."""

    module: Path
    line: int
    before: str
    after: str
    text: str
    """The whole module."""

    def __str__(self) -> str:
        """Return where it is and what was changed."""
        return f"{self.module}:{self.line}: `{self.before}` -> `{self.after}`"


def mutants(module: Path) -> list[Mutant]:
    """Return every mutant of a module, in the order of its lines.

    Parameters
    ----------
    module
        Path relative to the root of the tree.
    """
    source = (ROOT / module).read_text()
    tree = ast.parse(source)
    # Options of dataclasses and the like: what they change is seldom seen by a test.
    decorators = [each for node in ast.walk(tree) for each in _decorators(node)]
    skipped = {id(part) for decorator in decorators for part in ast.walk(decorator)}
    found = []
    for position, node in enumerate(ast.walk(tree)):
        if id(node) in skipped:
            continue
        for number, _ in enumerate(_changes(node)):
            before = _shown(node)
            changed = copy.deepcopy(tree)
            twin = next(other for place, other in enumerate(ast.walk(changed)) if place == position)
            list(_changes(twin))[number]()
            after = _shown(twin)
            if after != before:
                found.append(Mutant(module, node.lineno, before, after, ast.unparse(changed)))
    return sorted(found, key=lambda mutant: mutant.line)


def _changes(node: Any) -> Iterator[Callable[[], None]]:  # noqa: C901 (one case for each kind of token)
    """Yield what changes one token of a node in place, for each way to do so."""

    def put(field: str, value: Any) -> Callable[[], None]:
        return lambda: setattr(node, field, value)

    match node:
        case ast.Compare(ops=operators):
            for place, operator in enumerate(operators):
                yield put("ops", [*operators[:place], COMPARISONS[type(operator)](), *operators[place + 1 :]])
        case ast.BoolOp(op=operator):
            yield put("op", ast.Or() if isinstance(operator, ast.And) else ast.And())
        case ast.BinOp(op=operator) if type(operator) in OPERATORS:
            yield put("op", OPERATORS[type(operator)]())
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield put("operand", _not(operand))
        case ast.Constant(value=bool(value)):
            yield put("value", not value)
        case ast.Constant(value=int(value) | float(value)):
            yield put("value", value + 1)
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test) if not isinstance(
            test, ast.Compare | ast.Constant
        ):
            yield put("test", _not(test))
        case ast.Call(func=ast.Name(id=name)) if name in NAMES:
            yield put("func", ast.Name(NAMES[name], ast.Load()))
        case ast.Continue() | ast.Break():
            yield put("__class__", ast.Pass)


def _decorators(node: ast.AST) -> list[ast.expr]:
    return getattr(node, "decorator_list", [])


def _shown(node: ast.AST) -> str:
    """Return the source of a node in one line; of a statement that asks something, the question."""
    return ast.unparse(node.test if isinstance(node, ast.If | ast.While) else node)


def _not(node: ast.expr) -> ast.expr:
    return ast.UnaryOp(ast.Not(), node)


def sample(room: str, most: int, seed: int) -> list[Mutant]:
    """Return some mutants of each module of a room, the same ones for the same seed."""
    modules = sorted((ROOT / PACKAGE / room).rglob("*.py"))
    chosen = []
    for path in modules:
        module = path.relative_to(ROOT)
        every = mutants(module)
        drawn = random.Random(f"{seed} {module}").sample(every, min(most, len(every)))  # noqa: S311 (a sample)
        chosen += sorted(drawn, key=lambda mutant: mutant.line)
    return chosen


def passes(tree: Path, tests: tuple[str, ...], limit: float) -> bool:
    """Tell whether tests pass in a copy of the tree; tests that do not end in time [s] have failed."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-m",
        "not slow and not faults",
        "-p",
        "no:cacheprovider",
    ]
    paths = os.pathsep.join(str(tree / name) for name in ("src", "tests"))
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen(
        [*command, *tests],
        cwd=tree,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return process.wait(limit) == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def run(room: str, options: argparse.Namespace) -> None:
    """Try mutants of a room, and print the survivors and the figures."""
    chosen = sample(room, options.per_module, options.seed)
    tests = tuple(options.tests or ROOMS[room])
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        tree = Path(folder)
        for name in COPIED:
            source = ROOT / name
            copied = shutil.copytree if source.is_dir() else shutil.copy
            copied(source, tree / name)
        if not passes(tree, tests, options.limit):
            raise SystemExit(
                f"{room}: without a mutant, {' '.join(tests)} fail or take over {options.limit} s"
            )
        survivors = []
        for mutant in chosen:
            path = tree / mutant.module
            original = path.read_text()
            path.write_text(mutant.text)
            if passes(tree, tests, options.limit):
                survivors.append(mutant)
                print(mutant, flush=True)
            path.write_text(original)
    print(f"{room}: {len(chosen)} mutants, {len(survivors)} survived", flush=True)


def main() -> None:
    """Read the command line and try the rooms in turn."""
    parser = argparse.ArgumentParser(description="Try one-token changes that the tests should notice.")
    parser.add_argument(
        "rooms", nargs="*", default=[*ROOMS], help=f"rooms, of {', '.join(ROOMS)} (default: all)"
    )
    parser.add_argument("--per-module", type=int, default=5, help="mutants of each module (default: 5)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the sample (default: 1)")
    parser.add_argument("--limit", type=float, default=600.0, help="time for the tests of a mutant [s]")
    parser.add_argument("--tests", nargs="*", help="tests to run in place of the room's")
    options = parser.parse_args()
    for room in options.rooms:
        if room not in ROOMS:
            parser.error(f"no room {room}")
    for room in options.rooms:
        run(room, options)


if __name__ == "__main__":
    main()
