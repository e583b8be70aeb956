"""A central Butler with inputs for one field, and what preloads from it."""

import shutil

import pytest
from lsst.daf.butler import Butler

from prompt_processing.apdb.memory import MemoryApdb
from prompt_processing.preload.preloader import Preloader
from prompt_processing.selection.override import Overrides
from prompt_processing.selection.rules import Rule
from prompt_processing.selection.selection import Selection
from prompt_processing.storage import object_store
from support.central import PIPELINE, make_central, write_raws

ISR = """
description: Calibs alone.
instrument: prompt_processing.instruments.latiss.Latiss
tasks:
  isr: support.trivial.IsrTask
"""


def selection_of(folder, *names):
    """Return a selection with one rule that takes every visit."""
    rule = Rule(name="all", pipelines=tuple(f"{name}.yaml" for name in names))
    return Selection((rule,), lambda name: folder / name, "test")


@pytest.fixture(scope="session")
def material(tmp_path_factory):
    """A folder with a central Butler, raws and pipelines; not to be changed."""
    folder = tmp_path_factory.mktemp("material")
    keys = write_raws(folder / "incoming", 6)
    make_central(folder / "repo", folder / "incoming" / keys[0]).close()
    (folder / "Trivial.yaml").write_text(PIPELINE)
    (folder / "Isr.yaml").write_text(ISR)
    return folder, keys


@pytest.fixture
def folder(material, tmp_path):
    """A copy that a test may change."""
    shutil.copytree(material[0], tmp_path / "material")
    return tmp_path / "material"


@pytest.fixture
def central(folder):
    with Butler.from_config(folder / "repo", writeable=True) as butler:
        yield butler


@pytest.fixture
def new_preloader(central, folder):
    """Return a function that makes a preloader."""

    def make(*names, cache_bytes=10**8):
        return Preloader(
            central=central,
            apdb=MemoryApdb(),
            selection=selection_of(folder, *(names or ("Trivial", "Isr"))),
            overrides=Overrides(object_store.root(folder / "overrides")),
            padding=60.0,
            cache_bytes=cache_bytes,
        )

    return make
