"""The border of a service: what a request must be before anything is done for it."""

import io
from collections.abc import Callable
from typing import Final

import structlog
from flask import Request, Response

from prompt_processing.config import PushSettings
from prompt_processing.domain.errors import ForbiddenError, RequestError, RetriableError, TooLargeError
from prompt_processing.serving.envelope import Pushed, parse
from prompt_processing.serving.identity import TokenVerifier

_LOG: Final = structlog.get_logger(__name__)

NO_CONTENT: Final = 204
UNAVAILABLE: Final = 503


class Border:
    """Lets messages in that Pub/Sub pushes, and answers probes.

    Parameters
    ----------
    settings
        Whose requests are obeyed.
    verifier
        Checks the tokens.
    handle
        Handles a message that was let in, and returns the status of the answer.
    is_ready
        Tells whether the service can work.
    """

    def __init__(
        self,
        settings: PushSettings,
        verifier: TokenVerifier,
        *,
        handle: Callable[[Pushed], int],
        is_ready: Callable[[], bool],
    ) -> None:
        self._settings = settings
        self._verifier = verifier
        self._handle = handle
        self._is_ready = is_ready

    def serve(self, request: Request) -> Response:
        """Answer a request: ``GET /live`` and ``GET /ready`` are probes, a ``POST`` is a push."""
        try:
            return self._answer(request)
        finally:
            _drop_body(request)

    def _answer(self, request: Request) -> Response:
        if request.method == "GET":
            return self._probe(request.path)
        if request.method != "POST":
            return Response(status=405)
        try:
            pushed = self._let_in(request)
            return Response(status=self._handle(pushed))
        except RequestError as error:
            # The reason goes to the log only: an unauthorized caller gets just the status.
            _LOG.warning(
                "request refused", status=error.status, reason=str(error), caller=request.remote_addr
            )
            return Response(status=error.status)
        except RetriableError as error:
            _LOG.warning("request not handled", error=str(error))
            return Response(status=UNAVAILABLE)

    def _probe(self, path: str) -> Response:
        if path == "/live":
            return Response("alive\n")
        if path == "/ready":
            ready = self._is_ready()
            return Response("ready\n" if ready else "not ready\n", status=200 if ready else UNAVAILABLE)
        return Response(status=404)

    def _let_in(self, request: Request) -> Pushed:
        self._verifier.verify(request.headers.get("Authorization"))
        pushed = parse(dict(request.headers), _read_body(request, self._settings.max_body_kb * 1000))
        if pushed.subscription not in self._settings.subscriptions:
            raise ForbiddenError(f"message of subscription {pushed.subscription!r}")
        return pushed


def _read_body(request: Request, limit: int) -> bytes:
    """Return the body, plain or chunked; read at most one byte more than the limit."""
    length = request.content_length
    body = b""
    if length is None or length <= limit:
        body = bytes(request.environ["wsgi.input"].read(limit + 1 if length is None else length))
    if max(len(body), length or 0) > limit:
        raise TooLargeError(f"more than {limit // 1000} kB")
    return body


def _drop_body(request: Request) -> None:
    """Discard the rest of a body: the framework would read all of it into memory."""
    request.environ |= {"wsgi.input": io.BytesIO(), "CONTENT_LENGTH": "0"}
    request.environ.pop("HTTP_TRANSFER_ENCODING", None)
    request.__dict__.pop("stream", None)  # made anew from the environment
