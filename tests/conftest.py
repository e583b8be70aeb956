import pytest


def pytest_addoption(parser):
    parser.addoption(
        "--require-services",
        action="store_true",
        help="Fail where a server that a test needs is not installed, instead of skipping the test.",
    )


@pytest.fixture(scope="session")
def postgres(request):
    """A PostgreSQL server, started when a test asks for it."""
    from support.servers import Postgres, ServerMissingError

    try:
        server = Postgres()
    except ServerMissingError as error:
        if request.config.getoption("--require-services"):
            pytest.fail(str(error))
        pytest.skip(str(error))
    with server:
        yield server


@pytest.fixture
def postgres_url(postgres):
    """The URL of a new, empty database on it."""
    return postgres.new_database()


@pytest.fixture(scope="session")
def results(tmp_path_factory):
    """Two processed visits with four alerts and one that failed, with their night; not to be changed."""
    from support.results import make_results

    return make_results(tmp_path_factory.mktemp("repo"), tmp_path_factory.mktemp("night"))
