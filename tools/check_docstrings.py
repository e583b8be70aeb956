"""Check that docstrings of public functions have the sections Parameters and Returns.

The codes are those of numpydoc's validation: PR01 (a parameter is not documented), PR02 (a documented
parameter does not exist) and RT01 (no Returns section). The file of exceptions lists functions that are still
incomplete. The check also fails on an exception that has become complete, so the file only shrinks.

Out of scope: private names, dunder methods, properties, overrides, click commands (their docstring is the
help text) and methods whose docstring is "See the port".
"""

import argparse
import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from numpydoc.docscrape import NumpyDocString

ROOT: Final = Path(__file__).parents[1]
SOURCE: Final = ROOT / "src"
EXCEPTIONS: Final = ROOT / "tools" / "docstring_exceptions.txt"
# Functions with these decorators are attributes, or are documented where they are declared.
SKIPPED: Final = {"property", "cached_property", "override", "overload", "setter"}
CLICK: Final = {"command", "group"}

type Function = ast.FunctionDef | ast.AsyncFunctionDef


def public_functions(module: ast.Module, name: str) -> Iterator[tuple[str, Function, bool]]:
    """Yield each public function and method of a module.

    Parameters
    ----------
    module
        The parsed module.
    name
        Its dotted name.

    Yields
    ------
    tuple
        The qualified name, the function, and whether it is a method with a first parameter for its object.
    """
    for node in module.body:
        if isinstance(node, Function.__value__) and not _skipped(node):
            yield f"{name}.{node.name}", node, False
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for member in node.body:
                if isinstance(member, Function.__value__) and not _skipped(member):
                    bound = "staticmethod" not in _decorators(member)
                    yield f"{name}.{node.name}.{member.name}", member, bound


def problems(function: Function, *, bound: bool) -> list[str]:
    """Return what the docstring of a function lacks.

    Parameters
    ----------
    function
        The function or method.
    bound
        Whether its first parameter is its object or class.

    Returns
    -------
    list of str
        Codes of numpydoc with the names concerned; empty for a complete docstring.
    """
    docstring = NumpyDocString(ast.get_docstring(function) or "")
    names = _parameters(function)[bound:]
    documented = [
        name.strip().lstrip("*") for entry in docstring["Parameters"] for name in entry.name.split(",")
    ]
    found = []
    if missing := [name for name in names if name not in documented]:
        found.append(f"PR01 no description of {', '.join(missing)}")
    if unknown := [name for name in documented if name not in names]:
        found.append(f"PR02 unknown {', '.join(unknown)}")
    # A function without parameters says in its first line what it returns.
    if names and _returns(function) and not (docstring["Returns"] or docstring["Yields"]):
        found.append("RT01 no Returns")
    return found


def incomplete(source: Path) -> dict[str, list[str]]:
    """Return the problems of all public functions below a folder.

    Parameters
    ----------
    source
        The folder that holds the package.

    Returns
    -------
    dict
        Problems by qualified name, without the complete functions.
    """
    found = {}
    for file in sorted(source.rglob("*.py")):
        parts = file.relative_to(source).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        for qualified, function, bound in public_functions(ast.parse(file.read_text()), name):
            if lacking := problems(function, bound=bound):
                found[qualified] = lacking
    return found


def complaints(found: dict[str, list[str]], exceptions: list[str]) -> list[str]:
    """Return the lines that the check prints; none if it passes.

    Parameters
    ----------
    found
        Problems by qualified name.
    exceptions
        The names in the file of exceptions, in its order.

    Returns
    -------
    list of str
        One line for each new problem, each exception that is not needed, and an order that is not sorted.
    """
    lines = [f"{name}: {'; '.join(found[name])}" for name in found if name not in exceptions]
    lines += [
        f"{name}: complete or gone; remove it from {EXCEPTIONS.name}"
        for name in exceptions
        if name not in found
    ]
    if exceptions != sorted(set(exceptions)):
        lines.append(f"{EXCEPTIONS.name}: not sorted, or a name appears twice")
    return lines


def _parameters(function: Function) -> list[str]:
    declared = function.args
    stars = [argument for argument in (declared.vararg, declared.kwarg) if argument]
    return [
        argument.arg for argument in (*declared.posonlyargs, *declared.args, *declared.kwonlyargs, *stars)
    ]


def _returns(function: Function) -> bool:
    annotation = ast.unparse(function.returns) if function.returns else "None"
    return annotation not in {"None", "NoReturn", "Never"}


def _decorators(function: Function) -> set[str]:
    targets = [node.func if isinstance(node, ast.Call) else node for node in function.decorator_list]
    return {node.attr if isinstance(node, ast.Attribute) else ast.unparse(node) for node in targets}


def _skipped(function: Function) -> bool:
    docstring = ast.get_docstring(function) or ""
    return (
        function.name.startswith("_")
        or docstring.lower().startswith("see the port")
        or bool(_decorators(function) & (SKIPPED | CLICK))
    )


def main() -> int:
    """Print the complaints, or write the file of exceptions anew, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--prune", action="store_true", help="remove exceptions that are complete or gone")
    prune = parser.parse_args().prune
    found = incomplete(SOURCE)
    exceptions = EXCEPTIONS.read_text().splitlines()
    if prune:
        exceptions = sorted(set(exceptions) & set(found))
        EXCEPTIONS.write_text("".join(f"{name}\n" for name in exceptions))
    lines = complaints(found, exceptions)
    print(*lines, f"{len(found)} public functions have incomplete docstrings", sep="\n")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
