"""Settings of a repository: ``REPO/prompt.yaml`` below, the environment above.

Every section is one class. A setting is given in ``prompt.yaml`` as ``section: {name: value}`` or in the
environment as ``PROMPT_<SECTION>__<NAME>``; the environment wins. Everything is checked when it is loaded.
"""

import os
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final
from urllib.parse import urlsplit, urlunsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from prompt_processing.domain.errors import ConfigError

FILE_NAME: Final = "prompt.yaml"
"""Name of the settings file inside a repository."""
ENV_PREFIX: Final = "PROMPT_"
ENV_DELIMITER: Final = "__"
HIDDEN: Final = "***"
"""What stands in the place of a password when settings are shown."""

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Section(BaseModel):
    """Base of the sections: immutable, and an unknown name is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    header: ClassVar[str]
    """What the section is about, for the reference page and the settings file."""


class RepositorySettings(Section):
    """Where things are kept. A relative path is relative to the repository; a URI is taken as it is."""

    header = "Where things are kept: paths relative to the repository, or URIs"

    butler: str = Field(default=".", description="Root of the central Butler")
    incoming: str = Field(default="incoming", description="Landing store: raws arrive here")
    arrivals: str = Field(default="arrivals", description="Arrival pointers, one small object per raw")
    decisions: str = Field(default="decisions", description="Decisions: what each visit and detector changes")
    alerts: str = Field(default="alerts", description="Alert archive, in the alert database's layout")
    apdb: str = Field(default="apdb", description="APDB: a folder for an SQLite file, or a database URL")
    ledger: str = Field(default="ledger.sqlite3", description="Ledger: an SQLite file, or a database URL")
    queue: str = Field(
        default="queue.sqlite3", description="Queue of visit messages: an SQLite file, or a database URL"
    )
    metrics: str = Field(default="metrics", description="Metrics as JSON files")
    overrides: str = Field(
        default="overrides",
        description="What operators say about the choice of pipelines: one object per change",
    )
    work: str = Field(default="work", description="Scratch space of the workers")

    def resolved(self, repo: Path) -> "RepositorySettings":
        """Return the section with every relative path made absolute.

        Parameters
        ----------
        repo
            Folder of the repository.
        """
        root = repo.absolute()
        places = self.model_dump()
        return RepositorySettings(
            **{name: place if "://" in place else str(root / place) for name, place in places.items()}
        )

    @property
    def ledger_url(self) -> str:
        """SQLAlchemy URL of the ledger."""
        return self.ledger if "://" in self.ledger else f"sqlite:///{self.ledger}"

    @property
    def queue_url(self) -> str:
        """SQLAlchemy URL of the queue."""
        return self.queue if "://" in self.queue else f"sqlite:///{self.queue}"

    @property
    def apdb_url(self) -> str:
        """SQLAlchemy URL of the APDB."""
        return self.apdb if "://" in self.apdb else f"sqlite:///{self.apdb}/apdb.sqlite3"


class WorkerSettings(Section):
    """How a worker waits for images and what it prepares."""

    header = "How a worker waits for images, and what it prepares"

    image_timeout_s: Seconds = Field(
        default=60.0, description="Longest wait for an image after the predicted shutter close [s]"
    )
    expiry_s: Seconds = Field(
        default=3600.0,
        description="Age at which a visit event is too old to be processed, and longest time ahead [s]",
    )
    tick_before_s: Seconds = Field(
        default=5.0, description="Time between two looks for an image before the predicted shutter close [s]"
    )
    tick_s: Seconds = Field(
        default=0.5,
        description="Time between two looks in the first 20 s after the predicted shutter close [s]",
    )
    tick_late_s: Seconds = Field(default=2.0, description="Time between two looks after that [s]")
    listing_interval_s: Seconds = Field(
        default=10.0, description="Time between a waiting worker's own listings of new raws [s]"
    )
    max_rotation_deg: Annotated[float, Field(gt=0, le=180)] = Field(
        default=1.0, description="Largest difference of the rotations in event and raw [deg]"
    )
    max_offset_arcsec: Annotated[float, Field(gt=0)] = Field(
        default=60.0, description="Largest distance of the positions in event and raw [arcsec]"
    )
    engines: Annotated[int, Field(ge=1, le=256)] = Field(
        default=1, description="Engines of a worker: how many detector-visits it works on at the same time"
    )
    lease_s: Seconds = Field(
        default=60.0,
        description="How long a claim is respected without a sign of life of its worker [s]",
    )
    processing_limit_s: Seconds = Field(
        default=300.0,
        description="Time from the image's deadline to the end of a visit, at which its engine is ended [s]",
    )
    memory_limit_mb: Annotated[int, Field(ge=256)] = Field(
        default=4096, description="Memory above which an engine is ended [MB of resident set]"
    )
    cache_mb: Annotated[int, Field(ge=0)] = Field(
        default=1000, description="Calibs, catalogues and templates that an engine keeps in memory [MB]"
    )
    restart_after: Annotated[int, Field(ge=1)] = Field(
        default=100, description="Number of visits after which an engine is replaced by a new one"
    )
    max_crashes: Annotated[int, Field(ge=1)] = Field(
        default=5, description="Number of lost engines after which a visit is given up"
    )
    drain_s: Seconds = Field(
        default=8.0, description="Time that a visit gets to finish its effects when the worker is stopped [s]"
    )
    sweep_interval_s: Seconds = Field(
        default=60.0, description="Time between two searches of a worker for visits that nobody works on [s]"
    )
    history_months: Annotated[int, Field(ge=1, le=120)] = Field(
        default=12, description="Length of the APDB history that association and alerts use [months]"
    )
    padding_arcsec: Annotated[float, Field(ge=0, le=3600)] = Field(
        default=60.0, description="Margin around the predicted footprint for everything preloaded [arcsec]"
    )


class PipelineSettings(Section):
    """Which pipelines are run."""

    header = "Which pipelines are run"

    selection: str = Field(
        default="selection.yaml",
        description="File of the rules that choose the pipelines of a visit, looked for in the repository's "
        "folder `pipelines` and then among those of this package",
    )
    deployment: str = Field(
        default="laptop", description="Name of this deployment, which a rule may have as a condition"
    )

    def find(self, name: str, repo: Path) -> Path:
        """Return a file of rules or a pipeline: that of the repository, or else that of this package.

        Parameters
        ----------
        name
            Its path relative to the folder of the pipelines.
        repo
            Folder of the repository.

        Raises
        ------
        ConfigError
            If there is none.
        """
        candidates = [repo.absolute() / "pipelines" / name, shipped_pipelines() / name]
        for candidate in candidates:
            if candidate.is_file():
                return candidate
        tried = " and ".join(str(candidate) for candidate in dict.fromkeys(candidates))
        raise ConfigError(f"there is no file {name} among the pipelines (tried {tried})")


class InstrumentSettings(Section):
    """What is processed of each instrument."""

    header = "What is processed of each instrument"

    detectors: dict[str, tuple[Annotated[int, Field(ge=0)], ...]] = Field(
        default={},
        description="Detectors that are processed, by instrument, for example `{LSSTCam: [94, 95]}`; all "
        "science detectors of an instrument that is not named",
    )


class Settings(BaseSettings):
    """All settings of one repository; make them with `Settings.load`."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter=ENV_DELIMITER, frozen=True, extra="forbid"
    )

    repository: RepositorySettings = RepositorySettings()
    worker: WorkerSettings = WorkerSettings()
    pipelines: PipelineSettings = PipelineSettings()
    instruments: InstrumentSettings = InstrumentSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 (the signature is pydantic's)
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (the signature is pydantic's)
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (the signature is pydantic's)
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment win over what the file says (which `load` passes as arguments)."""
        return env_settings, init_settings

    @classmethod
    def load(cls, repo: Path) -> "Settings":
        """Read and check the settings of a repository.

        Parameters
        ----------
        repo
            Folder of the repository. Without a ``prompt.yaml`` the defaults apply.

        Returns
        -------
        settings
            Settings whose repository paths are absolute (or URIs).

        Raises
        ------
        ConfigError
            If the file cannot be read, or a setting is unknown or out of range; the message names the
            setting, its value and where it was given.
        """
        file = repo / FILE_NAME
        values = _read_file(file)
        _check_environment_names()
        try:
            settings = cls(**values)
        except ValidationError as error:
            lines = [_explain(details, file) for details in error.errors()]
            raise ConfigError("; ".join(lines)) from error
        except SettingsError as error:
            # pydantic-settings names the section only; its cause tells what is wrong with the text.
            raise ConfigError(f"environment: {error}: {error.__cause__}") from error
        return settings.model_copy(update={"repository": settings.repository.resolved(repo)})


def sections() -> dict[str, type[Section]]:
    """Return the class of every section by its name, in the order of the settings file."""
    defaults = Settings.model_fields
    return {name: type(field.default) for name, field in defaults.items()}


def environment_name(section: str, name: str) -> str:
    """Return the environment variable of a setting, such as ``PROMPT_WORKER__EXPIRY_S``."""
    return f"{ENV_PREFIX}{section}{ENV_DELIMITER}{name}".upper()


def origin(section: str, name: str, repo: Path) -> str:
    """Return where a setting of a repository comes from: a variable, the file or the default.

    Raises
    ------
    ConfigError
        If the settings file cannot be read.
    """
    variable = environment_name(section, name)
    if variable in {key.upper() for key in os.environ}:
        return f"environment {variable}"
    if name in (_read_file(repo / FILE_NAME).get(section) or {}):
        return FILE_NAME
    return "default"


def write_default(repo: Path) -> Path:
    """Write a ``prompt.yaml`` that lists every setting as a comment with its default.

    A file that is there already is left alone.

    Parameters
    ----------
    repo
        Folder of the repository; it must exist.

    Returns
    -------
    file
        Path of the settings file.
    """
    file = repo / FILE_NAME
    lines = [
        "# Settings of this repository. Everything below is the default: take away the # to change it.",
        f"# The environment wins, for example {environment_name('worker', 'image_timeout_s')}=90.",
    ]
    for section, model in sections().items():
        lines += ["", f"# {model.header}", f"# {section}:"]
        for name, field in model.model_fields.items():
            default = yaml.safe_dump(_plain(field.default), default_flow_style=True, width=1000)
            lines.append(f"#   {name}: {default.removesuffix('...\n').strip()}  # {field.description}")
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write("\n".join(lines) + "\n")
    except FileExistsError:
        pass
    return file


def redacted(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return all settings by section and name, as YAML's own types and without passwords."""
    return {
        section: {name: _plain(value) for name, value in entries.items()}
        for section, entries in settings.model_dump().items()
    }


def redact(value: str) -> str:
    """Return a text in which the password of a URL is hidden."""
    if "://" not in value:
        return value
    parts = urlsplit(value)
    if parts.password is None:
        return value
    credentials, _, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{credentials.partition(':')[0]}:{HIDDEN}@{host}"))


def shipped_pipelines() -> Path:
    """Return the folder with the pipelines that come with this package."""
    package = Path(__file__).parent
    installed = package / "pipelines"
    return installed if installed.is_dir() else package.parents[1] / "pipelines"


def _plain(value: Any) -> Any:
    """Return a value as YAML's own types, without passwords."""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return redact(value) if isinstance(value, str) else value


def _read_file(file: Path) -> dict[str, Any]:
    """Return the content of a settings file; an absent or empty one has no settings."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise ConfigError(f"{file}: is not valid YAML: {problem}") from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError(f"{file}: must hold sections by name, not {type(content).__name__}")
    return {key: value for key, value in content.items() if value is not None}


def _check_environment_names() -> None:
    """Refuse a variable of a section that does not exist: it would be ignored without a word."""
    known = sections()
    for key in os.environ:
        if not key.upper().startswith(ENV_PREFIX) or ENV_DELIMITER not in key:
            continue
        section = key[len(ENV_PREFIX) :].partition(ENV_DELIMITER)[0].lower()
        if section not in known:
            names = ", ".join(known)
            raise ConfigError(f"environment {key}: there is no section {section!r} (sections: {names})")


def _explain(details: ErrorDetails, file: Path) -> str:
    """Return one line that says which setting is wrong, where it was given and why."""
    location = [str(part) for part in details["loc"]]
    where = str(file)
    if len(location) > 1:
        variable = environment_name(location[0], location[1])
        given = {key.upper(): key for key in os.environ}
        if variable in given:
            where = f"environment {given[variable]}"
    name = ".".join(location)
    if details["type"] == "extra_forbidden":
        return f"{where}: {name}: there is no such setting"
    value = repr(details["input"])
    shown = redact(value) if len(value) <= 80 else redact(value[:77]) + "..."
    return f"{where}: {name}: {details['msg']} (got {shown})"
