"""A service behind its border, called as Pub/Sub and others call it, with the lines of its log."""

import io
import json
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import functions_framework
import structlog
from flask import Flask
from google.pubsub_v1 import PubsubMessage
from werkzeug.test import TestResponse

from local_cloud.envelopes import envelope
from local_cloud.tokens import TokenIssuer
from prompt_processing.config import PushSettings, WorkerSettings
from prompt_processing.domain.outcome import Outcome
from prompt_processing.ledger.memory import MemoryLedger
from prompt_processing.runtime import logs
from prompt_processing.serving.activator import Activator
from prompt_processing.serving.border import Border
from prompt_processing.serving.identity import TokenVerifier
from prompt_processing.worker.worker import Worker

AUDIENCE = "https://service.example"
CALLER = "pusher@project.iam.gserviceaccount.com"
SUBSCRIPTION = "projects/p/subscriptions/s"
MAX_BODY_KB = 64
LONG = 60.0
"""Longest wait for what is to happen at once [s]."""

_SERVED: dict[str, Border] = {}
_SOURCE = """
from support import border


def service(request):
    return border._SERVED[__file__].serve(request)
"""


def application(border: Border, folder: Path) -> Flask:
    """Return what gunicorn serves."""
    source = folder / "service_of_tests.py"
    source.write_text(_SOURCE)
    _SERVED[str(source)] = border
    return functions_framework.create_app("service", str(source), "http")


def message(data: bytes | str, message_id: str = "1", **attributes: str) -> PubsubMessage:
    """Return a message as Pub/Sub has it."""
    body = data.encode() if isinstance(data, str) else data
    published = datetime(2026, 3, 15, tzinfo=UTC)
    return PubsubMessage(data=body, message_id=message_id, attributes=attributes, publish_time=published)


def wrapped(
    data: bytes | str, message_id: str = "1", subscription: str = SUBSCRIPTION, **attributes: str
) -> bytes:
    """Return the body of a request that pushes a message."""
    return json.dumps(envelope(subscription, message(data, message_id, **attributes))).encode()


class Served:
    """A service that can be called.

    Parameters
    ----------
    issuer
        Who signs the tokens that it accepts.
    folder
        An empty folder.
    handle, is_ready
        What is behind the border.
    subscriptions
        Whose messages are taken.
    """

    def __init__(
        self,
        issuer: TokenIssuer,
        folder: Path,
        handle: Any,
        is_ready: Any = lambda: True,
        subscriptions: tuple[str, ...] = (SUBSCRIPTION,),
    ) -> None:
        self.issuer = issuer
        settings = PushSettings(
            audience=AUDIENCE,
            callers=(CALLER,),
            keys_url=issuer.jwks_url,
            subscriptions=subscriptions,
            max_body_kb=MAX_BODY_KB,
        )
        border = Border(settings, TokenVerifier(settings, {}), handle=handle, is_ready=is_ready)
        self.app = application(border, folder)

    def token(self) -> str:
        return self.issuer.issue(AUDIENCE, CALLER)

    def headers(self, **changes: str | None) -> dict[str, str]:
        """Return headers of a request that is let in, with some changed or left out."""
        given = {"Authorization": f"Bearer {self.token()}", "Content-Type": "application/json"} | changes
        return {name: value for name, value in given.items() if value is not None}

    def call(self, method: str, path: str = "/", **options: Any) -> TestResponse:
        """Make any request."""
        return self.app.test_client().open(path, method=method, **options)

    def post(self, body: bytes, headers: Mapping[str, str] | None = None, **options: Any) -> TestResponse:
        """Make a request as Pub/Sub does; headers in place of its own can be given."""
        return self.call("POST", data=body, headers=self.headers() if headers is None else headers, **options)


class RecordingRunner:
    """Does no work, and remembers for what; it can be held up in the middle of it."""

    def __init__(self) -> None:
        self.visits: list[Any] = []
        self.results: list[Outcome | Exception] = []
        """What comes of the next visits; all others are processed."""
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def run(self, visit: Any, claim: Any, watch: Any) -> Outcome:
        self.visits.append(visit.key)
        self.begun.set()
        assert self.go_on.wait(LONG)
        result = self.results.pop(0) if self.results else Outcome.processed()
        if isinstance(result, Exception):
            raise result
        return result


class StubEngine:
    """What the activator sees of an engine."""

    def __init__(self) -> None:
        self.can_work = True
        self.drained = self.closed = False
        self.on_drain: Any = lambda: None

    def is_ready(self) -> bool:
        return self.can_work

    def drain(self) -> None:
        self.drained = True
        self.on_drain()

    def close(self) -> None:
        self.closed = True


class ServedWorker(Served):
    """An activator on a ledger in memory, with a runner that only remembers.

    Parameters
    ----------
    issuer, folder
        See `Served`.
    longest
        How long a visit may take.
    instruments
        Whose messages are taken.
    """

    def __init__(
        self, issuer: TokenIssuer, folder: Path, longest: Any = lambda _: 0.0, instruments: Any = ()
    ) -> None:
        self.ledger, self.runner, self.engine = MemoryLedger(), RecordingRunner(), StubEngine()
        worker = Worker(
            ledger=self.ledger,
            runner=self.runner,
            owner="w1",
            settings=WorkerSettings(),
            instruments=instruments,
        )
        engine: Any = self.engine
        self.activator = Activator(worker, engine, longest)
        super().__init__(issuer, folder, self.activator.handle, self.activator.is_ready)

    def effects(self) -> dict[str, Any]:
        """Return all that has been done so far."""
        return {
            "runs": list(self.runner.visits),
            "visits": self.ledger.detector_visits(),
            "cancelled": sorted(self.ledger._cancelled),
            "arrivals": self.ledger.arrivals(),
        }


class Log:
    """What a service has written to its log."""

    def __init__(self) -> None:
        self._stream = io.StringIO()

    @property
    def text(self) -> str:
        return self._stream.getvalue()

    def lines(self, *severities: str) -> list[dict[str, Any]]:
        """Return the lines, or those of some severities; each must be a JSON object."""
        found = [json.loads(line) for line in self.text.splitlines()]
        return [line for line in found if not severities or line["severity"] in severities]

    @property
    def problems(self) -> list[dict[str, Any]]:
        return self.lines("WARNING", "ERROR", "CRITICAL")


@contextmanager
def service_log() -> Iterator[Log]:
    """Log as a service does, while the context is open."""
    root, ours = logging.getLogger(), logging.getLogger("prompt_processing")
    before = list(root.handlers), root.level, ours.level
    configured, config = structlog.is_configured(), structlog.get_config()
    log = Log()
    with redirect_stdout(log._stream):
        logs.configure(("prompt_processing=INFO",), as_json=True)
    # Loggers that are used in a test must not keep what applies here.
    structlog.configure(cache_logger_on_first_use=False)
    try:
        yield log
    finally:
        logging.captureWarnings(capture=False)
        root.handlers, root.level, ours.level = before
        logging.getLogger().manager._clear_cache()
        structlog.reset_defaults()
        if configured:
            structlog.configure(**config)
