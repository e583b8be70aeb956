"""The sections of the settings: one class each."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from prompt_processing.config.secrets import SECRET_PREFIX, reveal
from prompt_processing.domain.errors import ConfigError

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _resource(kind: str) -> str:
    """Return the pattern of a full resource name, or nothing."""
    return rf"^(projects/[a-z0-9:.-]+/{kind}/[A-Za-z][A-Za-z0-9._~+%-]{{2,254}})?$"


class Section(BaseModel):
    """Base of the sections: immutable, and an unknown name is an error."""

    # A password may look like a number.
    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)

    header: ClassVar[str]
    """What the section is about, for the reference page and the settings file."""
    removed: ClassVar[Mapping[str, str]] = {}
    """Settings that are ignored with a warning for one release, each with the reason."""
    moved: ClassVar[Mapping[str, tuple[str, str]]] = {}
    """Settings that are read with a warning for one release, each with its section and name now."""

    @model_validator(mode="before")
    @classmethod
    def _drop_removed(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values  # refused with a better text than ours
        for name in cls.removed.keys() & values:
            warnings.warn(f"setting {name} is ignored: {cls.removed[name]}", FutureWarning, stacklevel=2)
        return {name: value for name, value in values.items() if name not in cls.removed}


class RepositorySettings(Section):
    """Where things are kept. A relative path is relative to the repository; a URI is taken as it is."""

    header = "Where things are kept: paths relative to the repository, or URIs"
    moved = {"apdb": ("apdb", "url")}

    butler: str = Field(default=".", description="Root of the central Butler")
    incoming: str = Field(default="incoming", description="Landing store: raws arrive here")
    arrivals: str = Field(default="arrivals", description="Arrival pointers, one small object per raw")
    decisions: str = Field(default="decisions", description="Decisions: what each visit and detector changes")
    alerts: str = Field(default="alerts", description="Alert archive, in the alert database's layout")
    registry: SecretStr = Field(
        default=SecretStr(""),
        description="Registry of the central Butler, used when that is made: a database URL; an SQLite file "
        "in its root if empty",
    )
    ledger: SecretStr = Field(
        default=SecretStr("ledger.sqlite3"), description="Ledger: an SQLite file, or a database URL"
    )
    queue: SecretStr = Field(
        default=SecretStr("queue.sqlite3"),
        description="Queue of visit messages, unless they come by Pub/Sub: an SQLite file, or a database URL",
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
        places: dict[str, str | SecretStr] = {}
        for name, place in self:
            text = place.get_secret_value() if isinstance(place, SecretStr) else place
            full = absolute(text, repo)
            places[name] = SecretStr(full) if isinstance(place, SecretStr) else full
        return RepositorySettings.model_validate(places)

    @property
    def registry_url(self) -> str | None:
        """SQLAlchemy URL of the central Butler's registry; `None` if that is a file in its root."""
        return reveal(self.registry) or None

    @property
    def ledger_url(self) -> str:
        """SQLAlchemy URL of the ledger."""
        return database_url(self.ledger)

    @property
    def queue_url(self) -> str:
        """SQLAlchemy URL of the queue."""
        return database_url(self.queue)

    def may_have_ledger(self) -> bool:
        """Tell whether there can be a ledger: its file exists, or it is a database elsewhere."""
        place = self.ledger.get_secret_value()
        return _is_elsewhere(place) or Path(place).exists()


def _is_elsewhere(place: str) -> bool:
    """Tell whether a place is a URI, or the name of a secret that has one, and no path."""
    return "://" in place or place.startswith(SECRET_PREFIX)


def absolute(place: str, repo: Path) -> str:
    """Return a place as an absolute path; a URI, the name of a secret and nothing stay as they are.

    Parameters
    ----------
    place
        Path relative to the repository, or URI.
    repo
        Folder of the repository.

    Returns
    -------
    place
        The place.
    """
    return place if not place or _is_elsewhere(place) else str(repo.absolute() / place)


def database_url(place: SecretStr, file: str = "") -> str:
    """Return the SQLAlchemy URL of a database.

    Parameters
    ----------
    place
        A URL, or a path for SQLite.
    file
        What follows that path.

    Returns
    -------
    url
        The URL, with its password.

    Raises
    ------
    ConfigError
        If the place is the name of a secret, and Secret Manager does not give it.
    """
    text = reveal(place)
    return text if "://" in text else f"sqlite:///{text}{file}"


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
        default=10.0,
        description="Time between a waiting worker's own listings of new raws, and from the shutter's "
        "close to the first of them [s]",
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
    clock_offset_s: Annotated[float, Field(allow_inf_nan=False)] = Field(
        default=0.0,
        description="From the wall clock to the clock of the night, for a night that is played later [s]",
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
    detector_map: str = Field(
        default="",
        description="File that switches detectors off, `{instrument: {detector: false}}` in YAML, relative "
        "to the repository; it is read again when it changes. Those that it does not name are on",
    )
    served: tuple[str, ...] = Field(
        default=(),
        description="Instruments whose messages are taken; all that are known if there is none. Messages "
        "of others are acknowledged and ignored, like those that a subscription's filter holds back",
    )

    def resolved(self, repo: Path) -> "InstrumentSettings":
        """Return the section with the path of its file made absolute.

        Parameters
        ----------
        repo
            Folder of the repository.
        """
        file = str(repo.absolute() / self.detector_map) if self.detector_map else ""
        return self.model_copy(update={"detector_map": file})


class PubSubSettings(Section):
    """Where visit messages go and come from on Google Cloud."""

    header = "Google Cloud Pub/Sub: where visit messages go to and come from"

    topic: Annotated[str, Field(pattern=_resource("topics"))] = Field(
        default="",
        description="Topic of the visit messages, `projects/P/topics/T`; they are in the SQL queue if empty",
    )
    subscription: Annotated[str, Field(pattern=_resource("subscriptions"))] = Field(
        default="", description="Subscription that a worker pulls from, `projects/P/subscriptions/S`"
    )
    hints: Annotated[str, Field(pattern=_resource("subscriptions"))] = Field(
        default="",
        description="Subscription to the arrival of images that only this worker has: it looks at once when "
        "one has come; none if empty",
    )
    lease_s: Annotated[int, Field(ge=10, le=30)] = Field(
        default=20,
        description="How long a pulled message is hidden without a sign of life of its worker [s]; the "
        "first one is given after a third of this",
    )


class PushSettings(Section):
    """Whose requests a service obeys."""

    header = "Requests that Pub/Sub pushes to a service: whose are obeyed"

    auth_mode: Literal["oidc", "none"] = Field(
        default="oidc",
        description="`oidc`: each request needs a token signed by Google; `none`: anybody may call, for "
        "tests on one machine only (refused on Cloud Run)",
    )
    audience: str = Field(default="", description="Audience of the tokens, as the subscription has it")
    callers: tuple[str, ...] = Field(
        default=(), description="E-mail addresses of the service accounts that may call"
    )
    issuers: tuple[str, ...] = Field(
        default=("https://accounts.google.com", "accounts.google.com"),
        description="Who may have issued a token",
    )
    keys_url: str = Field(
        default="https://www.googleapis.com/oauth2/v3/certs",
        description="Where the public keys of the issuer are (JSON Web Key Set)",
    )
    subscriptions: tuple[str, ...] = Field(
        default=(),
        description="Subscriptions whose messages are taken, each as `projects/P/subscriptions/S`; `s3` for "
        "what an S3 store posts, `webhook` for what the bridge posts",
    )
    max_body_kb: Annotated[int, Field(ge=1, le=10_000)] = Field(
        default=64, description="Size above which a request is refused [kB]"
    )


def shipped_pipelines() -> Path:
    """Return the folder with the pipelines that come with this package."""
    package = Path(__file__).parents[1]
    installed = package / "pipelines"
    return installed if installed.is_dir() else package.parents[1] / "pipelines"
