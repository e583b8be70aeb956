"""What is wrong with the settings of a bridge is said at once, in one line that names the setting."""

import logging
import re

import pytest

from prompt_processing.config import KafkaSettings
from prompt_processing.domain.errors import ConfigError
from prompt_processing.factory.bridge import BridgeFactory
from prompt_processing.messaging import kafka

RIGHT = {
    "PROMPT_KAFKA__SERVERS": "127.0.0.1:9",
    "PROMPT_KAFKA__SECURITY": "plaintext",
    "PROMPT_KAFKA__REGISTRY": "http://127.0.0.1:9",
    "PROMPT_BRIDGE__SINK": "stdout",
}


@pytest.fixture
def check(monkeypatch, tmp_path):
    """Returns what a check tells with some settings."""

    def run(**changes):
        for name, value in (RIGHT | changes).items():
            monkeypatch.setenv(name, value)
        return {found.name: found for found in BridgeFactory(tmp_path).check(send=False)}

    return run


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"PROMPT_KAFKA__SERVERS": ""}, r"kafka\.servers"),
        ({"PROMPT_KAFKA__SECURITY": "sasl_ssl"}, r"kafka\.user and kafka\.password"),
        ({"PROMPT_KAFKA__CA_FILE": "/nowhere/ca.pem"}, r"kafka\.ca_file: /nowhere/ca\.pem: .*No such file"),
        ({"PROMPT_KAFKA__CA_FILE": __file__}, rf"kafka\.ca_file: {__file__}: .*no certificate"),
        ({"PROMPT_KAFKA__REGISTRY": ""}, r"kafka\.registry"),
        ({"PROMPT_KAFKA__REGISTRY_USER": "me"}, r"kafka\.registry_password"),
        ({"PROMPT_KAFKA__REGISTRY_PASSWORD": "x"}, r"kafka\.registry_user"),
        ({"PROMPT_BRIDGE__SCRIPT_QUEUES": '{"1": ["HSC"]}'}, r"script_queues: HSC.* LATISS, LSSTCam"),
    ],
)
def test_a_wrong_setting_is_named_before_anybody_is_asked(check, changes, match):
    with pytest.raises(ConfigError, match=match):
        check(**changes)


def test_credentials_that_are_missing_are_a_wrong_setting(check, monkeypatch, tmp_path):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    monkeypatch.delenv("PUBSUB_EMULATOR_HOST", raising=False)
    found = check(PROMPT_BRIDGE__SINK="pubsub", PROMPT_PUBSUB__TOPIC="projects/prompt/topics/next-visit")
    assert not found["sink pubsub"].fine
    assert re.match(r"Pub/Sub: .*none\.json", found["sink pubsub"].text)


@pytest.mark.parametrize(
    ("sink", "wrong"),
    [
        ("pubsub", "pubsub.topic"),
        ("webhook", "webhook.url"),
        ("queue", "unable to open"),
    ],
)
def test_a_sink_that_cannot_be_made_does_not_hide_the_rest(check, sink, wrong):
    found = check(PROMPT_BRIDGE__SINK=sink, PROMPT_REPOSITORY__QUEUE="/nowhere/queue.sqlite3")
    assert {"brokers", "LATISS", f"sink {sink}"} <= found.keys()
    assert not found[f"sink {sink}"].fine
    assert wrong in found[f"sink {sink}"].text


def test_a_broker_that_is_not_there_is_named(check):
    found = check()
    assert not found["brokers"].fine
    assert "127.0.0.1:9" in found["brokers"].text
    assert found["sink stdout"].fine is None


def test_the_kafka_client_says_the_same_only_now_and_then(caplog, monkeypatch):
    monkeypatch.setattr(kafka, "_SELDOM", kafka._Seldom())
    logger = kafka.connection(KafkaSettings(servers="b:9", security="plaintext"))["logger"]
    for broker in ("one", "two"):
        for tries in range(20):
            logger.error(
                "FAIL [us#consumer-%d] [thrd:%s]: %s: refused (after %dms)", tries, broker, broker, tries
            )
    logger.error("something else")
    said = [record.getMessage().partition("]: ")[2] for record in caplog.records]
    assert said == ["one: refused (after 0ms)", "two: refused (after 0ms)", ""]
    assert logger.isEnabledFor(logging.ERROR)
