"""The section `rules`: where it is read from, and how its mistakes are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from observatory_storage.config import DropRule, RedactRule, RulesConfig, StorageConfig
from observatory_storage.errors import ConfigError
from tests.config.conftest import Environment, problems

RULES = RulesConfig(
    drop=[DropRule(name="GET *", signal="spans"), DropRule(attribute="a")],
    drop_attributes=["b.*", "c"],
    rename_attributes={"d": "e"},
    redact=[RedactRule(pattern="f+"), RedactRule(pattern="(g)", replacement=r"\1!", attribute="h")],
    drop_contents=True,
)


def test_variables_have_the_rules(environment: Environment) -> None:
    environment(
        OBSERVATORY_DROP='[{"name": "GET *", "signal": "spans"}, {"attribute": "a"}]',
        OBSERVATORY_DROP_ATTRIBUTES="b.*, c",
        OBSERVATORY_RENAME_ATTRIBUTES='{"d": "e"}',
        OBSERVATORY_REDACT=r'["f+", {"pattern": "(g)", "replacement": "\\1!", "attribute": "h"}]',
        OBSERVATORY_DROP_CONTENTS="true",
    )
    assert StorageConfig.from_env().rules == RULES


def test_variables_win_over_a_file(environment: Environment) -> None:
    Path("storage.json").write_text('{"rules": {"drop_attributes": ["x"], "redact": ["f+"]}}')
    environment(OBSERVATORY_DROP_ATTRIBUTES='["y"]')
    rules = StorageConfig.from_file("storage.json").rules
    assert rules == RulesConfig(drop_attributes=["y"], redact=[RedactRule(pattern="f+")])


def test_by_default_there_are_no_rules() -> None:
    assert StorageConfig().rules.is_empty
    assert not RULES.is_empty


@pytest.mark.parametrize(
    ("given", "place", "rule"),
    [
        ({"redact": ["("]}, "redact[0].pattern = '('", "must be a regular expression of Python"),
        ({"redact": ["a", {"pattern": "b", "patern": "c"}]}, "redact[1].patern", "'pattern'?"),
        ({"redact": [{"replacement": "x"}]}, "redact[0].pattern", "required"),
        ({"redact": ["a*"]}, "redact[0].pattern", "must not match an empty text"),
        ({"redact": [{"pattern": "a", "replacement": r"\2"}]}, "redact[0].replacement", "group"),
        ({"redact": [{"pattern": "a", "replacement": r"\g<x>"}]}, "redact[0].replacement", "group"),
        ({"redact": "a"}, "redact = 'a'", "must be JSON"),
        ({"redact": {"pattern": "a"}}, "redact", "must be a list"),
        ({"drop": [{}]}, "drop[0]", "must have one of scope, name, attribute and pattern"),
        ({"drop": [{"signal": "spans"}]}, "drop[0]", "must have one of"),
        ({"drop": [{"name": "a"}, {"nam": "b"}]}, "drop[1].nam", "did you mean 'name'?"),
        ({"drop": [{"name": "a", "signal": "traces"}]}, "drop[0].signal = 'traces'", "'spans'"),
        ({"drop": [{"name": ""}]}, "drop[0].name = ''", "must not be empty"),
        ({"drop": [5]}, "drop[0]", "must be a group of keys"),
        ({"drop_attributes": ["a", ""]}, "drop_attributes[1] = ''", "must not be empty"),
        ({"drop_attributes": "a,"}, "drop_attributes[1] = ''", "must not be empty"),
        ({"drop_attributes": [5]}, "drop_attributes[0] = 5", "must be text"),
        ({"rename_attributes": {"a": "a"}}, "rename_attributes", "another name for a"),
        ({"rename_attributes": {"a": 5}}, "rename_attributes.a = 5", "must be text"),
        ({"rename_attributes": ["a"]}, "rename_attributes", "must be a group of keys"),
        ({"drop_contents": "perhaps"}, "drop_contents = 'perhaps'", "must be true or false"),
        ({"drp": []}, "drp", "did you mean 'drop'?"),
    ],
)
def test_a_mistake_is_told_by_its_place(given: dict[str, Any], place: str, rule: str) -> None:
    told = problems(lambda: RulesConfig(**given))
    assert told.startswith(f"rules.{place}")
    assert rule in told
    sections: dict[str, Any] = {"rules": given}
    assert problems(lambda: StorageConfig(**sections)) == told


def test_a_mistake_names_the_variable_or_the_file(environment: Environment) -> None:
    environment(OBSERVATORY_REDACT='["a", "("]', OBSERVATORY_DROP='[{"nme": "a"}]')
    Path("storage.yaml").write_text("rules: {rename_attributes: {a: 5}, drop_attributes: ['']}")
    lines = problems(lambda: StorageConfig.from_file("storage.yaml")).splitlines()[1:]
    assert sorted(line.strip().partition(": must")[0] for line in lines) == [
        "OBSERVATORY_DROP[0].nme: unknown key; did you mean 'name'?",
        "OBSERVATORY_REDACT[1].pattern = '('",
        "storage.yaml: rules.drop_attributes[0] = ''",
        "storage.yaml: rules.rename_attributes.a = 5",
    ]


def test_a_rule_by_itself_is_checked_too() -> None:
    with pytest.raises(ConfigError, match="must have one of scope"):
        DropRule(signal="logs")
    with pytest.raises(ConfigError, match=r"pattern = '\[': must be a regular expression"):
        RedactRule(pattern="[")
