"""Settings that are secret: by value, or by the name under which Secret Manager keeps them."""

from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

from pydantic import SecretStr

from prompt_processing.domain.errors import ConfigError

SECRET_PREFIX: Final = "secret:"  # noqa: S105 (no secret itself)
"""What a setting begins with that names a secret: ``secret:projects/P/secrets/NAME[/versions/V]``."""
_TIMEOUT: Final = 30.0


class Password(SecretStr):
    """A setting of which nothing at all is shown, unlike a URL in which only the password is secret."""


def reveal(setting: SecretStr) -> str:
    """Return the value of a secret setting; one that is a name is fetched once per process.

    Raises
    ------
    ConfigError
        If Secret Manager does not give it.
    """
    text = setting.get_secret_value()
    return _fetch(text.removeprefix(SECRET_PREFIX)) if text.startswith(SECRET_PREFIX) else text


def check_confidential(name: str, url: str, secret: str) -> None:
    """Refuse to send a secret in the clear to another machine.

    Parameters
    ----------
    name
        Name of the setting.
    url
        Where the secret would be sent.
    secret
        The secret; there is none if it is empty.

    Raises
    ------
    ConfigError
        If it would be.
    """
    found = urlsplit(url)
    if secret and found.scheme == "http" and found.hostname not in {"localhost", "127.0.0.1", "::1"}:
        raise ConfigError(f"{name}: a password or token is sent with https only")


@lru_cache
def _fetch(name: str) -> str:
    from google.api_core.exceptions import GoogleAPICallError, RetryError  # noqa: PLC0415 (not on a laptop)
    from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415
    from google.cloud.secretmanager import SecretManagerServiceClient  # noqa: PLC0415

    version = name if "/versions/" in name else f"{name}/versions/latest"
    try:
        answer = SecretManagerServiceClient().access_secret_version(name=version, timeout=_TIMEOUT)
        return str(answer.payload.data.decode()).strip()
    except UnicodeDecodeError:
        # The error would show what it is about.
        raise ConfigError(f"secret {version}: is no text") from None
    except (GoogleAPICallError, GoogleAuthError, RetryError, ValueError) as error:
        raise ConfigError(f"secret {version}: {error}") from error
