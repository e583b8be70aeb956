import json
import os
import re
import subprocess
import sys

import click
import pytest
import yaml
from click.testing import CliRunner
from matplotlib.image import imread

from prompt_processing.cli import main
from prompt_processing.cli.progress import Progress
from prompt_processing.config import Settings
from prompt_processing.domain.errors import RepositoryError

HEAVY = {
    "astropy",
    "galsim",
    "lsst",
    "matplotlib",
    "numba",
    "numpy",
    "pandas",
    "prompt_processing.config",
    "scipy",
}


def run(*arguments, code=0):
    """Run the command; return what it printed, and what it complained of."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result.stdout, result.stderr


@pytest.fixture
def repo(tmp_path):
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "butler.yaml").touch()
    return tmp_path / "repo"


def commands(command, path=()):
    yield path
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from commands(below, (*path, name))


@pytest.mark.parametrize("path", list(commands(main)), ids=" ".join)
def test_every_command_explains_itself(path):
    output, _ = run(*path, "--help")
    # The first sentence is there, and so is every option with its meaning.
    assert re.search(r"Usage: main [^\n]*\n\n  [A-Z][^.]*\.", output)
    for line in re.findall(r"^  -.*$", output, re.MULTILINE):
        assert len(line.split()) > 1


def test_help_needs_none_of_the_heavy_packages():
    code = (
        "import sys; from prompt_processing.cli import main\n"
        "main(['night', '--help'], standalone_mode=False)\n"
        "print(*{'.'.join(name.split('.')[:2]) if name.startswith('prompt') else name.split('.')[0] "
        "for name in sys.modules}, file=sys.stderr)"
    )
    before = os.times()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stderr.split())
    # 0.15 s on a machine of 2026; with heavy imports it would be above 5 s.
    after = os.times()
    assert after.children_user + after.children_system - before.children_user - before.children_system < 3


def test_every_group_of_commands_stands_in_a_section_of_the_help():
    output, _ = run("--help")
    for name in main.commands:
        assert re.search(rf"^  {name} ", output, re.MULTILINE)


def test_an_error_is_one_line_without_a_traceback(tmp_path, repo):
    (repo / "prompt.yaml").write_text("worker: {expiry_s: -1}")
    done = subprocess.run(
        [sys.executable, "-c", "from prompt_processing.cli import main; main()", "config", "show", repo],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"Error: {repo}/prompt.yaml: worker.expiry_s: ")


def test_relative_paths_are_those_of_the_working_directory(monkeypatch, repo, tmp_path):
    given = []

    def build(repo, night, *, progress):
        progress("templates", 1, 1)
        given.extend((repo, night))
        return 7

    monkeypatch.setattr("prompt_processing.repository.templates.build_templates", build)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "night").mkdir()
    output, _ = run("templates", "build", "repo", "night")
    assert given == [repo, tmp_path / "night"]
    assert "7 patches" in output


def test_an_error_of_several_lines_becomes_one(monkeypatch, repo):
    def fail(repo):
        raise RepositoryError("first\n  second")

    monkeypatch.setattr("prompt_processing.factory.stores.Stores.open", fail)
    _, complaint = run("status", repo, code=1)
    assert complaint == "Error: first second\n"


def test_a_mistake_of_ours_keeps_its_traceback(monkeypatch, repo):
    def fail(repo):
        raise ZeroDivisionError

    monkeypatch.setattr("prompt_processing.factory.stores.Stores.open", fail)
    result = CliRunner().invoke(main, ["status", str(repo)])
    assert isinstance(result.exception, ZeroDivisionError)


@pytest.mark.parametrize("command", [("status",), ("alerts", "list")])
def test_a_folder_that_is_no_repository_is_no_quiet_night(tmp_path, command):
    _, complaint = run(*command, tmp_path, code=1)
    assert "there is no repository" in complaint


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    _, complaint = run("status", tmp_path / "nowhere", code=2)
    assert "nowhere" in complaint


def test_a_wrong_log_level_is_refused(repo):
    _, complaint = run("--log-level", "LOUD", "status", repo, code=2)
    assert "LOUD" in complaint
    assert "DEBUG, INFO, WARNING, ERROR" in complaint


def test_log_lines_go_to_standard_error_from_the_level_that_was_asked_for(repo):
    code = (
        "import structlog, logging; from prompt_processing.cli.logs import configure\n"
        "configure(['prompt_processing=INFO'])\n"
        "structlog.get_logger('prompt_processing.worker').info('image here', group='g1')\n"
        "structlog.get_logger('prompt_processing.worker').debug('unseen')\n"
        "logging.getLogger('lsst').info('also unseen')\n"
        "logging.getLogger('lsst').warning('from %s', 'lsst')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    first, second = done.stderr.splitlines()
    assert "image here" in first
    assert "group=g1" in first
    assert "from lsst" in second


def test_config_show_is_yaml_that_says_what_holds_and_why(repo, monkeypatch):
    (repo / "prompt.yaml").write_text("repository: {ledger: 'postgresql://me:s3cret@host/db'}")
    monkeypatch.setenv("PROMPT_WORKER__EXPIRY_S", "7200")
    output, _ = run("config", "show", repo)
    shown = yaml.safe_load(output)
    settings = Settings.load(repo)
    assert shown["worker"]["expiry_s"] == 7200.0
    assert shown["pipelines"]["selection"] == settings.pipelines.selection
    assert shown["repository"]["ledger"] == "postgresql://me:***@host/db"
    assert "s3cret" not in output
    assert re.search(r"expiry_s: .*# environment PROMPT_WORKER__EXPIRY_S", output)
    assert re.search(r"ledger: .*# prompt\.yaml", output)
    assert re.search(r"image_timeout_s: .*# default", output)


def test_repo_create_can_be_repeated_and_keeps_the_settings(tmp_path):
    repo = tmp_path / "new" / "repo"
    run("repo", "create", repo)
    (repo / "prompt.yaml").write_text("worker: {expiry_s: 5}")
    run("repo", "create", repo)
    assert Settings.load(repo).worker.expiry_s == 5
    assert run("status", repo)[0] == "no visit yet\n"
    assert json.loads(run("status", repo, "--json")[0]) == []


def test_status_tells_what_became_of_each_visit(results):
    output, _ = run("status", results.repo)
    lines = output.splitlines()
    assert re.search(r"01:00:00\.000 +LATISS +0 +processed +1 alerts +4\.0 s$", lines[0])
    assert re.search(r"01:01:00\.000 .*processed +3 alerts +4\.0 s +fallback$", lines[1])
    assert re.search(r"01:02:00\.000 .*failed .*bad-raw", lines[2])
    assert "truncated <at> byte 9" in lines[3]
    assert re.fullmatch(r"\d{8}: 1 failed:bad-raw, 2 processed, 4 alerts", lines[-1])
    data = json.loads(run("status", results.repo, "--json")[0])
    assert [visit["reason"] for visit in data] == [None, None, "bad-raw"]


def test_status_shows_the_first_of_one_night(results):
    lines = run("status", results.repo, "--limit", 1)[0].splitlines()
    assert lines[-2] == "... 2 more; see --limit"
    assert lines[-1].endswith("1 failed:bad-raw, 2 processed, 4 alerts")
    assert run("status", results.repo, "--night", 20200101)[0] == "20200101: no visit\n"


def test_status_opens_no_decision_and_imports_no_middleware(results):
    code = (
        "import sys; from prompt_processing.cli.app import main\n"
        f"main(['status', {str(results.repo)!r}], standalone_mode=False)\n"
        "print(sorted({'lsst', 'lsst.daf.butler', 'astropy', 'numpy', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "2 processed" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_alerts_are_listed_without_the_flagged_ones(results):
    first, second, false, flagged = map(str, results.alert_ids)
    output, _ = run("alerts", "list", results.repo)
    assert [line.split()[0] for line in output.splitlines()[1:-1]] == [first, second, false]
    assert output.splitlines()[-1].endswith(": 3 shown, 4 decided")
    output, _ = run("alerts", "list", results.repo, "--order", "snr")
    assert [line.split()[0] for line in output.splitlines()[1:-1]] == [second, first, false]
    output, _ = run("alerts", "list", results.repo, "--all", "--order", "id", "--limit", 2)
    assert [line.split()[0] for line in output.splitlines()[1:-1]] == [first, second]
    output, _ = run("alerts", "list", results.repo, "--night", 20200101)
    assert output.splitlines()[1:] == ["20200101: 0 shown, 0 decided"]
    data = json.loads(run("alerts", "list", results.repo, "--all", "--order", "snr", "--json")[0])
    assert [str(alert["id"]) for alert in data] == [flagged, second, first, false]
    assert data[0]["flux_err"] is None


def test_an_alert_is_shown_with_its_main_fields_and_drawn(results, tmp_path):
    picture = tmp_path / "alert.png"
    output, _ = run("alerts", "show", results.repo, results.alert_ids[1], "--png", picture)
    shown = dict(line.split(maxsplit=1) for line in output.splitlines())
    assert shown["alert"] == str(results.alert_ids[1])
    assert shown["object"] == "77"
    assert shown["flux"] == "1020 +- 50 nJy, S/N 25.0"
    assert shown["history"] == "1 earlier sources, 0 forced"
    height, width = imread(picture).shape[:2]
    assert width > 3 * height - 1


def test_an_alert_as_json_has_all_fields_but_the_pictures(results):
    data = json.loads(run("alerts", "show", results.repo, results.alert_ids[3], "--json")[0])
    assert data["diaSource"]["pixelFlags_saturatedCenter"] is True
    assert data["diaSource"]["psfFluxErr"] is None
    assert len(data["diaSource"]) > 90
    assert not [name for name in data if name.startswith("cutout")]


def test_an_alert_that_does_not_exist_is_named(results):
    _, complaint = run("alerts", "show", results.repo, 123456789, code=1)
    assert "123456789" in complaint
    assert complaint.count("\n") == 1


def test_the_report_is_written_where_it_is_asked_for(results, tmp_path):
    page, data = tmp_path / "page.html", tmp_path / "data.json"
    output, _ = run("night", "report", results.repo, "--night", results.night, "--out", page, "--json", data)
    assert f"page: {page}" in output
    assert page.read_text().startswith("<!doctype html>")
    assert json.loads(data.read_text())["assessment"]["n_bright"] == 4


def test_a_night_that_is_none_cannot_be_played(repo, tmp_path):
    _, complaint = run("night", "play", tmp_path, "--repo", repo, code=1)
    assert "events.jsonl" in complaint


def test_progress_names_each_stage_once_where_there_is_no_terminal(capsys):
    with Progress() as progress:
        for done in range(4):
            progress("bias", done, 3)
        progress.line("between")
        progress("dark", 1, 1)
    captured = capsys.readouterr()
    assert [line.strip() for line in captured.err.splitlines()] == ["bias", "dark"]
    assert captured.out == "between\n"
