"""Who sends a request: Pub/Sub signs a token with each push (OpenID Connect), which is checked here.

The platform may check it too; a service that is reached in another way than was planned still does not obey.
See https://cloud.google.com/pubsub/docs/authenticate-push-subscriptions.
"""

import threading
import time
from collections.abc import Callable
from typing import Any, Final

import jwt
from jwt import PyJWKClient

from prompt_processing.config import PushSettings
from prompt_processing.domain.errors import ConfigError, ForbiddenError, StoreError, UnauthenticatedError

ALGORITHM: Final = "RS256"
LEEWAY: Final = 10.0
"""By how much the clocks of issuer and service may differ [s]."""
KEYS_LIFE: Final = 3600.0
"""How long keys are used before they are fetched again [s]; Google's change every few days."""
REFRESH_INTERVAL: Final = 60.0
"""Least time between two fetches for keys that are not known [s]: tokens that are made up cost no more."""
TIMEOUT: Final = 5.0
ON_CLOUD_RUN: Final = "K_SERVICE"
"""Variable that Cloud Run sets."""


class TokenVerifier:
    """Checks tokens.

    Parameters
    ----------
    settings
        Whose tokens are accepted.
    environment
        Environment of this process.
    monotonic
        Clock of the fetches [s].

    Raises
    ------
    ConfigError
        If anybody may call a service on Cloud Run, or it is not said who may call.
    """

    def __init__(
        self,
        settings: PushSettings,
        environment: dict[str, str],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._monotonic = monotonic
        if settings.auth_mode == "none":
            if ON_CLOUD_RUN in environment:
                raise ConfigError("push.auth_mode: none is not allowed on Cloud Run")
            return
        for name, value in (("audience", settings.audience), ("callers", settings.callers)):
            if not value:
                raise ConfigError(f"push.{name}: is needed with push.auth_mode oidc")
        self._keys = PyJWKClient(settings.keys_url, lifespan=KEYS_LIFE, timeout=TIMEOUT)
        self._fetching = threading.Lock()
        self._refreshed = -REFRESH_INTERVAL

    def verify(self, authorization: str | None) -> str:
        """Return the e-mail address of a request's sender.

        Parameters
        ----------
        authorization
            Header ``Authorization`` of the request.

        Raises
        ------
        UnauthenticatedError
            If there is no token, or one that is expired, not signed by the issuer, or meant for another
            service.
        ForbiddenError
            If it is that of an account that may not call.
        StoreError
            If the issuer's keys cannot be had.
        """
        if self._settings.auth_mode == "none":
            return "anybody"
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise UnauthenticatedError("no token")
        claims = self._claims(token.strip())
        email = claims.get("email")
        if email not in self._settings.callers or claims.get("email_verified") is not True:
            raise ForbiddenError(f"{email} may not call")
        return str(email)

    def _claims(self, token: str) -> dict[str, Any]:
        try:
            kid = jwt.get_unverified_header(token).get("kid")
            return jwt.decode(
                token,
                self._key(kid),
                algorithms=[ALGORITHM],
                audience=self._settings.audience,
                issuer=self._settings.issuers,
                leeway=LEEWAY,
                options={"require": ["exp", "iat", "aud", "iss", "sub"]},
            )
        except jwt.PyJWTError as error:
            raise UnauthenticatedError(f"token refused: {error}") from error

    def _key(self, kid: Any) -> Any:
        """Return a key of the issuer."""
        with self._fetching:
            found = self._find(kid, refresh=False)
            if found is None and self._monotonic() - self._refreshed >= REFRESH_INTERVAL:
                self._refreshed = self._monotonic()
                found = self._find(kid, refresh=True)
        if found is None:
            raise UnauthenticatedError("token refused: signed with a key that is not the issuer's")
        return found

    def _find(self, kid: Any, *, refresh: bool) -> Any:
        try:
            keys = self._keys.get_jwk_set(refresh=refresh).keys
        except jwt.PyJWKClientError as error:
            raise StoreError(f"{self._settings.keys_url}: {error}") from error
        return next((key for key in keys if key.key_id == kid), None)
