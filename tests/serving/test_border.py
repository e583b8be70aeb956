"""Hostile callers: what comes through the border of a service, what does not, and what its log says."""

import http.client
import io
import json
import threading
from contextlib import contextmanager

import jwt
import pytest
from werkzeug.serving import make_server
from werkzeug.test import create_environ, run_wsgi_app

from local_cloud.servers import LOOPBACK
from local_cloud.tokens import TokenIssuer
from local_cloud.visits import detector_visit
from support.border import AUDIENCE, CALLER, MAX_BODY_KB, ServedWorker, service_log, wrapped

VISIT = detector_visit()
GOOD = VISIT.model_dump_json()
MARK = "quetzalcoatl"
"""Stands in bodies that are refused, and must not stand in a log."""


@pytest.fixture(scope="module")
def issuer():
    with TokenIssuer() as issuer:
        yield issuer


@pytest.fixture
def log():
    with service_log() as log:
        yield log


@pytest.fixture
def served(issuer, tmp_path):
    return ServedWorker(issuer, tmp_path)


def check(served, log, answer, status, reason):
    """Check that a request had one line in the log and no effect, and that the next good one works."""
    assert answer.status_code == status
    assert answer.data == b""
    (line,) = log.problems
    assert reason in json.dumps(line)
    assert served.effects() == {"runs": [], "visits": [], "cancelled": [], "arrivals": []}
    assert served.post(wrapped(GOOD)).status_code == 204
    assert served.runner.visits == [VISIT.key]


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def hmac_with_public_key(issuer):
    """A token that is signed with what everybody knows, as if that were a password."""
    claims = {"aud": AUDIENCE, "email": CALLER, "email_verified": True}
    return jwt.encode(claims, "k" * 64, algorithm="HS256", headers={"kid": issuer.key_id})


def deep(_issuer):
    """A token whose header is nested too deep for a reader that calls itself."""
    header = jwt.utils.base64url_encode(b'{"alg":"RS256","kid":' + b"[" * 50_000 + b"]" * 50_000 + b"}")
    return f"{header.decode()}.e30.c2ln"


@pytest.mark.parametrize(
    ("headers", "status", "reason"),
    [
        (lambda _: {}, 401, "no token"),
        (lambda _: {"Authorization": "Basic dXNlcjpwYXNz"}, 401, "no token"),
        (lambda _: bearer("not.a.token"), 401, "token refused"),
        (lambda _: bearer("\xfc\xf1"), 401, "token refused"),
        (lambda i: bearer(i.issue(AUDIENCE, CALLER, expires_in=-60)), 401, "expired"),
        (lambda i: bearer(i.issue("https://elsewhere.example", CALLER)), 401, "udience"),
        (lambda i: bearer(i.issue(AUDIENCE, CALLER, issuer="https://issuer.example")), 401, "issuer"),
        (lambda i: bearer(i.issue(AUDIENCE, CALLER, exp=None)), 401, "exp"),
        (lambda i: bearer(i.unsigned(AUDIENCE, CALLER)), 401, "alg"),
        (lambda i: bearer(hmac_with_public_key(i)), 401, "token refused"),
        (lambda i: bearer(i.issue(AUDIENCE, CALLER, key=i.new_key())), 401, "ignature"),
        (lambda i: bearer(deep(i)), 401, "token refused"),
        (lambda i: bearer(i.issue(AUDIENCE, "other@project.example")), 403, "other@project.example may not"),
        (lambda i: bearer(i.issue(AUDIENCE, CALLER, email_verified=False)), 403, "may not call"),
        (lambda i: bearer(i.issue(AUDIENCE, None)), 403, "may not call"),
        (lambda i: bearer(i.issue(AUDIENCE, [CALLER])), 403, "may not call"),
    ],
    ids=[
        "none", "basic", "garbage", "no text", "expired", "audience", "issuer", "no end", "unsigned", "hmac",
        "foreign key", "deep header", "account", "unverified", "no account", "list of accounts",
    ],
)  # fmt: skip
def test_who_may_not_call_changes_nothing(issuer, served, log, headers, status, reason):
    given = headers(issuer)
    answer = served.post(wrapped(GOOD, mark=MARK), given)
    assert MARK not in log.text
    for secret in given.values():
        assert secret.partition(" ")[2] not in log.text
    check(served, log, answer, status, reason)


def test_a_token_in_the_address_is_none(issuer, served, log):
    token = issuer.issue(AUDIENCE, CALLER)
    answer = served.call("POST", f"/?access_token={token}", data=wrapped(GOOD))
    assert token not in log.text
    check(served, log, answer, 401, "no token")


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"", 400, "not a message"),
        (b"not json " + MARK.encode(), 400, "not a message"),
        (b"\xff\xfe\x00" + MARK.encode(), 400, "not a message"),
        (b"[" * 60_000, 400, "not a message"),
        (b'{"message": ' + b"1" * 20_000 + b"}", 400, "not a message"),
        (json.dumps({"message": MARK}).encode(), 400, "not a message"),
        (json.dumps({"message": {"data": f"%{MARK}"}, "subscription": "x"}).encode(), 400, "base64"),
        (json.dumps({"message": {"messageId": "1"}, "mark": MARK}).encode(), 400, "subscription is missing"),
        (wrapped(GOOD, mark=MARK, subscription="projects/p/subscriptions/other"), 403, "subscriptions/other"),
        (json.dumps({"Records": [MARK]}).encode(), 403, "'s3'"),
        (wrapped(MARK * 6000), 413, f"more than {MAX_BODY_KB} kB"),
    ],
    ids=[
        "empty", "text", "bytes", "deep", "large number", "no message", "no base64", "envelope",
        "subscription", "s3", "too large",
    ],
)  # fmt: skip
def test_what_is_no_message_of_ours_changes_nothing(served, log, body, status, reason):
    headers = served.headers()
    answer = served.post(body, headers)
    assert MARK not in log.text
    assert headers["Authorization"].split()[1] not in log.text
    check(served, log, answer, status, reason)


def visit_with(**changes):
    return json.dumps(json.loads(GOOD) | changes)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("", "message cannot be read"),
        ("not json", "message cannot be read"),
        (b"\xff\xfe", "message cannot be read"),
        ("[" * 30_000, "message cannot be read"),
        (visit_with(schema_version=2), "schema_version"),
        (visit_with(kind="dance"), "dance"),
        (visit_with(instrument="Hubble"), "Hubble"),
        (visit_with(instrument="../LATISS"), "instrument"),
        (visit_with(detector=1), "no detector 1"),
        (visit_with(detector=-1), "detector"),
        (visit_with(detector=10**30), "detector"),
        (visit_with(groupId="g" * 257), "groupId"),
        (visit_with(startTime=float("nan")), "message cannot be read"),
        ('{"kind": "cancel", "instrument": "Hubble", "groupId": "g", "scriptSalIndex": 1}', "Hubble"),
        (json.dumps({"kind": "warmup", "instrument": "Hubble"}), "Hubble"),
    ],
)  # fmt: skip
def test_a_message_that_nobody_could_ever_use_is_done_with(served, log, data, reason):
    body = wrapped(data)
    answer = served.post(body)
    assert body.decode() not in log.text
    check(served, log, answer, 204, reason)


def test_the_body_counts_whatever_the_attributes_say(served, log):
    assert served.post(wrapped(GOOD)).status_code == 204
    other = detector_visit(groupId="other")
    lies = {"kind": "warmup", "instrument": "LSSTCam", "group": "g", "detector": "99", "schema_version": "7"}
    assert served.post(wrapped(other.model_dump_json(), "2", **lies)).status_code == 204
    assert served.runner.visits == [VISIT.key, other.key]
    assert log.problems == []


def test_a_request_that_is_replayed_has_no_second_effect(served, log):
    headers, body = served.headers(), wrapped(GOOD)
    assert served.post(body, headers).status_code == 204
    before = served.effects()
    assert served.post(body, headers).status_code == 204
    assert served.effects() == before
    assert served.runner.visits == [VISIT.key]
    assert [line["message"] for line in log.lines()] == ["visit finished", "visit is finished already"]


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "TRACE", "CONNECT", "BREW"])
def test_other_methods_change_nothing(served, method):
    assert served.call(method, data=wrapped(GOOD), headers=served.headers()).status_code == 405
    assert served.effects()["visits"] == []


def test_probes_need_no_token_and_there_is_nothing_else_to_get(served, log):
    assert served.call("GET", "/live").status_code == 200
    assert served.call("GET", "/ready").status_code == 200
    served.engine.can_work = False
    assert served.call("GET", "/live").status_code == 200
    assert served.call("GET", "/ready").status_code == 503
    for path in ("/", "/metrics", "/live/", "/.env", "/../live", "/ready%00", "/robots.txt"):
        assert served.call("GET", path).status_code == 404
    # What pushes something may push it to any path.
    assert served.call("POST", "/live", data=wrapped(GOOD), headers=served.headers()).status_code == 204
    assert log.text.count("\n") == 1


class Stream(io.RawIOBase):
    """A body of some length, which tells how much of it was read."""

    def __init__(self, size):
        self._size = size
        self.n_read = 0

    def readable(self):
        return True

    def readinto(self, buffer):
        n = min(len(buffer), self._size - self.n_read)
        buffer[:n] = b"x" * n
        self.n_read += n
        return n


@pytest.mark.parametrize(
    ("method", "token", "status", "reason"),
    [
        ("POST", True, 413, f"more than {MAX_BODY_KB} kB"),
        ("POST", False, 401, "no token"),
        ("GET", False, 404, ""),
        ("PUT", False, 405, ""),
    ],
)
@pytest.mark.parametrize("told", [True, False], ids=["length", "chunks"])
def test_no_more_of_a_body_is_read_than_a_message_can_have(served, log, method, token, status, reason, told):
    stream = Stream(50_000_000)
    headers = served.headers() if token else {}
    environ = create_environ(method=method, headers=headers) | {"wsgi.input": stream}
    if told:
        environ["CONTENT_LENGTH"] = str(50_000_000)
    else:
        # As gunicorn passes on a body in chunks, whose length nobody knows before its end.
        environ["wsgi.input_terminated"] = True
    body, said, _ = run_wsgi_app(served.app, environ)
    assert b"".join(body) == b""
    assert said.startswith(str(status))
    assert stream.n_read <= 2 * MAX_BODY_KB * 1000
    assert [line["reason"] for line in log.problems] == ([reason] if reason else [])


def test_a_body_may_be_as_large_as_the_limit_and_not_a_byte_larger(served):
    body = wrapped(GOOD)
    whole = body + b" " * (MAX_BODY_KB * 1000 - len(body))
    assert served.post(whole + b" ").status_code == 413
    assert served.effects()["visits"] == []
    assert served.post(whole).status_code == 204
    assert served.runner.visits == [VISIT.key]


@contextmanager
def listening(served):
    """Serve over HTTP, and provide the port."""
    server = make_server(LOOPBACK, 0, served.app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def send(port, headers, body, *, chunked):
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=30)
    pieces = (body[start : start + 10_000] for start in range(0, len(body), 10_000))
    connection.request("POST", "/", pieces if chunked else body, headers, encode_chunked=chunked)
    status = connection.getresponse().status
    connection.close()
    return status


def test_a_body_in_chunks_is_like_any_other(served, log):
    with listening(served) as port:
        headers = served.headers() | {"Transfer-Encoding": "chunked"}
        assert send(port, headers, wrapped("x" * 60_000), chunked=True) == 413
        assert log.problems[-1]["reason"] == f"more than {MAX_BODY_KB} kB"
        assert served.effects()["visits"] == []
        assert send(port, headers, wrapped(GOOD), chunked=True) == 204
    assert served.runner.visits == [VISIT.key]


def test_a_body_that_ends_too_early_is_refused(served, log):
    body = wrapped(GOOD)
    answer = served.call(
        "POST", input_stream=io.BytesIO(body[:-1]), content_length=len(body), headers=served.headers()
    )
    check(served, log, answer, 400, "")


def test_keys_that_cannot_be_had_put_the_request_off(tmp_path, log):
    with TokenIssuer() as issuer:
        served = ServedWorker(issuer, tmp_path)
        headers = served.headers()
    answer = served.post(wrapped(GOOD), headers)
    assert answer.status_code == 503
    (line,) = log.problems
    assert issuer.jwks_url in line["error"]
    assert served.effects()["visits"] == []
