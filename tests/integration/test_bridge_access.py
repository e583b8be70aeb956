"""What brokers must prove to the bridge, what they may refuse, and how that is told."""

from functools import partial

import pytest
import requests
from confluent_kafka.admin import AclOperation, ResourceType

from local_cloud.bridge_world import FOREVER, bridge_process, bridge_service, keys, metrics
from support.engines import wait_for

pytestmark = pytest.mark.slow
until = partial(wait_for, timeout=FOREVER)


def tls(kafka, ca_file, servers=None):
    return {
        "PROMPT_KAFKA__SECURITY": "sasl_ssl",
        "PROMPT_KAFKA__SERVERS": servers or kafka.tls,
        "PROMPT_KAFKA__USER": kafka.user,
        "PROMPT_KAFKA__PASSWORD": kafka.password,
        "PROMPT_KAFKA__CA_FILE": str(ca_file),
    }


def test_a_broker_that_does_not_prove_who_it_is_is_refused(
    kafka, observatory, receiver, bridge_settings, command, tmp_path
):
    observatory.announce("a")
    observatory.cancel("a")
    right = tls(kafka, kafka.ca_file)
    assert command("check", tmp_path, "--send", **right).count(": ok: ") == 10
    receiver.wait_for({"warmup:LATISS", "warmup:LSSTCam"})
    wrong = [
        ("certificate verify failed", tls(kafka, kafka.wrong_ca_file)),
        ("certificate verify failed", tls(kafka, kafka.ca_file, kafka.tls_wrong_host)),
        ("authentication failed", {**right, "PROMPT_KAFKA__PASSWORD": "guess"}),
    ]
    for why, changed in wrong:
        out = command("check", tmp_path, code=1, **changed)
        assert "brokers: WRONG" in out
        assert why in out.lower()
        assert kafka.password not in out
    with bridge_process(bridge_settings(**right)):
        receiver.wait_for(keys("a"))


def test_a_bridge_is_not_ready_while_a_topic_is_missing(kafka, observatory, receiver, bridge_settings):
    missing = f"later-{observatory.own}"
    own = bridge_settings(PROMPT_BRIDGE__CANCEL_TOPIC=missing)
    with bridge_service(own, probe="/live") as service:
        until(lambda: metrics(service)("bridge_refusals") == 1)
        assert requests.get(f"{service.url}ready", timeout=10.0).status_code == 503
        observatory.announce("a")
        receiver.wait_for(keys("a"))
        kafka.create_topic(missing)
        until(lambda: metrics(service)("bridge_refusals") == 0)
        # The new topic moves the partitions: it joins again.
        until(lambda: requests.get(f"{service.url}ready", timeout=10.0).status_code == 200)
        said = [line["message"] for line in service.lines() if line.get("name") == missing]
    assert list(dict.fromkeys(said)) == ["refused by Kafka", "topic is there now"]


@pytest.mark.parametrize("what", ["topic", "group"])
def test_a_bridge_is_not_ready_without_its_rights(
    what, kafka, observatory, receiver, bridge_settings, command, tmp_path
):
    own = bridge_settings(**tls(kafka, kafka.ca_file))
    group = own["PROMPT_BRIDGE__GROUP"]
    kind, name = (ResourceType.TOPIC, observatory.visits) if what == "topic" else (ResourceType.GROUP, group)
    # It may see the topic, but not read it; and it may not even see the group.
    kafka.allow(kind, name, AclOperation.DESCRIBE, kafka.user if what == "topic" else "another")
    said = command("check", tmp_path, code=1, **tls(kafka, kafka.ca_file))
    assert f"{name}: WRONG" in said
    with bridge_service(own, probe="/live") as service:
        until(lambda: metrics(service)("bridge_refusals") == 1)
        assert requests.get(f"{service.url}ready", timeout=10.0).status_code == 503
        observatory.announce("a")
        kafka.allow(kind, name, AclOperation.READ, kafka.user)
        receiver.wait_for(keys("a"))
        until(lambda: requests.get(f"{service.url}ready", timeout=10.0).status_code == 200)
        assert any(line.get("name") == name and "authorization" in line["error"] for line in service.lines())
