import numpy as np
import pytest
from astropy.table import Table
from raw_files import RawReader

from prompt_processing.simulation.night import simulate_night


@pytest.fixture(scope="session")
def seed():
    return 5


@pytest.fixture(scope="session")
def night(tmp_path_factory, seed):
    """A small simulated night; nobody may change it."""
    folder = tmp_path_factory.mktemp("simulated") / "night"
    simulate_night(folder, seed=seed, visits=3, size="small")
    return folder


@pytest.fixture(scope="session")
def gains(night):
    table = Table.read(night / "truth" / "amplifiers.ecsv")
    return dict(zip(table["name"], table["gain"], strict=True))


@pytest.fixture(scope="session")
def raws(night):
    return RawReader(night)


@pytest.fixture(scope="session")
def exposures(night):
    return Table.read(night / "truth" / "exposures.ecsv")


@pytest.fixture(scope="session")
def charge(raws, gains, exposures):
    """Return the calibrated image [electron] of an exposure: overscan and bias subtracted, gain applied."""
    biases = exposures["obs_id"][exposures["kind"] == "bias"]
    bias = np.median([raws.assemble(obs_id, gains) for obs_id in biases], axis=0)
    return lambda obs_id: raws.assemble(obs_id, gains) - bias
