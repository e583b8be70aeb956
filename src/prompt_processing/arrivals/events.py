"""What object stores say when an object has appeared: Google Cloud Storage by Pub/Sub, and S3.

https://cloud.google.com/storage/docs/pubsub-notifications
https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html
(Ceph and MinIO send the same)
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote_plus

import structlog

from prompt_processing.domain.errors import BadRequestError

FINALIZE: Final = "OBJECT_FINALIZE"
_CREATED: Final = "ObjectCreated:"
_UNREADABLE: Final = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
_LOG: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ObjectEvent:
    """An object has appeared, or one was replaced."""

    bucket: str
    key: str
    """Key within the bucket."""


def from_google(attributes: Mapping[str, str]) -> list[ObjectEvent]:
    """Read a notification of Google Cloud Storage; its attributes tell everything.

    Parameters
    ----------
    attributes
        Attributes of the message. The names may be in small letters, as headers are.

    Returns
    -------
    events
        One event; none if something else has happened to the object.

    Raises
    ------
    BadRequestError
        If it is no notification.
    """
    found = {name.lower(): value for name, value in attributes.items()}
    missing = [name for name in ("eventType", "bucketId", "objectId") if not found.get(name.lower())]
    if missing:
        raise BadRequestError(f"not a notification of Cloud Storage: attribute {missing[0]} is missing")
    if found["eventtype"] != FINALIZE:
        return []
    return [ObjectEvent(found["bucketid"], found["objectid"])]


def from_s3(body: str) -> list[ObjectEvent]:
    """Read a notification of an S3 store, also one that MinIO has put into an envelope for Redis.

    Returns
    -------
    events
        An event for each object that was made; a store may tell of several at once. What cannot be read
        among them is logged.

    Raises
    ------
    BadRequestError
        If it is no notification, or nothing of it can be read.
    """
    try:
        content: Any = json.loads(body)
        envelopes = content if isinstance(content, list) else [content]
        records = [record for item in envelopes for record in item.get("Records") or item["Event"]]
    except _UNREADABLE as error:
        raise BadRequestError(f"not a notification of an S3 store: {error!r}") from error
    events, problems = [], []
    for record in records:
        try:
            # AWS sends s3:ObjectCreated:Put without its prefix, MinIO with it.
            if record["eventName"].removeprefix("s3:").startswith(_CREATED):
                place = record["s3"]
                events.append(ObjectEvent(place["bucket"]["name"], unquote_plus(place["object"]["key"])))
        except _UNREADABLE as error:
            problems.append(error)
    if problems and not events:
        raise BadRequestError(f"not a notification of an S3 store: {problems[0]!r}")
    if problems:
        _LOG.error("records of a notification cannot be read", records=len(problems), error=repr(problems[0]))
    return events
