"""What is done once per installation."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_warming_leaves_compiled_numerical_code_behind(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "numba")}
    command = [str(Path(sys.executable).with_name("prompt")), "worker", "warm"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "warm" in done.stdout
    compiled = {path.name.partition(".")[0] for path in (tmp_path / "numba").rglob("*.nbi")}
    assert {"warp", "cosmic_rays", "psf_kernels"} <= compiled
