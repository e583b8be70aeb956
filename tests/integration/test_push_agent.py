"""Messages are pushed as Pub/Sub and Cloud Run do it."""

import base64
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import jwt
import pytest

from local_cloud.push_agent import NO_INSTANCE, PushAgent, TokenIssuer
from local_cloud.servers import LOOPBACK
from local_cloud.topology import publish, pull, subscriber
from local_cloud.visits import detector_visit
from prompt_processing.domain.errors import StoreError
from prompt_processing.domain.outcome import Outcome
from prompt_processing.messaging.pubsub import PubSubPublisher
from prompt_processing.serving.envelope import parse
from prompt_processing.worker.sweep import sweep
from support.border import ServedWorker

LONG = 20.0
"""A wait that ends earlier, because something comes."""
AUDIENCE = "https://activator.example"
EMAIL = "pusher@prompt-local.iam.gserviceaccount.com"
LATISS = {"instrument": "LATISS"}


class Endpoint:
    """A service that requests are pushed to, and what it was sent."""

    def __init__(self, answer: Callable[[Any, bytes], int]) -> None:
        requests: list[tuple[dict[str, str], bytes]] = []
        come = threading.Semaphore(0)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                requests.append(({name.lower(): value for name, value in self.headers.items()}, body))
                come.release()
                self.send_response(answer(self.headers, body))
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.requests, self._come = requests, come
        self._server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self._server.request_queue_size = 100
        self.url = f"http://{LOOPBACK}:{self._server.server_port}/push?x=1"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def wait(self) -> None:
        """Wait for one more request."""
        assert self._come.acquire(timeout=LONG), "no request"

    def envelopes(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.requests]


@pytest.fixture
def topology(own_topology):
    return own_topology()


def test_messages_are_pushed_all_at_once_with_tokens_that_the_published_keys_prove(topology):
    n = 20
    barrier = threading.Barrier(n)
    with TokenIssuer() as issuer:
        keys = jwt.PyJWKClient(issuer.jwks_url)

        def answer(headers, body):
            barrier.wait(LONG)
            token = headers["Authorization"].removeprefix("Bearer ")
            key = keys.get_signing_key_from_jwt(token)
            claims = jwt.decode(
                token, key, ["RS256"], audience=AUDIENCE, issuer="https://accounts.google.com"
            )
            return 204 if claims["email"] == EMAIL and claims["email_verified"] else 403

        publish(topology.pubsub_host, topology.next_visit, *((f"{i}".encode(), LATISS) for i in range(n)))
        with (
            Endpoint(answer) as endpoint,
            PushAgent(
                topology.pubsub_host,
                topology.activator,
                endpoint.url,
                issuer=issuer,
                audience=AUDIENCE,
                email=EMAIL,
                attribute_filter=LATISS,
            ) as agent,
        ):
            agent.wait_until_idle(LONG)
        assert agent.peak == n
        assert [push.status for push in agent.pushes] == [204] * n
        assert agent.counts["acknowledged"] == n
        data = {base64.b64decode(each["message"]["data"]) for each in endpoint.envelopes()}
        assert data == {f"{i}".encode() for i in range(n)}
        assert 1 <= issuer.n_key_requests <= n


def test_tokens_of_somebody_else_are_told_apart():
    with TokenIssuer() as issuer:
        keys = jwt.PyJWKClient(issuer.jwks_url)

        def verify(token):
            key = keys.get_signing_key_from_jwt(token)
            return jwt.decode(token, key, ["RS256"], audience=AUDIENCE)

        assert verify(issuer.issue(AUDIENCE, EMAIL, azp="1"))["azp"] == "1"
        assert "sub" not in verify(issuer.issue(AUDIENCE, EMAIL, sub=None))
        for token, error in (
            (issuer.issue(AUDIENCE, EMAIL, key=issuer.new_key()), jwt.InvalidSignatureError),
            (issuer.issue(AUDIENCE, EMAIL, expires_in=-60), jwt.ExpiredSignatureError),
            (issuer.issue("https://other.example", EMAIL), jwt.InvalidAudienceError),
            (issuer.unsigned(AUDIENCE, EMAIL), jwt.InvalidAlgorithmError),
        ):
            with pytest.raises(error):
                verify(token)
        old = issuer.issue(AUDIENCE, EMAIL)
        issuer.rotate()
        keys = jwt.PyJWKClient(issuer.jwks_url)
        assert verify(issuer.issue(AUDIENCE, EMAIL))["email"] == EMAIL
        with pytest.raises(jwt.PyJWKClientError):
            verify(old)


def test_a_message_that_is_refused_five_times_is_given_up(topology):
    publish(topology.pubsub_host, topology.next_visit, (b"bad", LATISS))
    with (
        Endpoint(lambda *_: 500) as endpoint,
        PushAgent(
            topology.pubsub_host,
            topology.activator,
            endpoint.url,
            dead_letter_topic=topology.dead_letters,
            backoff=(0.01, 0.02),
        ) as agent,
    ):
        agent.wait_for(1, LONG, "dead_lettered")
        agent.wait_until_idle(LONG)
    assert [each["deliveryAttempt"] for each in endpoint.envelopes()] == [1, 2, 3, 4, 5]
    assert [push.status for push in agent.pushes] == [500] * 5
    (message,) = pull(topology.pubsub_host, topology.dead_letter)
    assert message.data == b"bad"
    assert message.attributes["instrument"] == "LATISS"
    assert message.attributes["CloudPubSubDeadLetterSourceDeliveryCount"] == "5"
    assert message.attributes["CloudPubSubDeadLetterSourceSubscription"] == "activator-latiss"


def test_a_visit_whose_message_was_given_up_is_swept_up_and_finished(topology, tmp_path, monkeypatch):
    """The store behind the activator is away until the platform gives up; then the sweep sends it again."""
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", topology.pubsub_host)
    visit = detector_visit()
    publisher = PubSubPublisher(topology.next_visit)
    with TokenIssuer() as issuer:
        served = ServedWorker(issuer, tmp_path)
        served.runner.results = [StoreError("away")] * 5

        def answer(headers, body):
            return served.activator.handle(parse(dict(headers), body))

        with (
            Endpoint(answer) as endpoint,
            PushAgent(
                topology.pubsub_host,
                topology.activator,
                endpoint.url,
                dead_letter_topic=topology.dead_letters,
                backoff=(0.01, 0.02),
            ) as agent,
        ):
            publisher.publish([visit.model_dump_json()])
            agent.wait_for(1, LONG, "dead_lettered")
            assert served.ledger.find(visit.key).outcome is None
            assert sweep(served.ledger, publisher, older_than=0.0) == [visit.key]
            agent.wait_for(1, LONG, "acknowledged")
    assert [push.status for push in agent.pushes] == [503] * 5 + [204]
    record = served.ledger.find(visit.key)
    assert record.outcome == Outcome.processed()
    assert len(record.attempts) == 6
    assert sweep(served.ledger, publisher, older_than=0.0) == []
    (letter,) = pull(topology.pubsub_host, topology.dead_letter)
    assert json.loads(letter.data) == json.loads(visit.model_dump_json())


def test_a_message_that_is_refused_or_not_answered_comes_again_until_it_is_taken(topology):
    never = threading.Event()
    answers = iter([lambda: 503, lambda: never.wait(LONG) and 204, lambda: 204])
    publish(topology.pubsub_host, topology.next_visit, (b"late", LATISS))
    with (
        Endpoint(lambda *_: next(answers)()) as endpoint,
        PushAgent(
            topology.pubsub_host, topology.activator, endpoint.url, ack_deadline=2.0, backoff=(0.01, 0.02)
        ) as agent,
    ):
        agent.wait_until_idle(LONG)
        never.set()
    assert [push.status for push in agent.pushes] == [503, 0, 204]
    assert agent.pushes[1].seconds >= 2.0
    assert agent.counts["acknowledged"] == 1


def test_messages_of_another_instrument_are_held_back(topology):
    publish(
        topology.pubsub_host,
        topology.next_visit,
        (b"1", LATISS),
        (b"2", {"instrument": "LSSTCam"}),
        (b"3", {}),
        (b"4", LATISS),
    )
    with (
        Endpoint(lambda *_: 204) as endpoint,
        PushAgent(topology.pubsub_host, topology.activator, endpoint.url, attribute_filter=LATISS) as agent,
    ):
        agent.wait_until_idle(LONG)
    data = sorted(base64.b64decode(each["message"]["data"]) for each in endpoint.envelopes())
    assert data == [b"1", b"4"]
    assert agent.counts["filtered"] == 2


def test_an_instance_takes_one_request_at_a_time_and_a_free_one_is_found(topology):
    go_on = threading.Event()
    publish(topology.pubsub_host, topology.next_visit, *((f"{i}".encode(), LATISS) for i in range(3)))

    def answer(*_):
        return 204 if go_on.wait(LONG) else 500

    with (
        Endpoint(answer) as first,
        Endpoint(answer) as second,
        PushAgent(
            topology.pubsub_host, topology.activator, [first.url, second.url], backoff=(0.01, 0.02)
        ) as agent,
    ):
        first.wait()
        second.wait()
        agent.wait_for(1, LONG, "refused")
        assert (len(first.requests), len(second.requests)) == (1, 1)
        go_on.set()
        agent.wait_until_idle(LONG)
    assert agent.peak == 2
    assert {push.status for push in agent.pushes} == {204, NO_INSTANCE}
    assert agent.counts["acknowledged"] == 3


def test_messages_are_doubled_and_held_back_where_a_test_wants_it(topology):
    publish(topology.pubsub_host, topology.next_visit, *((f"{i}".encode(), LATISS) for i in range(8)))
    with (
        Endpoint(lambda *_: 204) as endpoint,
        PushAgent(
            topology.pubsub_host, topology.activator, endpoint.url, duplicate_every=4, reorder=0.3
        ) as agent,
    ):
        agent.wait_until_idle(LONG)
    data = [base64.b64decode(each["message"]["data"]) for each in endpoint.envelopes()]
    assert len(data) == 10
    assert len(set(data)) == 8
    assert data != sorted(data)
    assert (agent.counts["duplicated"], agent.counts["acknowledged"]) == (2, 8)


def test_an_unwrapped_message_is_its_data_and_tells_the_rest_in_headers(topology):
    publish(topology.pubsub_host, topology.next_visit, (b'{"a": 1}', LATISS))
    with (
        Endpoint(lambda *_: 204) as endpoint,
        PushAgent(
            topology.pubsub_host, topology.activator, endpoint.url, wrapped=False, write_metadata=True
        ) as agent,
    ):
        agent.wait_until_idle(LONG)
    ((headers, body),) = endpoint.requests
    assert body == b'{"a": 1}'
    assert headers["instrument"] == "LATISS"
    assert headers["x-goog-pubsub-message-id"] == agent.pushes[0].message_id
    assert headers["x-goog-pubsub-subscription-name"] == topology.activator


def test_the_emulator_itself_pushes_the_same_envelope_as_the_agent(own_topology):
    with Endpoint(lambda *_: 204) as own, Endpoint(lambda *_: 204) as agents:
        topology = own_topology(push_endpoint=own.url)
        pulled = f"projects/{topology.project}/subscriptions/pulled"
        with subscriber(topology.pubsub_host) as client:
            client.create_subscription(name=pulled, topic=topology.next_visit)
        with PushAgent(topology.pubsub_host, pulled, agents.url):
            publish(topology.pubsub_host, topology.next_visit, (b'{"a": 1}', LATISS))
            own.wait()
            agents.wait()
    (theirs,), (ours,) = own.envelopes(), agents.envelopes()
    assert theirs["subscription"] == topology.activator
    assert ours == {**theirs, "subscription": pulled}
