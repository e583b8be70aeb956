"""Facts of the cameras are light to import."""

import subprocess
import sys

HEAVY = {"lsst", "numba", "scipy", "pyarrow", "pandas"}


def loaded(module):
    """Return the top packages that are loaded once a module is imported by a new interpreter."""
    code = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_bridge_loads_neither_the_middleware_nor_numerical_libraries():
    names = loaded("prompt_processing.factory.bridge")
    assert "confluent_kafka" in names
    assert not HEAVY & names


def test_cameras_are_light():
    names = loaded("prompt_processing.instruments.cameras, prompt_processing.instruments.fan_out")
    assert "astropy" in names
    assert not HEAVY & names
