import uuid
from functools import partial

import pytest
from hypothesis import settings

# How long an example takes depends on what else the machine does.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")


def pytest_addoption(parser):
    parser.addoption(
        "--require-services",
        action="store_true",
        help="Fail where a server that a test needs is not installed, instead of skipping the test.",
    )
    parser.addoption("--long", action="store_true", help="Kill the broker 20 times instead of 4 times.")


def make_server(request, make):
    """Return a server that is not started yet; skip, or fail, where it is not installed."""
    from local_cloud.servers import ServerMissingError

    try:
        return make()
    except ServerMissingError as error:
        if request.config.getoption("--require-services"):
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def require_services(request):
    """Makes what needs servers; where one is not installed, tests are skipped, or fail."""
    return partial(make_server, request)


@pytest.fixture(scope="session")
def postgres(request):
    """A PostgreSQL server, started when a test asks for it."""
    from local_cloud.servers import Postgres

    with make_server(request, Postgres) as server:
        yield server


@pytest.fixture
def postgres_url(postgres):
    """The URL of a new, empty database on it."""
    return postgres.new_database()


@pytest.fixture(scope="session")
def pubsub(request):
    """The Pub/Sub emulator; whoever shares it gives each test a project of its own."""
    from local_cloud.emulators import PubSubEmulator

    with make_server(request, PubSubEmulator) as server:
        yield server


@pytest.fixture(scope="session")
def gcs(request, pubsub):
    """A Cloud Storage server that publishes notifications to it; each test needs buckets of its own."""
    from local_cloud.emulators import GcsServer

    with make_server(request, lambda: GcsServer(pubsub.host)) as server:
        yield server


@pytest.fixture
def own_topology(pubsub, gcs):
    """A function that makes topics, subscriptions and buckets on them, with names of the test's own."""
    from local_cloud.topology import make_topology

    own = uuid.uuid4().hex[:12]

    def make(*, gcs_url=gcs.url, **options):
        names = {"project": f"prompt-{own}", "incoming": f"incoming-{own}", "products": f"products-{own}"}
        return make_topology(pubsub.host, gcs_url, **names, **options)

    return make


@pytest.fixture
def new_bucket(gcs, monkeypatch):
    """The name of a new, empty bucket there; what the code under test asks is asked there."""
    from lsst.resources import gs

    from local_cloud.topology import storage

    name = f"bucket-{uuid.uuid4().hex[:12]}"
    with storage(gcs.url) as client:
        client.create_bucket(name)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
    # The client of lsst.resources is made once for all; it may be one of another server.
    monkeypatch.setattr(gs, "_client", None)
    return name


@pytest.fixture(scope="session")
def results(tmp_path_factory):
    """Two processed visits with four alerts and one that failed, with their night; not to be changed."""
    from support.results import make_results

    return make_results(tmp_path_factory.mktemp("repo"), tmp_path_factory.mktemp("night"))


@pytest.fixture(scope="session")
def kafka(request):
    """A Kafka broker; whoever shares it gives each test topics and groups of its own."""
    from local_cloud.brokers import KafkaBroker

    with make_server(request, KafkaBroker) as server:
        yield server


@pytest.fixture(scope="session")
def registry(request):
    """A schema registry; whoever shares it gives each test subjects of its own."""
    from local_cloud.brokers import SchemaRegistry

    with make_server(request, SchemaRegistry) as server:
        yield server


@pytest.fixture(scope="session")
def redis_server(request):
    """A Redis server; whoever shares it gives each test keys of its own."""
    from local_cloud.brokers import RedisServer

    with make_server(request, RedisServer) as server:
        yield server


@pytest.fixture
def receiver(pubsub):
    """A topic of its own for the bridge's messages, and what comes there."""
    from local_cloud.bridge_world import PubSubReceiver

    with PubSubReceiver(pubsub.host) as made:
        yield made


@pytest.fixture
def bridge_settings(observatory, receiver, kafka, registry, pubsub):
    """A function that returns the settings of a bridge to that topic, with some changed."""

    def make(**changes):
        own = {"PROMPT_PUBSUB__TOPIC": receiver.topic, "PUBSUB_EMULATOR_HOST": pubsub.host}
        return observatory.settings(kafka.bootstrap, registry.url, **{**own, **changes})

    return make
