"""Settings of a repository: ``REPO/prompt.yaml`` below, the environment above.

Every section is one class. A setting is given in ``prompt.yaml`` as ``section: {name: value}`` or in the
environment as ``PROMPT_<SECTION>__<NAME>``; the environment wins. Everything is checked when it is loaded.
"""

import json
import os
import re
import warnings
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import SecretStr, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from prompt_processing.config.events import (
    BridgeSettings,
    KafkaSettings,
    RedisSettings,
    WebhookSettings,
)
from prompt_processing.config.secrets import SECRET_PREFIX, Password
from prompt_processing.config.sections import (
    InstrumentSettings,
    PipelineSettings,
    PubSubSettings,
    PushSettings,
    RepositorySettings,
    Section,
    WorkerSettings,
)
from prompt_processing.config.stores import SqlApdbSettings
from prompt_processing.domain.errors import ConfigError

FILE_NAME: Final = "prompt.yaml"
"""Name of the settings file inside a repository."""
ENV_PREFIX: Final = "PROMPT_"
ENV_DELIMITER: Final = "__"
# Up to the last @: a password may hold any character, also one that it should not.
_PASSWORD: Final = re.compile(r"(?<=://)(?P<user>[^:@/\s]*):.*(?=@)", re.DOTALL)
HIDDEN: Final = "***"
"""What stands in the place of a password when settings are shown."""


class Settings(BaseSettings):
    """All settings of one repository; make them with `Settings.load`."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter=ENV_DELIMITER, frozen=True, extra="forbid"
    )

    repository: RepositorySettings = RepositorySettings()
    apdb: SqlApdbSettings = SqlApdbSettings()
    worker: WorkerSettings = WorkerSettings()
    pipelines: PipelineSettings = PipelineSettings()
    instruments: InstrumentSettings = InstrumentSettings()
    pubsub: PubSubSettings = PubSubSettings()
    push: PushSettings = PushSettings()
    kafka: KafkaSettings = KafkaSettings()
    bridge: BridgeSettings = BridgeSettings()
    redis: RedisSettings = RedisSettings()
    webhook: WebhookSettings = WebhookSettings()

    @model_validator(mode="before")
    @classmethod
    def _read_moved(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Take each setting that has moved to where it is now, whether the file or the environment has it."""
        values = {name: dict(given) if isinstance(given, dict) else given for name, given in values.items()}
        for section, name, target in _moved():
            given = values.get(section)
            if not isinstance(given, dict) or name not in given:
                continue
            old, new = f"{section}.{name}", ".".join(target)
            there = values.setdefault(target[0], {})
            if not isinstance(there, dict):
                continue  # refused with a better text than ours
            if target[1] in there:
                raise ValueError(f"{old} is now {new}, and both are given: take {old} away")
            warnings.warn(f"setting {old} is now {new}: move it", FutureWarning, stacklevel=2)
            there[target[1]] = given.pop(name)
        return values

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
            Settings whose paths are absolute (or URIs).

        Raises
        ------
        ConfigError
            If the file cannot be read, or a setting is unknown or out of range; the message names the
            setting, its value and where it was given.
        """
        file = repo / FILE_NAME
        values = _read_file(file)
        _check_environment()
        try:
            settings = cls(**values)
        except ValidationError as error:
            lines = [_explain(details, file) for details in error.errors()]
            raise ConfigError("; ".join(lines)) from error
        except SettingsError as error:
            # It names the section only.
            raise ConfigError(f"environment: {error}: {error.__cause__}") from error
        resolved = {
            "repository": settings.repository.resolved(repo),
            "apdb": settings.apdb.resolved(repo),
            "instruments": settings.instruments.resolved(repo),
        }
        return settings.model_copy(update=resolved)


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
    variables, file = {key.upper() for key in os.environ}, _read_file(repo / FILE_NAME)
    places = [(section, name), *(old[:2] for old in _moved() if old[2] == (section, name))]
    for variable in (environment_name(*place) for place in places):
        if variable in variables:
            return f"environment {variable}"
    return FILE_NAME if any(name in (file.get(section) or {}) for section, name in places) else "default"


def _moved() -> list[tuple[str, str, tuple[str, str]]]:
    """Return section and name of each setting that has moved, with those that it has now."""
    return [
        (section, name, now) for section, model in sections().items() for name, now in model.moved.items()
    ]


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
            default = yaml.safe_dump(plain(field.default), default_flow_style=True, width=1000)
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
        section: {name: plain(value) for name, value in entries.items()}
        for section, entries in settings.model_dump().items()
    }


def redact(value: str) -> str:
    """Return a text in which the password of a URL is hidden."""
    return _PASSWORD.sub(rf"\g<user>:{HIDDEN}", value)


def plain(value: Any) -> Any:
    """Return a value as YAML's own types, without passwords."""
    if isinstance(value, Password):
        text = value.get_secret_value()
        return text if not text or text.startswith(SECRET_PREFIX) else HIDDEN
    if isinstance(value, SecretStr):
        return redact(value.get_secret_value())
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
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


def _check_environment() -> None:
    """Refuse variables of which pydantic-settings would not tell the name.

    One of a section that does not exist would be ignored without a word.
    """
    known = sections()
    for key, text in os.environ.items():
        if not key.upper().startswith(ENV_PREFIX) or ENV_DELIMITER not in key:
            continue
        section, _, name = key[len(ENV_PREFIX) :].lower().partition(ENV_DELIMITER)
        if section not in known:
            names = ", ".join(known)
            raise ConfigError(f"environment {key}: there is no section {section!r} (sections: {names})")
        field = known[section].model_fields.get(name)
        if field is not None and isinstance(field.default, tuple | dict):
            try:
                json.loads(text)
            except ValueError as error:
                example = '["a", "b"]' if isinstance(field.default, tuple) else '{"a": ["b"]}'
                raise ConfigError(f"environment {key}: must be JSON, such as {example}: {error}") from error


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
    message = details["msg"]
    if details["type"] == "string_pattern_mismatch":
        field = sections()[location[0]].model_fields[location[1]]
        message += f"; wanted: {field.description}"
    value = repr(details["input"])
    shown = redact(value)
    shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
    return f"{where}: {name}: {message} (got {shown})"
