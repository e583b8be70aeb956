"""What Pub/Sub pushes: a message in one of the forms that a subscription can be set to.

Wrapped
    JSON ``{"subscription": ..., "message": {"data": base64, "messageId": ..., "attributes": {...}}}``.
Unwrapped
    The data alone; names and attributes are headers (the subscription's ``write_metadata``).
CloudEvent
    A wrapped message as the data of an event, in the binary or the structured mode (as Eventarc sends it).
Visit event
    A message as the data of a CloudEvent of the structured mode: what the bridge posts to a webhook. It comes
    by no subscription, so it is let in as one of the name `WEBHOOK`.
S3
    What an S3 store posts to a webhook: ``{"Records": [...]}``. It comes by no subscription, so it is let in
    as one of the name `S3`.

See https://cloud.google.com/pubsub/docs/push and https://cloud.google.com/pubsub/docs/payload-unwrapping.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from prompt_processing.domain.errors import BadRequestError

S3: Final = "s3"
WEBHOOK: Final = "webhook"
_METADATA: Final = "x-goog-pubsub-"
_STRUCTURED: Final = "application/cloudevents+json"


@dataclass(frozen=True, slots=True)
class Pushed:
    """A message that was pushed."""

    message_id: str
    subscription: str
    """Full name of the subscription."""
    data: str
    attributes: Mapping[str, str]
    """Attributes of the message; of an unwrapped one, all headers of the request."""


def parse(headers: Mapping[str, str], body: bytes) -> Pushed:
    """Read a request.

    Parameters
    ----------
    headers
        Headers of the request.
    body
        Its body.

    Raises
    ------
    BadRequestError
        If it is in none of the forms; the message says what is missing.
    """
    headers = {name.lower(): value for name, value in headers.items()}
    content: Any = _json(body)
    if headers.get("content-type", "").startswith(_STRUCTURED) and isinstance(content, dict):
        event, content = content, content.get("data")
        if isinstance(content, dict) and "kind" in content:
            return Pushed(_required(event, "id"), WEBHOOK, json.dumps(content), {})
    if isinstance(content, dict) and isinstance(content.get("message"), dict):
        return _wrapped(content)
    if isinstance(content, dict) and isinstance(content.get("Records"), list):
        return Pushed(headers.get("x-amz-request-id", ""), S3, _text(body), {})
    if f"{_METADATA}message-id" in headers:
        return Pushed(
            message_id=headers[f"{_METADATA}message-id"],
            subscription=_required(headers, f"{_METADATA}subscription-name"),
            data=_text(body),
            attributes=headers,
        )
    raise BadRequestError("not a message of Pub/Sub: no field message, and no header with its id")


def _wrapped(envelope: dict[str, Any]) -> Pushed:
    message = envelope["message"]
    attributes = message.get("attributes") or {}
    if not isinstance(attributes, dict):
        raise BadRequestError("message.attributes is no object")
    try:
        data = base64.b64decode(message.get("data") or "", validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise BadRequestError(f"message.data is not base64: {error}") from error
    return Pushed(
        message_id=_required(message, "messageId", "message_id"),
        subscription=_required(envelope, "subscription"),
        data=_text(data),
        attributes={str(name): str(value) for name, value in attributes.items()},
    )


def _required(fields: Mapping[str, Any], *names: str) -> str:
    for name in names:
        value = fields.get(name)
        if isinstance(value, str) and value:
            return value
    raise BadRequestError(f"{names[0]} is missing")


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None  # an unwrapped message may be anything


def _text(data: bytes) -> str:
    # Bytes that are not UTF-8 are not JSON either; the parser of the text reports it.
    return data.decode(errors="replace")
