import pytest


@pytest.fixture(scope="session")
def results(tmp_path_factory):
    """Two processed visits with four alerts and one that failed, with their night; not to be changed."""
    from support.results import make_results

    return make_results(tmp_path_factory.mktemp("repo"), tmp_path_factory.mktemp("night"))
