"""A night of ten small visits, and a repository that short leases hold for."""

import json
from itertools import chain

import pytest

from prompt_processing.simulation.night import simulate_night
from support.fault_night import N_VISITS, Night
from support.nights import prepare

SETTINGS = {"lease_s": 2.0, "sweep_interval_s": 2.0, "max_crashes": 1000, "drain_s": 8.0}


@pytest.fixture(scope="session")
def night(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nights") / "small"
    simulate_night(folder, seed=4, visits=N_VISITS, size="small")
    return folder


@pytest.fixture(scope="session")
def prepared(night, tmp_path_factory):
    repo = prepare(tmp_path_factory.mktemp("repos") / "prepared", night)
    (repo / "prompt.yaml").write_text(f"worker: {json.dumps(SETTINGS)}\n")
    return repo


@pytest.fixture
def row(record_property):
    """A function that adds a row to what is printed at the end."""
    return lambda *cells: record_property("row", f"| {' | '.join(map(str, cells))} |")


def pytest_terminal_summary(terminalreporter):
    """Print the rows of all tests, wherever they ran."""
    for report in chain.from_iterable(terminalreporter.stats.get(name, ()) for name in ("passed", "failed")):
        for name, text in getattr(report, "user_properties", ()):
            if name == "row" and report.when == "call":
                terminalreporter.write_line(text)


@pytest.fixture
def is_long(request):
    return request.config.getoption("--long")


@pytest.fixture
def world(tmp_path, prepared, night):
    return Night(tmp_path, prepared, night)
