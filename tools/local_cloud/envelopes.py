"""The forms in which Pub/Sub passes a message on."""

import base64
from typing import Any

from google.pubsub_v1 import PubsubMessage


def envelope(subscription: str, message: PubsubMessage, attempt: int | None = None) -> dict[str, Any]:
    """Return what a wrapped message is; attempts are told where there is a dead-letter topic."""
    inner: dict[str, Any] = {
        "messageId": message.message_id,
        "message_id": message.message_id,
        "publishTime": publish_time(message),
        "publish_time": publish_time(message),
    }
    # As everywhere in this format, what is empty is left out.
    if message.data:
        inner["data"] = base64.b64encode(message.data).decode()
    if message.attributes:
        inner["attributes"] = dict(message.attributes)
    if message.ordering_key:
        inner["orderingKey"] = message.ordering_key
    outer: dict[str, Any] = {"message": inner, "subscription": subscription}
    return outer if attempt is None else {**outer, "deliveryAttempt": attempt}


def metadata(subscription: str, message: PubsubMessage) -> dict[str, str]:
    """Return the headers of an unwrapped message."""
    headers = {
        **message.attributes,
        "x-goog-pubsub-subscription-name": subscription,
        "x-goog-pubsub-message-id": message.message_id,
        "x-goog-pubsub-publish-time": publish_time(message),
    }
    return (
        {**headers, "x-goog-pubsub-ordering-key": message.ordering_key} if message.ordering_key else headers
    )


def publish_time(message: PubsubMessage) -> str:
    return f"{message.publish_time:%Y-%m-%dT%H:%M:%S}.{message.publish_time.microsecond // 1000:03d}Z"


def dead_letter(subscription: str, message: PubsubMessage, attempts: int) -> PubsubMessage:
    """Return what is published of a message that is given up."""
    _, project, _, subscription_id = subscription.split("/")
    source = {
        "DeliveryCount": str(attempts),
        "Subscription": subscription_id,
        "SubscriptionProject": project,
        "TopicPublishTime": publish_time(message),
    }
    added = {f"CloudPubSubDeadLetterSource{name}": value for name, value in source.items()}
    return PubsubMessage(
        data=message.data, attributes={**message.attributes, **added}, ordering_key=message.ordering_key
    )
