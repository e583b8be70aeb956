"""Probes of a service that has no requests otherwise."""

import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self

PORT: Final = "PORT"
"""Variable with the port to listen at; there are no probes without it."""


class Health:
    """Answers ``GET /live`` and ``GET /ready`` in threads of its own, while the context is open."""

    def __init__(self) -> None:
        self._ready = threading.Event()
        port = os.environ.get(PORT)
        self._server = None if port is None else _serve(int(port), self._ready)

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
        self._ready.set()


def _serve(port: int, ready: threading.Event) -> ThreadingHTTPServer:
    class Probe(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.path in {"/live", "/ready"}
            fine = self.path == "/live" or ready.is_set()
            self.send_response((200 if fine else 503) if known else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing: a probe comes every few seconds."""

    return ThreadingHTTPServer((os.environ.get("HOST", "0.0.0.0"), port), Probe)  # noqa: S104 (a container's)
