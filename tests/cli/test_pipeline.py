"""``prompt pipeline``."""

import json

import pytest
from click.testing import CliRunner

from local_cloud.visits import EVENT
from prompt_processing.cli.app import main
from prompt_processing.factory.create import create_repository


@pytest.fixture(scope="module")
def empty_repo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("repository")
    create_repository(folder)
    return folder


@pytest.fixture
def repo(empty_repo):
    """A repository without rules of its own and without overrides."""
    yield empty_repo
    for folder in ("pipelines", "overrides"):
        for file in (empty_repo / folder).glob("*"):
            file.unlink()


@pytest.fixture
def write(repo):
    """Return a function that gives the repository a file among its pipelines."""

    def write(name, text):
        (repo / "pipelines").mkdir(exist_ok=True)
        (repo / "pipelines" / name).write_text(text)

    return write


def run(*arguments, code=0, stdin=None):
    result = CliRunner().invoke(main, ["pipeline", *map(str, arguments)], input=stdin)
    assert result.exit_code == code, result.output
    return result.output


CONFLICT = """
description: A task that takes its raw for a bias.
tasks:
  isr:
    class: prompt_processing.tasks.isr.IsrTask
    config: {connections.raw: bias}
"""


def event(**changes):
    return json.dumps({**EVENT, **changes}) + "\n"


def test_the_shipped_rules_and_pipelines_are_right(repo):
    output = run("check", repo)
    assert (
        "LATISS: instrument LATISS -> LATISS/ApPipe.yaml, LATISS/SingleFrame.yaml, LATISS/Isr.yaml" in output
    )
    assert "ApPipe.yaml: 1 tasks before the image, 7 after it" in output


def test_mistakes_are_told_with_file_and_line(repo, write):
    write("selection.yaml", "rules:\n  - name: one\n    when: {filters: r}\n    pipelines: [None.yaml]\n")
    output = run("check", repo, code=1)
    assert "selection.yaml:3: rule 'one': when.filters: Extra inputs" in output


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("tasks: {isr: [", "Broken.yaml"),
        ("description: x\ntasks: {isr: no.such.Task}\n", "no.such"),
        (CONFLICT, "bias"),
    ],
)
def test_every_pipeline_is_built(repo, write, text, reason):
    write("selection.yaml", "rules:\n  - {name: one, pipelines: [Broken.yaml]}\n")
    write("Broken.yaml", text)
    output = run("check", repo, code=1)
    assert reason in output
    assert "Broken.yaml" in output


def test_explain_says_which_rule_was_met_and_why_the_others_were_not(repo, write):
    write(
        "selection.yaml",
        "rules:\n  - {name: tests, when: {survey: 'TEST*'}, pipelines: []}\n"
        "  - {name: rest, pipelines: [LATISS/Isr.yaml]}\n",
    )
    output = run("explain", repo, "-", stdin=event() + event(survey="TEST-1"))
    assert output.splitlines() == [
        "LATISS 2026-03-15T01:00:00.000 detector 0: Isr",
        "  tests: not met: survey is 'BLOCK-1'",
        "  rest: met",
        "LATISS 2026-03-15T01:00:00.000 detector 0: none: skipped as no-pipeline",
        "  tests: met",
    ]


def test_an_override_is_set_shown_explained_and_cleared(repo):
    assert "the rules decide" in run("override", "show", repo)
    run("override", "set", repo, "LATISS/Isr.yaml", "--why", "clouds", "--survey", "BLOCK*")
    shown = run("override", "show", repo)
    assert "LATISS/Isr.yaml, for visits of survey BLOCK* (clouds)" in shown
    output = run("explain", repo, "-", stdin=event())
    assert "detector 0: Isr" in output
    assert "clouds" in output
    run("override", "clear", repo, "--why", "clear sky")
    assert "the rules decide" in run("override", "show", repo)
    trail = run("override", "show", repo, "--all").splitlines()
    assert ["clouds" in trail[0], "cleared (clear sky)" in trail[1]] == [True, True]
    assert "there is no override" in run("override", "clear", repo, "--why", "again")


def test_an_override_must_name_what_there_is(repo):
    assert "No.yaml" in run("override", "set", repo, "No.yaml", "--why", "x", code=1)
    assert "--skip" in run("override", "set", repo, "--why", "x", code=2)
    assert "nothing is processed" in run("override", "set", repo, "--skip", "--why", "x")


def test_a_worker_does_not_start_with_rules_that_are_wrong(repo, write):
    write("selection.yaml", "rules:\n  - {name: one, when: {survey: []}, pipelines: []}\n")
    result = CliRunner().invoke(main, ["worker", "run", str(repo)])
    assert result.exit_code == 1
    assert "selection.yaml:2: rule 'one': when.survey" in result.output


def test_an_override_that_would_not_work_is_refused(repo, write):
    assert "no instrument 'LATIS'" in run(
        "override", "set", repo, "LATISS/Isr.yaml", "--why", "x", "--instrument", "LATIS", code=1
    )
    write("Broken.yaml", "description: x\ntasks: {isr: no.such.Task}\n")
    assert "no.such" in run("override", "set", repo, "Broken.yaml", "--why", "x", code=1)
    assert "the rules decide" in run("override", "show", repo)


def test_what_an_override_replaces_is_told_and_a_broken_one_can_be_cleared(repo):
    run("override", "set", repo, "LATISS/Isr.yaml", "--why", "first")
    assert "in place of: " in run("override", "set", repo, "LATISS/ApPipe.yaml", "--why", "second")
    (repo / "overrides" / "000003.json").write_text("{")
    assert "000003.json" in run("override", "show", repo, code=1)
    run("override", "clear", repo, "--why", "broken")
    assert "the rules decide" in run("override", "show", repo)


def test_explain_takes_one_event_over_several_lines_and_misses_nothing(repo):
    text = json.dumps(json.loads(event()), indent=2)
    assert "detector 0: ApPipe" in run("explain", repo, "-", stdin=text)
    assert "no event announces" in run("explain", repo, "-", "--detector", "5", stdin=text, code=1)


def test_an_input_that_nobody_has_ever_stored_is_told(repo, write):
    write("selection.yaml", "rules:\n  - {name: one, pipelines: [Own.yaml]}\n")
    write("Own.yaml", CONFLICT.replace("{connections.raw: bias}", "{connections.bias: biases}"))
    assert "does not know the dataset type biases" in run("check", repo, code=1)
