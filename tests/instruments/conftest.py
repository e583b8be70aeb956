import shutil

import pytest
from lsst.daf.butler import Butler

from prompt_processing.instruments.dataset_types import butler_config, register_dataset_types
from prompt_processing.instruments.latiss import Latiss


@pytest.fixture(scope="session")
def new_repository(tmp_path_factory):
    """A new repository with LATISS and every dataset type, to be copied."""
    root = tmp_path_factory.mktemp("butler") / "repo"
    Butler.makeRepo(root, config=butler_config())
    with Butler.from_config(root, writeable=True) as butler:
        Latiss().register(butler.registry)
        register_dataset_types(butler)
    return root


@pytest.fixture
def butler(new_repository, tmp_path):
    """A repository of one's own with LATISS and every dataset type."""
    shutil.copytree(new_repository, tmp_path / "repo")
    with Butler.from_config(tmp_path / "repo", writeable=True) as butler:
        yield butler
