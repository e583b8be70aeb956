"""Messages by HTTP: one CloudEvent per message (https://cloudevents.io, version 1.0, structured mode)."""

import asyncio
import json
import random
from collections.abc import Mapping, Sequence
from typing import Any, Final

import httpx2

from prompt_processing.domain.errors import RefusedMessageError, StoreError
from prompt_processing.messaging.attributes import attributes
from prompt_processing.messaging.port import NO_ORIGIN

TRIES: Final = 5
"""How often one message is posted before all are given back."""
FIRST_PAUSE: Final = 0.5
"""Longest wait after the first failure of a message; it doubles with each [s]."""
LONGEST_PAUSE: Final = 10.0
"""Longest wait that a server's Retry-After is obeyed for [s]."""
CONNECT_TIMEOUT: Final = 5.0
_REFUSED: Final = frozenset({400, 413, 422})
"""What is said of a message, and not of who sends it, where to, or when."""


class WebhookPublisher:
    """A `~prompt_processing.messaging.port.Publisher` that posts each message.

    A message is delivered when it was answered with a status from 200 to 299. When a call has failed and the
    same messages are given again, those that were delivered are not sent again.

    Parameters
    ----------
    url
        Where to post to.
    token
        Bearer token, none if empty.
    concurrency
        Most requests at the same time.
    timeout
        Longest wait for an answer [s].
    """

    def __init__(self, url: str, *, token: str, concurrency: int, timeout: float) -> None:
        self._url = url
        # What follows may be a secret.
        self._name = url.partition("?")[0]
        self._headers = {"Content-Type": "application/cloudevents+json"}
        self._token = token
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._concurrency = concurrency
        self._timeout = httpx2.Timeout(timeout, connect=CONNECT_TIMEOUT, pool=None)
        self._tried: tuple[str, ...] = ()
        self._delivered: set[str] = set()
        # Reads the certificates of the system, which takes longer than a request.
        self._tls = httpx2.create_ssl_context() if url.startswith("https:") else False

    def publish(self, bodies: Sequence[str], origin: Mapping[str, str] = NO_ORIGIN) -> None:
        """Send messages; see the port."""
        if tuple(bodies) != self._tried:
            self._tried, self._delivered = tuple(bodies), set()
        delivered = self._delivered
        asyncio.run(self._post_all([body for body in bodies if body not in delivered], origin, delivered))
        self._tried = ()

    async def _post_all(self, bodies: Sequence[str], origin: Mapping[str, str], delivered: set[str]) -> None:
        limits = httpx2.Limits(max_connections=self._concurrency)
        async with httpx2.AsyncClient(
            verify=self._tls, timeout=self._timeout, limits=limits, headers=self._headers
        ) as client:
            posts = (self._post(client, cloud_event(body, origin)) for body in bodies)
            results = await asyncio.gather(*posts, return_exceptions=True)
        delivered |= {body for body, result in zip(bodies, results, strict=True) if result is None}
        failures = [result for result in results if isinstance(result, BaseException)]
        # What is worth another try is tried again before one of them is given up.
        for failure in sorted(failures, key=lambda failure: isinstance(failure, RefusedMessageError)):
            raise failure

    async def _post(self, client: httpx2.AsyncClient, event: dict[str, Any]) -> None:
        content = json.dumps(event)
        headers = {"traceparent": event["traceparent"]} if "traceparent" in event else {}
        problem, pause = "", FIRST_PAUSE
        for attempt in range(TRIES):
            if attempt:
                await asyncio.sleep(pause)
            pause = FIRST_PAUSE * 2**attempt * random.uniform(0.5, 1.0)  # noqa: S311 (spreads the load)
            try:
                answer = await client.post(self._url, content=content, headers=headers)
            except httpx2.ReadTimeout as error:
                # That took long enough; whoever sends these messages tries again with what is left.
                raise StoreError(f"{self._name}: {event['id']}: no answer") from error
            except httpx2.HTTPError as error:
                problem = f"{type(error).__name__} {error}".strip()
                continue
            if answer.is_success:
                return
            problem = f"status {answer.status_code}"
            if answer.status_code in _REFUSED:
                said = answer.text.replace(self._token, "...") if self._token else answer.text
                raise RefusedMessageError(f"{self._name}: {event['id']}: {problem}: {said[:200]}")
            asked = answer.headers.get("retry-after", "")
            if asked.isdecimal():
                pause = min(float(asked), LONGEST_PAUSE)
        raise StoreError(f"{self._name}: {event['id']}: {problem}, {TRIES} times")


def cloud_event(body: str, origin: Mapping[str, str]) -> dict[str, Any]:
    """Return a message as a CloudEvent; its id is the same whenever it is sent."""
    message: dict[str, Any] = json.loads(body)
    found = attributes(body)
    event = {
        "specversion": "1.0",
        "type": f"prompt.{message['kind']}",
        "source": origin.get("source_topic", "prompt-processing"),
        "id": found.get("dedup_key")
        or ":".join(found[name] for name in ("kind", "instrument", "group") if name in found),
        "datacontenttype": "application/json",
        "data": message,
    }
    names = {"published_at": "time", "traceparent": "traceparent"}
    return event | {theirs: origin[ours] for ours, theirs in names.items() if ours in origin}
