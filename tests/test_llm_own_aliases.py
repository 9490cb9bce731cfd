"""The application's own attributes for LLM columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from observatory_storage import (
    ConfigError,
    CopyWriter,
    LlmConfig,
    LlmSpan,
    SpanFilters,
    StorageConfig,
    StoragePool,
)
from observatory_storage.llm import aliases_of, facts, facts_by_column, use_own_aliases
from observatory_storage.llm.dialects import ALIASES
from tests.test_llm_events import span


@pytest.fixture(autouse=True)
def _of_this_test() -> Iterator[None]:
    yield
    use_own_aliases({})


def read(attributes: dict[str, Any], resource: dict[str, Any] | None = None) -> dict[str, Any]:
    found = facts(attributes, name="x", scope_name=None, resource_attributes=resource or {})
    columns = facts_by_column(
        [attributes], names=["x"], scope_names=[None], resource_attributes=[resource or {}]
    )
    assert {name: value for name, (value,) in columns.items() if value is not None} == found
    return found


def test_own_attributes_come_first_in_their_order() -> None:
    use_own_aliases({"user_id": ["app.user", "app.context[user][id]"]})
    attributes = {"app.user": "a", "app.context": '{"user": {"id": "b"}}', "user.id": "c"}
    assert read(attributes) == {"user_id": "a"}
    assert read(attributes | {"app.user": 5}) == {"user_id": "b"}
    assert read({"user.id": "c"}) == {"user_id": "c"}
    assert aliases_of("user_id")[:3] == ("app.user", "app.context[user][id]", "user.id")
    use_own_aliases({})
    assert read(attributes) == {"user_id": "c"}
    assert aliases_of("user_id") == ALIASES["user_id"]


def test_own_attributes_are_read_by_the_type_of_their_column() -> None:
    use_own_aliases(
        {
            "prompt_tokens": ["app.tokens"],
            "prompt_cache_read": ["app.cached"],
            "provider": ["app.vendor"],
            "environment": ["app.stage"],
        }
    )
    attributes = {"app.tokens": "12", "app.cached": 4, "app.vendor": "OpenAI"}
    assert read(attributes, {"app.stage": "test", "deployment.environment": "other"}) == {
        "prompt_tokens": 12,
        "total_tokens": 12,
        "token_details": {"prompt_cache_read": 4},
        "provider": "openai",
        "environment": "test",
    }


def test_an_attribute_of_a_dialect_can_be_given_to_another_column() -> None:
    use_own_aliases({"session_id": ["user.id"]})
    assert read({"user.id": "c-1"}) == {"session_id": "c-1"}


def test_the_configuration_of_a_pool_reaches_all_its_writers(
    pool: StoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_ALIASES", '{"user_id": "app.user"}')
    llm = StorageConfig.from_env().llm
    assert llm == LlmConfig(aliases={"user_id": ("app.user",)})
    with StoragePool(pool.config.model_copy(update={"llm": llm})) as own:
        attributes = {"app.user": "ada"}
        CopyWriter(own).write_spans([span(n, attributes=attributes) for n in range(1, 12)])
        assert LlmSpan(model="m", attributes=attributes).to_span().user_id == "ada"
        with own.unit_of_work() as uow:
            assert len(list(uow.traces.list_spans(SpanFilters(user_id="ada", limit=20)))) == 11
            # The attributes of logs are erased by the same names.
            assert uow.traces.delete_user("ada").spans == 11


@pytest.mark.parametrize(
    ("aliases", "problem"),
    [
        ({"user": ["app.user"]}, "llm.aliases.user: is not a column that attributes give"),
        ({"userid": ["app.user"]}, "did you mean user_id?"),
        ({"user_id": ["app[user"]}, "llm.aliases.user_id: must be written as app.user"),
        ({"user_id": ["a"], "session_id": ["a"]}, "session_id: a stands for user_id already"),
    ],
)
def test_aliases_that_cannot_be_are_named(
    pool: StoragePool, aliases: dict[str, Any], problem: str
) -> None:
    config = pool.config.model_copy(update={"llm": LlmConfig(aliases=aliases)})
    with pytest.raises(ConfigError) as caught:
        StoragePool(config, connect=False)
    assert problem in str(caught.value)
    assert read({"user.id": "c"}) == {"user_id": "c"}


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        ("app.user", "must be JSON"),
        ('{"user_id": [5]}', "must list names of attributes for user_id"),
        ('{"user_id": {"a": 1}}', "must list names of attributes for user_id"),
        ("[1]", "must be a group of keys"),
    ],
)
def test_a_malformed_variable_is_named(
    monkeypatch: pytest.MonkeyPatch, value: str, rule: str
) -> None:
    monkeypatch.setenv("LLM_ALIASES", value)
    with pytest.raises(ConfigError) as caught:
        StorageConfig.from_env()
    assert "LLM_ALIASES" in str(caught.value)
    assert rule in str(caught.value)
