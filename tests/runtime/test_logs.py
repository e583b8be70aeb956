"""Log lines of services, which Google Cloud Logging reads, and of commands, which people read."""

import json
import subprocess
import sys
from datetime import datetime

import pytest

from prompt_processing.domain.errors import ConfigError
from prompt_processing.runtime.logs import configure

_WRITER = """
import logging, sys, warnings
import structlog
from prompt_processing.runtime import logs
logs.configure(("prompt_processing=INFO", "talkative=ERROR"), as_json=sys.argv[1] == "json")
log = structlog.get_logger("prompt_processing.some.module")
log.debug("hidden")
log.info("visit finished", outcome="processed", detector=3, flags=("late",))
with structlog.contextvars.bound_contextvars(group="g#1", attempt=2):
    log.warning("two\\nlines, \\u00fc and \\x1b[31m")
try:
    raise KeyError("missing\\nkey")
except KeyError:
    log.exception("unexpected error")
    logging.getLogger("library").exception("library failed: %s", "why")
logging.getLogger("library").warning("library: %d", 7)
logging.getLogger("library").info("hidden")
logging.getLogger("talkative").warning("hidden")
logging.getLogger("talkative").error("said")
warnings.warn("beware", RuntimeWarning)
log.info("odd", number=float("nan"), infinite=float("inf"), thing=object(), raw=b"\\xff", lone="\\ud800")
log.info("the end")
"""


@pytest.fixture(scope="module")
def written():
    """What a process writes: to standard output and to standard error, by form."""
    return {
        form: subprocess.run(
            [sys.executable, "-c", _WRITER, form], capture_output=True, text=True, check=True, timeout=60
        )
        for form in ("json", "text")
    }


def refuse(constant):
    raise ValueError(constant)


@pytest.fixture(scope="module")
def lines(written):
    """The lines of a service; each is an object of JSON in the strict sense."""
    return [json.loads(line, parse_constant=refuse) for line in written["json"].stdout.splitlines()]


def test_a_service_writes_nothing_but_lines_to_standard_output(written):
    texts = written["json"].stdout.splitlines()
    assert all(text.startswith("{") and text.endswith("}") for text in texts)
    assert [json.loads(text)["message"].split("\n")[0].split(":")[0] for text in texts] == [
        "visit finished",
        "two",
        "unexpected error",
        "library failed",
        "library",
        "said",
        "<string>",
        "odd",
        "the end",
    ]
    assert written["json"].stderr == ""


def test_a_line_has_the_names_of_google_cloud_logging(written):
    line = json.loads(written["json"].stdout.splitlines()[0])
    assert datetime.fromisoformat(line.pop("time")).utcoffset().total_seconds() == 0
    assert line == {
        "severity": "INFO",
        "message": "visit finished",
        "logger": "prompt_processing.some.module",
        "outcome": "processed",
        "detector": 3,
        "flags": ["late"],
    }


def test_what_is_bound_is_in_the_line_as_long_as_it_is_bound(written):
    found = [json.loads(text) for text in written["json"].stdout.splitlines()]
    assert [(line.get("group"), line.get("attempt")) for line in found[:3]] == [
        (None, None),
        ("g#1", 2),
        (None, None),
    ]
    assert found[1]["message"] == "two\nlines, ü and \x1b[31m"
    assert found[1]["severity"] == "WARNING"


@pytest.mark.parametrize(("number", "message"), [(2, "unexpected error"), (3, "library failed: why")])
def test_an_exception_is_in_its_line(written, number, message):
    line = json.loads(written["json"].stdout.splitlines()[number])
    assert (line["severity"], line["message"]) == ("ERROR", message)
    assert line["exception"].startswith("Traceback (most recent call last):")
    assert line["exception"].endswith(r"KeyError: 'missing\nkey'")


def test_libraries_and_warnings_have_the_same_form(written):
    found = [json.loads(text) for text in written["json"].stdout.splitlines()]
    assert (found[4]["logger"], found[4]["severity"], found[4]["message"]) == (
        "library",
        "WARNING",
        "library: 7",
    )
    assert (found[5]["logger"], found[5]["severity"]) == ("talkative", "ERROR")
    assert (found[6]["logger"], found[6]["severity"]) == ("py.warnings", "WARNING")
    assert "beware" in found[6]["message"]


def test_whatever_is_logged_the_line_is_json(lines):
    (line,) = (line for line in lines if line["message"] == "odd")
    assert line["thing"].startswith("<object object")


def test_text_for_a_person_goes_to_standard_error(written):
    assert written["text"].stdout == ""
    text = written["text"].stderr
    assert "visit finished" in text
    assert "outcome=processed" in text
    assert "group=g#1" in text
    assert "KeyError" in text
    assert "hidden" not in text
    assert not any(line.startswith("{") for line in text.splitlines())


_ENDING = """
import sys
from prompt_processing.runtime import logs
from prompt_processing.domain.errors import ConfigError
logs.configure(as_json=True)
raise ConfigError("push.callers: nobody") if sys.argv[1] == "mistake" else KeyError("ours")
"""


@pytest.mark.parametrize(
    ("why", "message", "has_traceback"),
    [("mistake", "push.callers: nobody", False), ("fault", "'ours'", True)],
)
def test_why_a_service_ends_is_a_line_too(why, message, has_traceback):
    done = subprocess.run(
        [sys.executable, "-c", _ENDING, why], capture_output=True, text=True, check=False, timeout=60
    )
    (line,) = map(json.loads, done.stdout.splitlines())
    assert (done.returncode, done.stderr) == (1, "")
    assert (line["severity"], line["message"]) == ("CRITICAL", message)
    assert ("Traceback" in json.dumps(line)) is has_traceback


@pytest.mark.parametrize(
    "level", ["LOUD", "prompt_processing=LOUD", "prompt_processing=", "", "INFO=prompt_processing", "10"]
)
def test_a_level_that_is_none_is_refused(level):
    with pytest.raises(ConfigError, match="DEBUG, INFO, WARNING, ERROR") as caught:
        configure((level,))
    assert repr(level) in str(caught.value)
