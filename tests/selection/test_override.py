"""What an operator says."""

import pytest

from prompt_processing.domain.errors import ConfigError
from prompt_processing.selection.override import Override, Overrides
from prompt_processing.storage import object_store


@pytest.fixture
def overrides(tmp_path):
    return Overrides(object_store.root(tmp_path / "overrides"))


def change(action="set", reason="storm"):
    return lambda when: Override(action=action, pipelines=("A.yaml",), reason=reason, who="me", when=when)


def test_the_newest_change_counts_and_all_are_kept(overrides):
    assert overrides.current() is None
    overrides.add(change(reason="one"))
    overrides.add(change(reason="two"))
    assert overrides.current().reason == "two"
    overrides.add(change("clear", "over"))
    assert overrides.current() is None
    assert [(made.action, made.reason) for made in overrides.history()] == [
        ("set", "one"),
        ("set", "two"),
        ("clear", "over"),
    ]


def test_two_changes_at_the_same_moment_are_both_kept(overrides, tmp_path):
    def another_comes_first(when):
        overrides.add(change(reason="first"))
        return change(reason="second")(when)

    overrides.add(another_comes_first)
    assert [made.reason for made in overrides.history()] == ["first", "second"]


def test_a_broken_change_is_told_with_its_file(overrides, tmp_path):
    overrides.add(change())
    file = next((tmp_path / "overrides").iterdir())
    file.write_text("{")
    with pytest.raises(ConfigError, match=file.name):
        overrides.current()
