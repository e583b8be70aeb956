"""Plain English: words that make a sentence hard to read stay out of docs, docstrings and comments.

Rooms and pages in the lists of those not done yet are not checked; both lists only shrink.
"""

import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "prompt_processing"
WORDS = re.compile(
    r"\b(nobody|whoever|somebody|is\s+told|of\s+which|as\s+ever|for\s+want\s+of|the\s+like|in\s+the\s+place\s+of)\b",
    re.IGNORECASE,
)
WIDTH = 120
ROOMS_NOT_DONE = {"arrivals", "audit", "cli", "config", "delivery", "factory", "ledger"}
ROOMS_NOT_DONE |= {"messaging", "views", "worker"}
MODULES_NOT_DONE = {"bridge/kafka_group.py"}
PAGES_NOT_DONE = {
    "docs/decisions/0001-layout.md",
    "docs/decisions/0002-lsst-middleware-from-the-package-index.md",
    "docs/decisions/0003-settings.md",
    "docs/decisions/0004-orientation.md",
    "docs/decisions/0005-apdb-rows-by-our-own-sql.md",
    "docs/decisions/0006-what-the-subtraction-is-made-of.md",
    "docs/decisions/0007-a-local-butler-for-each-visit.md",
    "docs/decisions/0008-pieces-of-a-satellites-trail.md",
    "docs/decisions/0009-engines-are-forked.md",
    "docs/decisions/0010-a-queue-in-sql.md",
    "docs/decisions/0011-snaps.md",
    "docs/decisions/0012-visits-in-memory.md",
    "docs/decisions/0013-templates-are-joined-before-the-image.md",
    "docs/decisions/0014-overrides-are-a-trail.md",
    "docs/decisions/0015-a-database-is-a-url.md",
    "docs/decisions/0016-plain-requests-to-pubsub.md",
    "docs/decisions/0017-the-bridge-commits-last.md",
    "docs/decisions/0019-a-bridge-without-a-name.md",
    "docs/glossary.md",
    "docs/guarantees.md",
    "docs/how-to/google-cloud.md",
    "docs/performance.md",
}
# These pages are generated from help texts and settings, and their tables hold long lines.
GENERATED = sorted(file.relative_to(ROOT).as_posix() for file in (ROOT / "docs" / "reference").glob("*.md"))
PAGES = sorted(
    {file.relative_to(ROOT).as_posix() for file in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]}
    - PAGES_NOT_DONE
    - set(GENERATED)
)
ROOMS = sorted(
    {folder.name for folder in SOURCE.iterdir() if (folder / "__init__.py").exists()} - ROOMS_NOT_DONE
)


def prose(code):
    """Return the comments and texts of a module: docstrings, errors and help."""
    kinds = {tokenize.COMMENT, tokenize.STRING, tokenize.FSTRING_MIDDLE}
    tokens = list(tokenize.generate_tokens(io.StringIO(code).readline))
    return [(token.start[0], token.string) for token in tokens if token.type in kinds]


def found_in(text):
    return [match.group() for match in WORDS.finditer(text)]


def wide_lines(text):
    is_code, wide = False, []
    for number, line in enumerate(text.splitlines(), 1):
        is_code ^= line.lstrip().startswith("```")
        if not is_code and not line.lstrip().startswith("|") and len(line) > WIDTH:
            wide.append(number)
    return wide


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_are_in_plain_english(room):
    problems = [
        f"{file.relative_to(SOURCE)}:{line}: {', '.join(words)}"
        for file in sorted((SOURCE / room).rglob("*.py"))
        if file.relative_to(SOURCE).as_posix() not in MODULES_NOT_DONE
        for line, text in prose(file.read_text())
        if (words := found_in(text))
    ]
    assert not problems


@pytest.mark.parametrize("page", PAGES)
def test_pages_are_in_plain_english_and_narrow(page):
    text = (ROOT / page).read_text()
    assert found_in(text) == []
    assert wide_lines(text) == []


@pytest.mark.parametrize("name", sorted(ROOMS_NOT_DONE | MODULES_NOT_DONE))
def test_a_room_without_such_words_leaves_the_list(name):
    place = SOURCE / name
    files = place.rglob("*.py") if place.is_dir() else [place]
    assert any(found_in(text) for file in files for _, text in prose(file.read_text())), f"remove {name}"


@pytest.mark.parametrize("page", sorted(PAGES_NOT_DONE))
def test_a_page_that_is_done_leaves_the_list(page):
    text = (ROOT / page).read_text()
    assert found_in(text) or wide_lines(text), f"remove {page}"


def test_words_and_wide_lines_are_seen():
    assert prose('"""Nobody."""\nx = f"is told {1}"  # of which\n')[0] == (1, '"""Nobody."""')
    assert [found_in(text) for _, text in prose('x = f"is told {1}"  # of which\n')] == [
        ["is told"],
        ["of which"],
    ]
    assert wide_lines(f"{'a' * 121}\n| {'a' * 121} |\n```\n{'a' * 121}\n```\n{'a' * 120}\n") == [1]
