import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from prompt_processing.config import Settings
from prompt_processing.domain.errors import RepositoryError
from prompt_processing.factory.create import create_repository
from prompt_processing.factory.stores import Stores


@pytest.fixture
def repo(tmp_path):
    create_repository(tmp_path / "repo")
    return tmp_path / "repo"


def test_a_store_is_opened_once(repo):
    stores = Stores.open(repo)
    assert stores.ledger is stores.ledger
    assert stores.apdb is stores.apdb


def test_a_folder_that_is_no_repository_stays_as_it_is(tmp_path):
    with pytest.raises(RepositoryError, match="no repository"):
        Stores.open(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_only_what_stores_products_can_write_to_the_butler(repo):
    stores = Stores.open(repo)
    assert not stores.central.isWriteable()
    assert stores.products._central.isWriteable()


def test_a_database_that_is_there_is_not_made_again(repo):
    database = Path(Settings.load(repo).apdb.database_url.removeprefix("sqlite:///"))
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE mark (x INTEGER)")
    create_repository(repo)
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT count(*) FROM mark").fetchall() == [(0,)]


def test_the_ledger_needs_no_middleware(repo):
    script = (
        "import sys; from pathlib import Path; from prompt_processing.factory.stores import Stores;"
        f"Stores.open(Path({str(repo)!r})).ledger;"
        "print(sorted(sys.modules.keys() & {'lsst.daf.butler', 'lsst.dax.apdb', 'pandas', 'pyarrow'}))"
    )
    found = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert found.stdout == "[]\n"
