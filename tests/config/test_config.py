import json
from pathlib import Path

import pytest
import yaml
from pydantic import SecretStr, ValidationError

from prompt_processing.config import (
    PipelineSettings,
    Settings,
    environment_name,
    origin,
    redact,
    redacted,
    sections,
    write_default,
)
from prompt_processing.domain.errors import ConfigError


def write(repo: Path, text: str) -> None:
    (repo / "prompt.yaml").write_text(text, encoding="utf-8")


def test_defaults_apply_without_a_file(tmp_path):
    settings = Settings.load(tmp_path)
    assert settings.worker.image_timeout_s == 60
    assert settings.worker.expiry_s == 3600
    assert settings.worker.history_months == 12
    assert settings.repository.incoming == str(tmp_path / "incoming")


def test_the_file_changes_a_setting_and_leaves_the_others(tmp_path):
    write(tmp_path, "worker: {image_timeout_s: 90}\npipelines:\n")
    settings = Settings.load(tmp_path)
    assert settings.worker.image_timeout_s == 90
    assert settings.worker.expiry_s == 3600


def test_the_environment_wins_over_the_file_setting_by_setting(tmp_path, monkeypatch):
    write(tmp_path, "worker: {image_timeout_s: 90, history_months: 3}")
    monkeypatch.setenv("PROMPT_WORKER__IMAGE_TIMEOUT_S", "30")
    monkeypatch.setenv("PROMPT_PIPELINES__DEPLOYMENT", "usdf")
    settings = Settings.load(tmp_path)
    assert settings.worker.image_timeout_s == 30
    assert settings.worker.history_months == 3
    assert settings.pipelines.deployment == "usdf"


def test_paths_belong_to_the_repository_and_uris_are_left_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "repo").mkdir()
    write(tmp_path / "repo", "repository: {alerts: 's3://bucket/alerts', metrics: /elsewhere}")
    repository = Settings.load(Path("repo")).repository
    assert repository.alerts == "s3://bucket/alerts"
    assert repository.metrics == "/elsewhere"
    assert repository.butler == str(tmp_path / "repo")
    assert repository.ledger_url == f"sqlite:///{tmp_path}/repo/ledger.sqlite3"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("worker: {image_timeout_s: -5}", ["prompt.yaml", "worker.image_timeout_s", "greater than 0", "-5"]),
        ("worker: {image_timeout: 5}", ["prompt.yaml", "worker.image_timeout", "no such setting"]),
        ("walker: {image_timeout_s: 5}", ["prompt.yaml", "walker", "no such setting"]),
        ("worker: {expiry_s: .inf}", ["worker.expiry_s", "finite"]),
        ("worker: {history_months: 2.5}", ["worker.history_months", "2.5"]),
        ("worker: 7", ["prompt.yaml", "worker", "7"]),
        ("pipelines: {selection: []}", ["pipelines.selection", "valid string"]),
        ("- a\n- b", ["prompt.yaml", "sections by name"]),
        ("worker: {image_timeout_s: [", ["prompt.yaml", "not valid YAML"]),
    ],
)
def test_a_wrong_file_is_refused_with_place_and_reason(tmp_path, text, parts):
    write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        Settings.load(tmp_path)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "parts"),
    [
        ("PROMPT_WORKER__EXPIRY_S", "soon", ["PROMPT_WORKER__EXPIRY_S", "worker.expiry_s", "soon"]),
        ("PROMPT_WORKER__EXPIRY", "5", ["PROMPT_WORKER__EXPIRY", "worker.expiry", "no such setting"]),
        ("PROMPT_WORKR__EXPIRY_S", "5", ["PROMPT_WORKR__EXPIRY_S", "no section 'workr'"]),
        ("PROMPT_PIPELINES__PREFERENCE", "a.yaml", ["environment", "pipelines"]),
        ("PROMPT_BRIDGE__SCRIPT_QUEUES", "{1: [LSSTCam]}", ["PROMPT_BRIDGE__SCRIPT_QUEUES", "JSON"]),
        ("PROMPT_BRIDGE", "{", ["environment", "bridge"]),
        ("PROMPT_PUBSUB__TOPIC", "visits", ["PROMPT_PUBSUB__TOPIC", "projects/P/topics/T"]),
    ],
)
def test_a_wrong_variable_is_refused_by_its_name(tmp_path, monkeypatch, name, value, parts):
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        Settings.load(tmp_path)
    for part in parts:
        assert part in str(caught.value)


def test_a_setting_that_was_removed_is_ignored_with_a_warning(tmp_path, monkeypatch):
    (tmp_path / "prompt.yaml").write_text("bridge: {instance: a, group: mine}\n")
    with pytest.warns(FutureWarning, match="instance"):
        assert Settings.load(tmp_path).bridge.group == "mine"
    monkeypatch.setenv("PROMPT_BRIDGE__INSTANCE", "b")
    with pytest.warns(FutureWarning, match="instance"):
        Settings.load(tmp_path / "elsewhere")


def test_a_file_that_is_not_text_is_refused(tmp_path):
    (tmp_path / "prompt.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"prompt\.yaml"):
        Settings.load(tmp_path)


def test_settings_cannot_be_changed_after_loading(tmp_path):
    settings = Settings.load(tmp_path)
    with pytest.raises(ValidationError):
        settings.worker.expiry_s = 1.0


def shown(default):
    return default.get_secret_value() if isinstance(default, SecretStr) else default


def as_yaml(value):
    """Return a value with lists instead of tuples, at any depth."""
    if isinstance(value, dict):
        return {key: as_yaml(item) for key, item in value.items()}
    return [as_yaml(item) for item in value] if isinstance(value, tuple) else value


def test_the_default_file_lists_every_setting_with_its_default(tmp_path):
    text = write_default(tmp_path).read_text(encoding="utf-8")
    # With the marks of the comments taken away it says what applies without it.
    lines = [line.removeprefix("# ") for line in text.splitlines() if ": " in line or line.endswith(":")]
    content = yaml.safe_load(
        "\n".join(line for line in lines if line.startswith(" ") or line[:-1] in sections())
    )
    assert content == {
        section: {name: as_yaml(shown(field.default)) for name, field in model.model_fields.items()}
        for section, model in sections().items()
    }
    assert Settings.load(tmp_path) == Settings.load(tmp_path / "nowhere").model_copy(
        update={"apdb": Settings.load(tmp_path).apdb, "repository": Settings.load(tmp_path).repository}
    )


def test_the_default_file_never_replaces_a_file(tmp_path):
    write(tmp_path, "worker: {expiry_s: 5}")
    write_default(tmp_path)
    assert Settings.load(tmp_path).worker.expiry_s == 5


def test_origin_tells_environment_file_and_default_apart(tmp_path, monkeypatch):
    write(tmp_path, "worker: {expiry_s: 5, history_months: 3}")
    monkeypatch.setenv(environment_name("worker", "expiry_s"), "6")
    assert origin("worker", "expiry_s", tmp_path) == "environment PROMPT_WORKER__EXPIRY_S"
    assert origin("worker", "history_months", tmp_path) == "prompt.yaml"
    assert origin("worker", "image_timeout_s", tmp_path) == "default"


def test_passwords_are_never_shown(tmp_path):
    write(tmp_path, "repository: {ledger: 'postgresql://me:s3cret@host/db'}")
    settings = Settings.load(tmp_path)
    assert settings.repository.ledger_url == "postgresql://me:s3cret@host/db"
    assert "s3cret" not in repr(settings)
    shown = redacted(settings)["repository"]["ledger"]
    assert shown == "postgresql://me:***@host/db"
    assert redact("postgresql://host/db") == "postgresql://host/db"


def test_pipelines_are_looked_for_in_the_repository_first(tmp_path):
    own = tmp_path / "pipelines" / "LATISS" / "mine.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("description: mine\n")
    assert PipelineSettings().find("LATISS/mine.yaml", tmp_path) == own


def test_a_pipeline_that_is_nowhere_is_refused_by_name(tmp_path):
    with pytest.raises(ConfigError, match=r"LATISS/none\.yaml"):
        PipelineSettings().find("LATISS/none.yaml", tmp_path)


@pytest.mark.parametrize("password", ["hunter2", "12345", "a:b@c/d"])
def test_a_password_is_never_shown_at_all(tmp_path, password):
    write(
        tmp_path,
        f"kafka: {{user: prompt, password: {json.dumps(password)}}}\nwebhook: {{token: {password!r}}}",
    )
    settings = Settings.load(tmp_path)
    assert settings.kafka.password.get_secret_value() == password
    assert password not in yaml.safe_dump(redacted(settings))
    assert password not in repr(settings)


def test_a_password_that_looks_like_a_number_is_one(tmp_path):
    write(tmp_path, "kafka: {password: 12345}")
    assert Settings.load(tmp_path).kafka.password.get_secret_value() == "12345"


def test_the_name_of_a_secret_may_be_seen(tmp_path):
    write(tmp_path, "kafka: {password: 'secret:projects/p/secrets/s'}")
    assert redacted(Settings.load(tmp_path))["kafka"]["password"] == "secret:projects/p/secrets/s"  # noqa: S105 (of nobody)


@pytest.mark.parametrize("queues", ["{}", "{1: []}", "{1: ['LSST Cam']}"])
def test_script_queues_need_instruments(tmp_path, queues):
    write(tmp_path, f"bridge: {{script_queues: {queues}}}")
    with pytest.raises(ConfigError, match="script_queues"):
        Settings.load(tmp_path)


MOVED = [(section, name, new) for section, model in sections().items() for name, new in model.moved.items()]


@pytest.mark.parametrize(("section", "name", "new"), MOVED)
@pytest.mark.parametrize("in_environment", [False, True])
def test_a_setting_that_has_moved_is_read_with_a_warning(
    tmp_path, monkeypatch, section, name, new, in_environment
):
    variable = environment_name(section, name)
    if in_environment:
        monkeypatch.setenv(variable, "/elsewhere")
    else:
        write(tmp_path, f"{section}: {{{name}: /elsewhere}}")
    with pytest.warns(FutureWarning, match=rf"{section}\.{name} is now {new[0]}\.{new[1]}"):
        settings = Settings.load(tmp_path)
    value = getattr(getattr(settings, new[0]), new[1])
    assert (value.get_secret_value() if isinstance(value, SecretStr) else value) == "/elsewhere"
    assert origin(*new, tmp_path) == (f"environment {variable}" if in_environment else "prompt.yaml")


@pytest.mark.parametrize(("section", "name", "new"), MOVED)
def test_a_setting_that_has_moved_is_not_given_twice(tmp_path, monkeypatch, section, name, new):
    write(tmp_path, f"{section}: {{{name}: /old}}")
    monkeypatch.setenv(environment_name(*new), "/new")
    with pytest.raises(ConfigError, match=rf"{section}\.{name} is now .*, and both are given"):
        Settings.load(tmp_path)


def test_an_unknown_kind_is_refused_with_those_there_are(tmp_path, monkeypatch):
    monkeypatch.setenv("PROMPT_APDB__KIND", "paper")
    with pytest.raises(ConfigError, match=r"PROMPT_APDB__KIND: apdb\.kind: .*'sql'"):
        Settings.load(tmp_path)
