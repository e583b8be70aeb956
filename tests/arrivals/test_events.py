"""What object stores say of new objects, in every form, and what is none of them."""

import json

import pytest
from structlog.testing import capture_logs

from prompt_processing.arrivals.events import ObjectEvent, from_google, from_s3
from prompt_processing.domain.errors import BadRequestError
from prompt_processing.domain.raws import parse_raw_key

KEY = "LATISS/20260315/AT_O_20260315_000007/AT_O_20260315_000007_R00_S00.fits"
GOOGLE = {
    "eventType": "OBJECT_FINALIZE",
    "bucketId": "landing",
    "objectId": KEY,
    "objectGeneration": "1773540000000000",
    "payloadFormat": "NONE",
    "notificationConfig": "projects/_/buckets/landing/notificationConfigs/1",
    "eventTime": "2026-03-15T02:03:04.567Z",
}


def record(key=KEY, event="ObjectCreated:Put", bucket="landing"):
    """Return what S3 says of an object, without what nobody reads."""
    thing = {"key": key, "size": 1024, "eTag": "d41d8cd98f00b204e9800998ecf8427e", "sequencer": "0055AED6"}
    s3 = {
        "s3SchemaVersion": "1.0",
        "configurationId": "raws",
        "bucket": {"name": bucket, "ownerIdentity": {"principalId": "A3"}, "arn": f"arn:aws:s3:::{bucket}"},
        "object": thing,
    }
    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "us-west-2",
        "eventTime": "2026-03-15T02:03:04.567Z",
        "eventName": event,
        "s3": s3,
    }


def aws(*records):
    return json.dumps({"Records": list(records)})


def test_google_says_it_in_attributes():
    assert from_google(GOOGLE) == [ObjectEvent("landing", KEY)]


def test_google_says_it_in_headers_in_small_letters_among_others():
    headers = {name.lower(): value for name, value in GOOGLE.items()}
    assert from_google({**headers, "host": "x", "content-length": "0"}) == [ObjectEvent("landing", KEY)]


def test_a_key_of_google_is_taken_as_it_is():
    key = "a b/é+%2F/../#?"
    assert from_google(GOOGLE | {"objectId": key}) == [ObjectEvent("landing", key)]


@pytest.mark.parametrize(
    "event", ["OBJECT_DELETE", "OBJECT_METADATA_UPDATE", "OBJECT_ARCHIVE", "object_finalize", "SOMETHING_NEW"]
)
def test_nothing_but_a_new_object_of_google_is_an_event(event):
    assert from_google(GOOGLE | {"eventType": event}) == []


@pytest.mark.parametrize("name", ["eventType", "bucketId", "objectId"])
@pytest.mark.parametrize("value", [None, ""])
def test_what_is_missing_of_google_is_named(name, value):
    changed = {key: found for key, found in GOOGLE.items() if key != name}
    if value is not None:
        changed[name] = value
    with pytest.raises(BadRequestError, match=name):
        from_google(changed)


def test_an_event_of_aws():
    assert from_s3(aws(record())) == [ObjectEvent("landing", KEY)]


def test_an_event_of_minio_as_a_webhook_gets_it():
    body = {"EventName": "s3:ObjectCreated:Put", "Key": f"landing/{KEY}", "Records": [record()]}
    assert from_s3(json.dumps(body)) == [ObjectEvent("landing", KEY)]


def test_an_event_of_minio_as_redis_gets_it():
    event = record(event="s3:ObjectCreated:CompleteMultipartUpload")
    body = [{"Event": [event], "EventTime": "2026-03-15T02:03:04Z"}]
    assert from_s3(json.dumps(body)) == [ObjectEvent("landing", KEY)]


def test_several_objects_at_once():
    records = [
        record("a"),
        record("b", "ObjectRemoved:Delete"),
        record("c", "ObjectCreated:Copy"),
        record("d"),
    ]
    assert [event.key for event in from_s3(aws(*records))] == ["a", "c", "d"]
    envelopes = [{"Event": [record("a"), record("b")]}, {"Records": [record("c")]}]
    assert [event.key for event in from_s3(json.dumps(envelopes))] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("sent", "key"),
    [
        ("a+b", "a b"),
        ("a%2Bb", "a+b"),
        ("LATISS%2F20260315%2Fx.fits", "LATISS/20260315/x.fits"),
        ("group%23%3F%25", "group#?%"),
        ("%C3%A9", "é"),
        ("%2e%2e/x", "../x"),
        ("%252e", "%2e"),
        ("%ff", "�"),
    ],
)
def test_a_key_of_s3_is_decoded_once(sent, key):
    assert from_s3(aws(record(sent))) == [ObjectEvent("landing", key)]


@pytest.mark.parametrize(
    "name",
    ["ObjectRemoved:Delete", "s3:ObjectRemoved:Delete", "s3:ObjectAccessed:Get", "ObjectRestore:Completed",
     "s3:TestEvent", "Evil:ObjectCreated:Put", ""],
)  # fmt: skip
def test_nothing_but_a_new_object_of_s3_is_an_event(name):
    assert from_s3(aws(record(event=name))) == []


def test_what_cannot_be_read_among_others_does_not_take_them_along():
    with capture_logs() as lines:
        assert from_s3(aws(record(key=7), record(), {})) == [ObjectEvent("landing", KEY)]
    assert [line["records"] for line in lines] == [2]


@pytest.mark.parametrize(
    "body",
    [
        "",
        "not json",
        "null",
        "3",
        '"x"',
        "{}",
        "[3]",
        '{"Records": 3}',
        '{"Records": "abc"}',
        '{"Records": [3]}',
        '{"Records": [[]]}',
        '{"Records": [{}]}',
        '{"Records": [{"eventName": 3, "s3": {}}]}',
        '{"Records": [{"eventName": "ObjectCreated:Put", "s3": {"bucket": "b", "object": "k"}}]}',
        '{"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "landing"}',
        aws(record(key=7)),
        aws(record(key=None)),
        "[" * 100_000,
        '{"Records": [' + "9" * 10_000 + "]}",
    ],
)
def test_what_is_no_event_of_s3_is_refused(body):
    with pytest.raises(BadRequestError, match="not a notification of an S3 store"):
        from_s3(body)


@pytest.mark.parametrize(
    "key",
    [
        KEY.replace("/20260315/", "/\uff12\uff10\uff12\uff16\uff10\uff13\uff11\uff15/"),
        KEY.replace("/20260315/", "/\u0662\u0660\u0662\u0666\u0660\u0663\u0661\u0665/"),
        f"{KEY}\n",
        f"\n{KEY}",
        f"{KEY} ",
        f"/{KEY}",
        f"./{KEY}",
        f"LATISS/../{KEY}",
        KEY.replace("LATISS", "LATÍSS"),
        KEY.replace("_R00", "_R0\0"),
        KEY.replace(".fits", ".fits#1"),
        KEY.replace(".fits", ".FITS"),
        KEY.replace(".fits", ".json"),
    ],
)
def test_what_only_looks_like_the_key_of_a_raw_is_none(key):
    assert parse_raw_key(key) is None
