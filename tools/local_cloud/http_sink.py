"""An HTTP server that takes messages, and answers as it is told."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple, Self

from local_cloud.servers import LOOPBACK
from prompt_processing.serving.envelope import Pushed, parse

_FOREVER = 60.0


@dataclass(frozen=True, slots=True)
class Posted:
    """A request that came."""

    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    at: float
    """When its body was read, by `time.monotonic` [s]."""

    @property
    def pushed(self) -> Pushed:
        """The message, as a service of ours understands it."""
        return parse(self.headers, self.body)


class Answer(NamedTuple):
    """What a request is answered."""

    status: int
    headers: Mapping[str, str] = {}
    text: str = ""


HANG = Answer(-1)
"""No answer while the server runs."""
CLOSE = Answer(-2)
"""The connection is closed instead of an answer."""
type Answering = Callable[[Posted], Answer]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1000


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps connections
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def in_turn(*answers: Answer | int) -> Answering:
    """Answer the first request with an id with the first of some answers, and so on; the last one remains."""
    seen: Counter[str] = Counter()
    lock = threading.Lock()

    def answer(posted: Posted) -> Answer:
        name = posted.pushed.message_id
        with lock:
            turn = min(seen[name], len(answers) - 1)
            seen[name] += 1
        found = answers[turn]
        return Answer(found) if isinstance(found, int) else found

    return answer


class HttpSink:
    """A server on the loopback interface; use it as a context manager."""

    def __init__(self) -> None:
        self.answer: Answering = lambda _: Answer(204)
        """Says what a request is answered. It runs in the thread of the request, and may take its time."""
        self.requests: list[Posted] = []
        self._taken: list[Posted] = []
        self.n_open = 0
        self.most_open = 0
        self.changed = threading.Condition()
        """Notified when a request comes or goes."""
        self._over = threading.Event()

    def __enter__(self) -> Self:
        sink = self

        class Handler(_Handler):
            def do_POST(self) -> None:
                sink._serve(self)

        self._server = _Server((LOOPBACK, 0), Handler)
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, args=(0.02,), name="sink", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}/messages"

    @property
    def delivered(self) -> list[Pushed]:
        """The messages that were answered with a status from 200 to 299, in the order of their answers."""
        return [posted.pushed for posted in self._taken]

    def _serve(self, handler: "_Handler") -> None:
        headers = {name.lower(): value for name, value in handler.headers.items()}
        body = handler.rfile.read(int(headers["content-length"]))
        posted = Posted(headers, body, time.monotonic())
        with self.changed:
            self.requests.append(posted)
            self.n_open += 1
            self.most_open = max(self.most_open, self.n_open)
            self.changed.notify_all()
        try:
            answer = self.answer(posted)
        finally:
            # Whoever gets the answer may send the next request at once.
            with self.changed:
                self.n_open -= 1
                self.changed.notify_all()
        if answer is HANG:
            self._over.wait(_FOREVER)
        if answer in (HANG, CLOSE):
            handler.close_connection = True
            return
        if 200 <= answer.status < 300:
            self._taken.append(posted)
        data = answer.text.encode()
        with suppress(ConnectionError):
            handler.send_response(answer.status)
            for name, value in answer.headers.items():
                handler.send_header(name, value)
            if answer.status != 204:
                handler.send_header("Content-Length", str(len(data)))
            handler.end_headers()
            handler.wfile.write(data)
