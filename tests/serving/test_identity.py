"""Whose requests are obeyed."""

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from local_cloud.push_agent import TokenIssuer
from prompt_processing.config import PushSettings
from prompt_processing.domain.errors import ConfigError, ForbiddenError, StoreError, UnauthenticatedError
from prompt_processing.serving.identity import REFRESH_INTERVAL, TokenVerifier

AUDIENCE = "https://activator.example"
CALLER = "pusher@project.iam.gserviceaccount.com"


@pytest.fixture(scope="module")
def issuer():
    with TokenIssuer() as issuer:
        yield issuer


@pytest.fixture
def settings(issuer):
    return PushSettings(audience=AUDIENCE, callers=(CALLER,), keys_url=issuer.jwks_url)


@pytest.fixture
def verifier(settings):
    return TokenVerifier(settings, {})


def test_a_token_of_an_account_that_may_call_is_accepted(issuer, verifier):
    assert verifier.verify(f"Bearer {issuer.issue(AUDIENCE, CALLER)}") == CALLER
    assert verifier.verify(f"bearer {issuer.issue(AUDIENCE, CALLER, issuer='accounts.google.com')}") == CALLER


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic dTpw", "Bearer not.a.token"])
def test_without_a_token_nobody_comes_in(verifier, header):
    with pytest.raises(UnauthenticatedError):
        verifier.verify(header)


def test_a_token_that_is_wrong_in_any_way_is_refused(issuer, verifier):
    foreign = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    wrong = {
        "expired": issuer.issue(AUDIENCE, CALLER, expires_in=-60),
        "for another service": issuer.issue("https://elsewhere.example", CALLER),
        "of another issuer": issuer.issue(AUDIENCE, CALLER, issuer="https://issuer.example"),
        "signed with another key": issuer.issue(AUDIENCE, CALLER, key=foreign),
        "unsigned": jwt.encode(
            {"aud": AUDIENCE, "email": CALLER, "email_verified": True}, None, algorithm="none"
        ),
        "signed with the public key as a password": jwt.encode(
            {"aud": AUDIENCE, "email": CALLER}, "k" * 64, algorithm="HS256"
        ),
    }
    for what, token in wrong.items():
        with pytest.raises(UnauthenticatedError):
            pytest.fail(f"{what}: {verifier.verify(f'Bearer {token}')} came in")


def test_a_token_that_somebody_has_changed_is_refused(issuer, verifier):
    head, body, signature = issuer.issue(AUDIENCE, CALLER).split(".")
    other = issuer.issue(AUDIENCE, "somebody@else.example").split(".")[1]
    assert other != body
    with pytest.raises(UnauthenticatedError):
        verifier.verify(f"Bearer {head}.{other}.{signature}")


def test_another_account_may_not_call(issuer, verifier):
    with pytest.raises(ForbiddenError, match="somebody@else"):
        verifier.verify(f"Bearer {issuer.issue(AUDIENCE, 'somebody@else.example')}")
    with pytest.raises(ForbiddenError):
        verifier.verify(f"Bearer {issuer.issue(AUDIENCE, CALLER, email_verified=False)}")


@pytest.mark.parametrize("verified", [None, "true", 1])
def test_only_an_address_that_the_issuer_calls_verified_may_call(issuer, verifier, verified):
    token = issuer.issue(AUDIENCE, CALLER, email_verified=verified)
    with pytest.raises(ForbiddenError, match=CALLER):
        verifier.verify(f"Bearer {token}")


def test_keys_are_fetched_once_and_tokens_that_are_made_up_cost_no_fetches(issuer, settings):
    now = 0.0
    verifier = TokenVerifier(settings, {}, monotonic=lambda: now)
    before = issuer.n_key_requests
    for _ in range(5):
        verifier.verify(f"Bearer {issuer.issue(AUDIENCE, CALLER)}")
    assert issuer.n_key_requests == before + 1
    token = jwt.encode({"aud": AUDIENCE}, "k" * 64, algorithm="HS256", headers={"kid": "made up"})
    for _ in range(5):
        with pytest.raises(UnauthenticatedError):
            verifier.verify(f"Bearer {token}")
    assert issuer.n_key_requests == before + 2
    now = REFRESH_INTERVAL
    with pytest.raises(UnauthenticatedError):
        verifier.verify(f"Bearer {token}")
    assert issuer.n_key_requests == before + 3


def test_without_the_issuers_keys_the_request_is_to_come_again(issuer, settings):
    away = settings.model_copy(update={"keys_url": "http://127.0.0.1:9/keys"})
    with pytest.raises(StoreError, match=r"127\.0\.0\.1:9"):
        TokenVerifier(away, {}).verify(f"Bearer {issuer.issue(AUDIENCE, CALLER)}")


def test_on_cloud_run_nobody_can_leave_the_door_open():
    open_door = PushSettings(auth_mode="none")
    assert TokenVerifier(open_door, {}).verify(None) == "anybody"
    with pytest.raises(ConfigError, match="auth_mode"):
        TokenVerifier(open_door, {"K_SERVICE": "activator"})


@pytest.mark.parametrize("missing", ["audience", "callers"])
def test_it_must_be_said_who_may_call(settings, missing):
    empty = PushSettings().model_dump()[missing]
    with pytest.raises(ConfigError, match=missing):
        TokenVerifier(settings.model_copy(update={missing: empty}), {})
