"""Every form in which Pub/Sub pushes a message, and what is none."""

import base64
import json

import pytest

from prompt_processing.domain.errors import BadRequestError
from prompt_processing.serving.envelope import S3, parse

SUBSCRIPTION = "projects/p/subscriptions/s"
DATA = '{"kind": "warmup", "instrument": "LATISS", "schema_version": 1}'


def wrapped(**changes):
    message = {
        "data": base64.b64encode(DATA.encode()).decode(),
        "messageId": "7",
        "message_id": "7",
        "attributes": {"instrument": "LATISS"},
        "publishTime": "2026-03-15T01:02:03Z",
    }
    return {"subscription": SUBSCRIPTION, "deliveryAttempt": 2, "message": message | changes}


def test_a_wrapped_message():
    pushed = parse({"Content-Type": "application/json"}, json.dumps(wrapped()).encode())
    assert (pushed.message_id, pushed.subscription, pushed.data) == ("7", SUBSCRIPTION, DATA)
    assert pushed.attributes == {"instrument": "LATISS"}


def test_an_unwrapped_message_with_its_metadata_as_headers():
    headers = {
        "Content-Type": "application/x-www-form-urlencoded",
        "X-Goog-Pubsub-Message-Id": "7",
        "X-Goog-Pubsub-Subscription-Name": SUBSCRIPTION,
        "eventType": "OBJECT_FINALIZE",
    }
    pushed = parse(headers, DATA.encode())
    assert (pushed.message_id, pushed.subscription, pushed.data) == ("7", SUBSCRIPTION, DATA)
    assert pushed.attributes["eventtype"] == "OBJECT_FINALIZE"


def test_a_cloud_event_in_binary_mode():
    headers = {
        "Content-Type": "application/json",
        "ce-id": "7",
        "ce-type": "google.cloud.pubsub.topic.v1.messagePublished",
        "ce-source": "//pubsub.googleapis.com/projects/p/topics/t",
        "ce-specversion": "1.0",
    }
    assert parse(headers, json.dumps(wrapped()).encode()).data == DATA


def test_a_cloud_event_in_structured_mode():
    event = {"specversion": "1.0", "id": "7", "type": "t", "source": "s", "data": wrapped()}
    headers = {"content-type": "application/cloudevents+json; charset=utf-8"}
    assert parse(headers, json.dumps(event).encode()).message_id == "7"


def test_what_an_s3_store_posts():
    body = b'{"EventName": "s3:ObjectCreated:Put", "Key": "b/k", "Records": [{"eventName": "..."}]}'
    pushed = parse({"Content-Type": "application/json"}, body)
    assert (pushed.subscription, pushed.data) == (S3, body.decode())


def test_a_message_without_data_or_attributes_is_one():
    envelope = wrapped()
    del envelope["message"]["data"], envelope["message"]["attributes"]
    pushed = parse({}, json.dumps(envelope).encode())
    assert pushed.data == ""
    assert pushed.attributes == {}


def without(*path):
    envelope = wrapped()
    inner = envelope
    for name in path[:-1]:
        inner = inner[name]
    del inner[path[-1]]
    return json.dumps(envelope).encode()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not a message"),
        (b"not json", "not a message"),
        (b"[1, 2]", "not a message"),
        (b"[" * 100_000, "not a message"),
        (b'{"message": 3}', "not a message"),
        (b'{"message": {}}', "messageId is missing"),
        (without("subscription"), "subscription is missing"),
        (json.dumps(wrapped(data="%%%")).encode(), "base64"),
        (json.dumps(wrapped(data=[1])).encode(), "base64"),
        (json.dumps(wrapped(attributes=[1])).encode(), "attributes"),
        (json.dumps(wrapped(messageId=7, message_id=7)).encode(), "messageId"),
    ],
)
def test_what_is_no_message_is_refused_with_the_reason(body, reason):
    with pytest.raises(BadRequestError, match=reason):
        parse({"Content-Type": "application/json"}, body)


def test_bytes_that_are_no_text_are_left_to_whoever_reads_the_message():
    data = base64.b64encode(b"\xff\xfe").decode()
    assert parse({}, json.dumps(wrapped(data=data)).encode()).data == "��"
