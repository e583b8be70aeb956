"""Tokens as Google signs them for pushed messages, with keys of our own."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from jwt.algorithms import RSAAlgorithm

from local_cloud.servers import LOOPBACK

GOOGLE = "https://accounts.google.com"


class TokenIssuer:
    """Signs tokens as Google does, and publishes the keys; use it as a context manager."""

    def __init__(self) -> None:
        self._n_keys = 0
        self._lock = threading.Lock()
        self.n_key_requests = 0
        """How many times the keys were fetched."""
        self.rotate()

    def __enter__(self) -> Self:
        issuer = self

        class Keys(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = issuer._key_set()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer((LOOPBACK, 0), Keys)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), name="keys", daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def jwks_url(self) -> str:
        """Where the public keys are."""
        return f"http://{LOOPBACK}:{self._server.server_port}/certs"

    @staticmethod
    def new_key() -> RSAPrivateKey:
        """Return a key that nobody has published."""
        return generate_private_key(public_exponent=65537, key_size=2048)

    def rotate(self) -> None:
        """Sign with a new key from now on; the old one is not published any more."""
        key = self.new_key()
        with self._lock:
            self._key = key
            self._n_keys += 1
            self.key_id = f"key-{self._n_keys}"

    def issue(
        self,
        audience: str,
        email: str,
        *,
        issuer: str = GOOGLE,
        expires_in: float = 3600.0,
        key: RSAPrivateKey | None = None,
        **overrides: Any,
    ) -> str:
        """Return a token.

        Parameters
        ----------
        audience, email, issuer
            Whom it is meant for, whose it is, and who says so.
        expires_in
            How long it is valid from now on [s]; negative for one that is expired.
        key
            Key to sign with instead of the published one, under the same name.
        overrides
            Claims that are different; one that is `None` is left out.
        """
        signer = key or self._key
        claims = _claims(audience, email, issuer, expires_in, overrides)
        return jwt.encode(claims, signer, algorithm="RS256", headers={"kid": self.key_id})

    def unsigned(self, audience: str, email: str, **overrides: Any) -> str:
        """Return a token that says of itself that it is not signed."""
        claims = _claims(audience, email, GOOGLE, 3600.0, overrides)
        return jwt.encode(claims, "", algorithm="none", headers={"kid": self.key_id})

    def _key_set(self) -> bytes:
        with self._lock:
            self.n_key_requests += 1
            public = RSAAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
            key = {**public, "kid": self.key_id, "alg": "RS256", "use": "sig"}
        return json.dumps({"keys": [key]}).encode()


def _claims(
    audience: str, email: str, issuer: str, expires_in: float, overrides: dict[str, Any]
) -> dict[str, Any]:
    now = int(time.time())
    claims = {
        "iss": issuer,
        "aud": audience,
        "sub": "100000000000000000001",
        "email": email,
        "email_verified": True,
        "iat": now,
        "exp": now + int(expires_in),
        **overrides,
    }
    return {name: value for name, value in claims.items() if value is not None}
