"""Probes and metrics of a service that has no requests otherwise."""

import os
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self

PORT: Final = "PORT"
"""Variable with the port to listen at; there are no probes without it."""


class Health:
    """Answers ``GET /live``, ``/ready`` and ``/metrics`` in threads of its own, while the context is open.

    Parameters
    ----------
    is_alive
        Whether the service does what it should; one that does not is to be started anew.
    is_ready
        Whether it works.
    metrics
        Returns the metrics in the text form of Prometheus; there are none if it is `None`.
    """

    def __init__(
        self,
        *,
        is_alive: Callable[[], bool] = lambda: True,
        is_ready: Callable[[], bool] = lambda: True,
        metrics: Callable[[], bytes] | None = None,
    ) -> None:
        self._is_alive = is_alive
        self._is_ready = is_ready
        self._metrics = metrics
        self._began = threading.Event()
        port = os.environ.get(PORT)
        self._server = None if port is None else self._serve(int(port))

    def __enter__(self) -> Self:
        if self._server is not None:
            threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def ready(self) -> None:
        """Say that the work begins."""
        self._began.set()

    def answer(self, path: str) -> tuple[int, bytes]:
        """Return status and body for a path."""
        match path:
            case "/live":
                return (200 if self._is_alive() else 503), b""
            case "/ready":
                return (200 if self._began.is_set() and self._is_ready() else 503), b""
            case "/metrics" if self._metrics is not None:
                return 200, self._metrics()
        return 404, b""

    def _serve(self, port: int) -> ThreadingHTTPServer:
        answer = self.answer

        class Probe(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = answer(self.path)
                self.send_response(status)
                self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Say nothing: a probe comes every few seconds."""

        return ThreadingHTTPServer((os.environ.get("HOST", "0.0.0.0"), port), Probe)  # noqa: S104 (a container's)
