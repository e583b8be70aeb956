"""Cloud SQL as a database URL: for the ledger, the APDB and the registry of the central Butler alike.

``postgresql+pg8000://USER@/DATABASE?plugin=cloud_sql&instance=PROJECT:REGION:INSTANCE[&ip=private]``

connects through the Cloud SQL connector, which encrypts and checks who is on the other side. ``USER`` is an
IAM account (a service account without ``.gserviceaccount.com``); a URL with a password logs in with that.
SQLAlchemy finds this plugin by its entry point, so it also works for the engine that the Butler makes.
"""

from functools import lru_cache
from typing import Any

from sqlalchemy import URL, Engine, event
from sqlalchemy.engine import CreateEnginePlugin

from prompt_processing.domain.errors import ConfigError


class CloudSqlPlugin(CreateEnginePlugin):
    """Lets an engine connect through the Cloud SQL connector.

    Parameters
    ----------
    url
        The database URL with ``instance`` and perhaps ``ip``: ``private`` (default), ``public`` or ``psc``.
    kwargs
        Arguments of ``create_engine``; left alone.
    """

    def __init__(self, url: URL, kwargs: dict[str, Any]) -> None:
        super().__init__(url, kwargs)
        instance = url.query.get("instance")
        if not isinstance(instance, str) or instance.count(":") < 2:
            raise ConfigError("database URL: plugin=cloud_sql needs instance=PROJECT:REGION:INSTANCE")
        ip = url.query.get("ip", "private")
        if ip not in {"private", "public", "psc"}:
            raise ConfigError(f"database URL: ip is {ip!r}, not private, public or psc")
        self._instance = instance
        self._ip = str(ip)

    def update_url(self, url: URL) -> URL:
        """Return the URL without the arguments of this plugin.

        Parameters
        ----------
        url
            The database URL.

        Returns
        -------
        url
            The URL without ``instance`` and ``ip``.
        """
        return url.difference_update_query(["instance", "ip"])

    def engine_created(self, engine: Engine) -> None:
        """Let the engine connect through the connector.

        Parameters
        ----------
        engine
            The new engine.
        """
        url = engine.url
        login = {"enable_iam_auth": True} if url.password is None else {"password": url.password}

        def connect(*_: Any) -> Any:
            return _connector().connect(
                self._instance, "pg8000", user=url.username, db=url.database, ip_type=self._ip, **login
            )

        event.listen(engine, "do_connect", connect)


@lru_cache
def _connector() -> Any:
    """Return the connector of this process."""
    from google.cloud.sql.connector import Connector  # noqa: PLC0415 (it asks for credentials at once)

    # Certificates are fetched when they are needed: a worker that has no CPU between requests cannot do so in
    # the background.
    return Connector(refresh_strategy="lazy")
