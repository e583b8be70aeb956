"""What the documentation says must be so."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from astropy.io import fits
from astropy.time import Time

from prompt_processing.cli import main
from prompt_processing.config import environment_name, sections
from prompt_processing.domain.visit import fan_out, parse_event

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md"), *ROOT.glob("services/*/*.md")])
SERVICES = sorted(folder.name for folder in (ROOT / "services").iterdir() if folder.is_dir())


@pytest.fixture(scope="module")
def generator():
    spec = importlib.util.spec_from_file_location("generate_reference", DOCS / "generate_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def names(command, path="prompt"):
    yield path
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from names(below, f"{path} {name}")


@pytest.mark.parametrize("page", ["commands", "messages", "settings"])
def test_the_reference_is_in_step_with_the_code(generator, page):
    made = getattr(generator, f"{page}_page")()
    assert (DOCS / "reference" / f"{page}.md").read_text() == made, "run docs/generate_reference.py"


@pytest.mark.parametrize("service", SERVICES)
def test_the_settings_of_a_service_are_in_step_with_the_code(generator, service):
    made = generator.service_page(service)
    assert (ROOT / "services" / service / "README.md").read_text() == made, "run docs/generate_reference.py"


def test_activator_and_bridge_tell_every_setting():
    text = "".join(
        (ROOT / "services" / name / "README.md").read_text() for name in ("activator", "kafka_bridge")
    )
    for section, model in sections().items():
        for name, field in model.model_fields.items():
            assert f"| `{environment_name(section, name)}` | " in text
            assert f" | {field.description} |" in text


@pytest.mark.parametrize("service", SERVICES)
def test_an_image_runs_without_rights_and_with_what_is_tested(service):
    file = (ROOT / "services" / service / "Dockerfile").read_text()
    assert re.search(r"^USER 10001$", file, re.MULTILINE)
    assert f"python:{(ROOT / '.python-version').read_text().strip()}-slim" in file
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", file, re.MULTILINE)
    assert all((ROOT / name).exists() for line in copied for name in line.split())
    ignored = (ROOT / ".dockerignore").read_text()
    assert all(f"!{name.partition('/')[0]}" in ignored for line in copied for name in line.split())


def test_every_command_has_a_heading():
    headings = re.findall(r"^## (.+)$", (DOCS / "reference" / "commands.md").read_text(), re.MULTILINE)
    assert sorted(headings) == sorted(names(main))


def test_every_setting_is_explained():
    text = (DOCS / "reference" / "settings.md").read_text()
    for section, model in sections().items():
        part = text.split(f"## {section}\n")[1].split("\n## ")[0]
        assert environment_name(section, next(iter(model.model_fields))) in part
        for name, field in model.model_fields.items():
            assert re.search(
                rf"^\| `{name}` \| `.+` \| {re.escape(field.description)} \|$", part, re.MULTILINE
            )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", place.read_text(), re.MULTILINE)
            assert anchor in {
                re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings
            }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_in_the_text_exist_with_their_options(page):
    known = dict(commands(main))
    for line in re.findall(r"(?:^|`)(?:\$ )?(prompt [a-z][^`#\n]*)", page.read_text(), re.MULTILINE):
        words = line.split()
        named = (known.get(" ".join(words[:length])) for length in (4, 3, 2))
        command = next((found for found in named if found is not None), None)
        assert command is not None, line
        options = {name for parameter in command.params for name in parameter.opts}
        for word in words:
            if word.startswith("--"):
                assert word in options | {"--help"}, line


def commands(command, path="prompt"):
    yield path, command
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from commands(below, f"{path} {name}")


def test_make_explains_every_target():
    output = subprocess.run(["make", "-C", ROOT], capture_output=True, text=True, check=True).stdout
    for target in ("demo", "test", "test-fast", "lint", "bench", "clean", "help"):
        assert re.search(rf"^  {target} +[A-Z]", output, re.MULTILINE)


def code_block(page, language="python"):
    (block,) = re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    return block


def test_the_script_that_writes_events_writes_valid_ones(tmp_path):
    raws = tmp_path / "NIGHT" / "raw" / "LATISS" / "20260314" / "AT_O_20260314_000007"
    raws.mkdir(parents=True)
    cards = {
        "GROUPID": "2026-03-15T01:00:00.000",
        "DATE-BEG": "2026-03-15T01:00:37.000",
        "EXPTIME": 30.0,
        "RA": 10.0,
        "DEC": -30.0,
        "ROTPA": 12.0,
        "FILTER": "SDSSr_65mm",
    }
    fits.PrimaryHDU(header=fits.Header(cards)).writeto(raws / "AT_O_20260314_000007_R00_S00.fits")
    subprocess.run(
        [sys.executable, "-c", code_block("how-to/process-your-own-night.md")], cwd=tmp_path, check=True
    )
    (line,) = (tmp_path / "NIGHT" / "events.jsonl").read_text().splitlines()
    event = parse_event(line)
    assert event.groupId == cards["GROUPID"]
    assert event.private_sndStamp - event.private_efdStamp == pytest.approx(37.0)
    close = Time(cards["DATE-BEG"], scale="tai").unix_tai + cards["EXPTIME"]
    assert event.predicted_shutter_close.unix_tai == pytest.approx(close, abs=5)
    (visit,) = fan_out(event, [0])
    assert (visit.ra, visit.dec, visit.rotation) == (10.0, -30.0, 12.0)


def test_the_script_that_reads_alerts_reads_them(results):
    script = code_block("how-to/read-alerts.md").replace("demo/repo", str(results.repo))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("10.0 -30.0 1020.0 ")
    assert "(30, 30)" in done.stdout
