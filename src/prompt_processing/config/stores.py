"""The sections of the settings about stores of which there are several kinds: one class for each kind."""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr

from prompt_processing.config.sections import Section, absolute, database_url


class SqlApdbSettings(Section):
    """An APDB in an SQL database."""

    header = "The APDB: the kind of its database, and where that is"

    kind: Literal["sql"] = Field(default="sql", description="`sql`: SQLite or PostgreSQL")
    url: SecretStr = Field(
        default=SecretStr("apdb"),
        description="A folder for an SQLite file, relative to the repository, or a database URL",
    )

    def resolved(self, repo: Path) -> "SqlApdbSettings":
        """Return the section with a relative path made absolute.

        Parameters
        ----------
        repo
            Folder of the repository.

        Returns
        -------
        section
            The section.
        """
        url = absolute(self.url.get_secret_value(), repo)
        return self.model_copy(update={"url": SecretStr(url)})

    @property
    def database_url(self) -> str:
        """SQLAlchemy URL."""
        return database_url(self.url, "/apdb.sqlite3")
