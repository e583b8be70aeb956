"""Settings that name a secret of Secret Manager, and what of secrets is ever shown."""

import base64
import json
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from google.auth.credentials import AnonymousCredentials
from google.cloud import secretmanager
from google.cloud.secretmanager_v1.services.secret_manager_service.transports import (
    SecretManagerServiceRestTransport,
)

from local_cloud.servers import LOOPBACK
from prompt_processing.cli import main
from prompt_processing.config import Settings, redact, redacted, secrets
from prompt_processing.domain.errors import ConfigError

NAME = "projects/p/secrets/ledger-url"
VALUE = "postgresql+pg8000://ledger:s3cret@10.0.0.1/prompt"


@pytest.fixture
def manager(monkeypatch):
    """A server that plays Secret Manager: its secrets by version, and what it was asked."""
    held, asked = {}, []

    class Versions(BaseHTTPRequestHandler):
        def do_GET(self):
            version = self.path.partition("?")[0].removeprefix("/v1/").removesuffix(":access")
            asked.append(version)
            found = held.get(version, 404)
            if isinstance(found, bytes):
                status = 200
                answer = {"name": version, "payload": {"data": base64.b64encode(found).decode()}}
            else:
                status = found
                answer = {"error": {"code": status, "message": f"not to be had: {version}"}}
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer((LOOPBACK, 0), Versions)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    transport = SecretManagerServiceRestTransport(
        host=f"{LOOPBACK}:{server.server_port}", url_scheme="http", credentials=AnonymousCredentials()
    )
    client = partial(secretmanager.SecretManagerServiceClient, transport=transport)
    monkeypatch.setattr(secretmanager, "SecretManagerServiceClient", client)
    secrets._fetch.cache_clear()
    yield SimpleNamespace(held=held, asked=asked, server=server)
    secrets._fetch.cache_clear()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def load(tmp_path):
    """Load the settings of a repository whose ledger is where a text says."""

    def load(ledger=f"secret:{NAME}", **others):
        (tmp_path / "prompt.yaml").write_text(json.dumps({"repository": {"ledger": ledger, **others}}))
        return Settings.load(tmp_path)

    return load


def test_a_secret_is_fetched_when_it_is_needed_and_once(manager, load):
    manager.held[f"{NAME}/versions/latest"] = f"{VALUE}\n".encode()
    settings = load(queue=f"secret:{NAME}")
    assert settings.repository.may_have_ledger()
    assert manager.asked == []
    assert [settings.repository.ledger_url, settings.repository.queue_url] == [VALUE, VALUE]
    assert load().repository.ledger_url == VALUE
    assert manager.asked == [f"{NAME}/versions/latest"]


def test_a_version_can_be_named(manager, load):
    manager.held[f"{NAME}/versions/7"] = VALUE.encode()
    assert load(f"secret:{NAME}/versions/7").repository.ledger_url == VALUE
    assert manager.asked == [f"{NAME}/versions/7"]


def test_other_settings_ask_nobody(manager, load):
    assert load("postgresql://me:pw@host/db").repository.ledger_url == "postgresql://me:pw@host/db"
    assert load("secret.sqlite3").repository.ledger_url.endswith("/secret.sqlite3")
    assert manager.asked == []


@pytest.mark.parametrize("problem", [404, 403, 400, b"\xff\xfe\x00"], ids=str)
def test_a_secret_that_cannot_be_had_is_named_and_may_be_had_later(manager, load, problem):
    manager.held[f"{NAME}/versions/latest"] = problem
    settings = load()
    with pytest.raises(ConfigError, match=f"secret {NAME}/versions/latest: "):
        _ = settings.repository.ledger_url
    manager.held[f"{NAME}/versions/latest"] = VALUE.encode()
    assert settings.repository.ledger_url == VALUE


def test_a_name_that_makes_no_sense_is_named(manager, load):
    with pytest.raises(ConfigError, match="secret nonsense/versions/latest: "):
        _ = load("secret:nonsense").repository.ledger_url


def test_nothing_ever_shows_the_value_of_a_secret(manager, load, tmp_path):
    manager.held[f"{NAME}/versions/latest"] = VALUE.encode()
    settings = load(apdb="postgresql://apdb:pa55word@host/db")
    for _ in range(2):
        shown = CliRunner().invoke(main, ["config", "show", str(tmp_path)])
        assert shown.exit_code == 0
        everything = "\n".join(
            [shown.output, str(redacted(settings)), repr(settings), str(settings), settings.model_dump_json()]
        )
        assert "s3cret" not in everything
        assert "pa55word" not in everything
        assert f"secret:{NAME}" in shown.output
        assert redacted(settings)["repository"]["ledger"] == f"secret:{NAME}"
        # And the same again after it was fetched.
        assert settings.repository.ledger_url == VALUE


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:s3cret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:s3/cret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:s3?cret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:s3#cret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:[s3cret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://:s3cret@host/db", "postgresql://:***@host/db"),
        ("postgresql://me@host:5432/db?plugin=cloud_sql", "postgresql://me@host:5432/db?plugin=cloud_sql"),
        ("gs://bucket/a:b/c", "gs://bucket/a:b/c"),
        ("ledger.sqlite3", "ledger.sqlite3"),
    ],
)
def test_the_password_of_a_url_is_hidden_whatever_is_in_it(url, shown):
    assert redact(url) == shown


@pytest.mark.parametrize(
    "given",
    [
        {"ledger": ["postgresql://me:s3cret@host/db"]},
        {"ledger": {"url": "postgresql://me:s3cret@host/db"}},
        "postgresql://me:s3cret@host/db",
        {"incoming": ["x" * 49, "postgresql://me:s3cret@host/db"]},
    ],
)
def test_a_mistake_in_the_file_shows_no_password(tmp_path, given):
    (tmp_path / "prompt.yaml").write_text(json.dumps({"repository": given}))
    with pytest.raises(ConfigError, match="repository") as caught:
        Settings.load(tmp_path)
    assert "s3cret" not in str(caught.value)
