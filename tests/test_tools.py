"""What the demonstration and the benchmarks start needs nothing of the tests."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
