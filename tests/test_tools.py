"""What the demonstration and the benchmarks start needs nothing of the tests."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import check_docstrings

ROOT = Path(__file__).parents[1]
MODULES = sorted(file.stem for file in (ROOT / "tools" / "local_cloud").glob("[a-z]*.py"))


def test_tools_import_nothing_of_the_tests():
    code = f"import sys; from local_cloud import {', '.join(MODULES)}; print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "src", ROOT / "tools")))}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not {"support", "pytest"} & set(done.stdout.split())


@pytest.mark.slow
@pytest.mark.parametrize("script", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda file: file.stem)
def test_benchmarks_find_what_they_import(script):
    code = f"import runpy; runpy.run_path({str(script)!r}, run_name='imported')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=script.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_docstrings_need_parameters_and_returns_and_exceptions_only_shrink(tmp_path):
    (tmp_path / "module.py").write_text(
        'def double(count: int) -> int:\n    """Return twice a count."""\n    return 2 * count\n\n\n'
        'def half(count: int) -> int:\n    """Return a half.\n\n    Parameters\n    ----------\n    count\n'
        "        A count.\n    size\n        Not a parameter.\n\n    Returns\n    -------\n"
        "    int\n        The half.\n"
        '    """\n    return count // 2\n\n\n'
        "def _private(count: int) -> int:\n    return count\n"
    )
    found = check_docstrings.incomplete(tmp_path)
    assert found == {
        "module.double": ["PR01 no description of count", "RT01 no Returns"],
        "module.half": ["PR02 unknown size"],
    }
    assert check_docstrings.complaints(found, ["module.double", "module.half"]) == []
    assert check_docstrings.complaints(found, ["module.double"]) == ["module.half: PR02 unknown size"]
    assert len(check_docstrings.complaints(found, ["module.double", "module.gone", "module.half"])) == 1
    assert len(check_docstrings.complaints(found, ["module.half", "module.double"])) == 1
