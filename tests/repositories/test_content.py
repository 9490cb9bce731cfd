"""The words of prompts and completions: which attributes, which words, and that nothing fails."""

from __future__ import annotations

import json
import random
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from observatory_storage import StoragePool
from observatory_storage.llm.content_names import (
    COMPLETIONS,
    COMPLETIONS_OF_EVENTS,
    PROMPTS,
    PROMPTS_OF_EVENTS,
)
from observatory_storage.llm.content_search import (
    content_of_attributes,
    content_of_event,
    content_vector,
    has_literally,
)
from observatory_storage.repositories.reading.content_conditions import has_words
from observatory_storage.repositories.reading.text_search import TextSearch


def documents(values: list[Any]) -> sa.TableValuedAlias:
    """A table of attributes, for expressions on them."""
    whole = sa.func.jsonb_array_elements(sa.cast(values, JSONB))
    return whole.table_valued(sa.column("attributes", JSONB)).render_derived("documents")


def words_of(pool: StoragePool, attributes: Any) -> set[str]:
    table = documents([attributes])
    vector = content_vector(content_of_attributes(table.c.attributes))
    with pool.engine.connect() as connection:
        return set(connection.scalar(sa.select(sa.func.tsvector_to_array(vector))) or [])


@pytest.mark.parametrize("name", [*PROMPTS, *COMPLETIONS])
def test_attributes_are_compared_by_their_whole_names(shared_pool: StoragePool, name: str) -> None:
    written = name.replace("*", "17")
    assert words_of(shared_pool, {written: "Alpha"}) == {"alpha"}
    others = {f"x{written}", written.upper(), f"{written}s"}
    if "*" not in name:
        others |= {f"{written}.name", f"{written}_name"}
    others -= {*PROMPTS, *COMPLETIONS, f"{written}s" if "*" in name else ""}
    assert not words_of(shared_pool, dict.fromkeys(others, "alpha"))


def test_the_guide_lists_the_attributes() -> None:
    guide = Path(__file__).parents[2] / "docs" / "llm.md"
    section = guide.read_text().partition("## Words of prompts")[2].partition("\n## ")[0]
    lists = re.findall(r"(?ms)^- (?:prompts|completions): (.*?)\n(?=-|\n)", section)
    written = [tuple(re.findall("`([^`]+)`", one)) for one in lists]
    assert written == [PROMPTS, COMPLETIONS, PROMPTS_OF_EVENTS, COMPLETIONS_OF_EVENTS]


@pytest.mark.parametrize("name", [name for name in (*PROMPTS, *COMPLETIONS) if name[-1] == "*"])
def test_all_attributes_of_a_flattened_list_are_read(shared_pool: StoragePool, name: str) -> None:
    longer = {name.replace("*", "0.message.content"): "Alpha", name.replace("*", "21.x"): "BETA"}
    assert words_of(shared_pool, longer) == {"alpha", "beta"}


@pytest.mark.parametrize(
    "name",
    [
        *("gen_ai.prompt.name", "gen_ai.prompt.version", "gen_ai.prompt.id"),
        *("langfuse.observation.prompt.name", "langfuse.observation.prompt.version"),
        *("llm.prompt_template.version", "prompt.id", "prompt.url", "ai.prompt.format"),
        *("traceloop.prompt.key", "mlflow.prompt.name", "embedding.embeddings.0.embedding.vector"),
    ],
)
def test_the_name_of_a_prompt_is_no_prompt(shared_pool: StoragePool, name: str) -> None:
    assert not words_of(shared_pool, {name: "support reply"})


@pytest.mark.parametrize("key", [*PROMPTS_OF_EVENTS, *COMPLETIONS_OF_EVENTS])
def test_message_events_have_attributes_of_their_own(shared_pool: StoragePool, key: str) -> None:
    def words(name: str, attributes: dict[str, Any]) -> set[str]:
        content = content_of_event(sa.literal(name), documents([attributes]).c.attributes)
        with shared_pool.engine.connect() as connection:
            query = sa.select(sa.func.tsvector_to_array(content_vector(content)))
            return set(connection.scalar(query) or [])

    for name in ("gen_ai.user.message", "gen_ai.choice", "codex.tool_result", "tool.output"):
        assert words(name, {key: "alpha", "gen_ai.prompt": "beta"}) == {"alpha", "beta"}
    for name in ("exception", "log", "gen_aid"):
        assert words(name, {key: "alpha", "gen_ai.prompt": "beta"}) == {"beta"}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("one two", {"one", "two"}),
        (
            [{"role": "user", "content": ["one", {"x": "two"}]}],
            {"role", "user", "content", "one", "x", "two"},
        ),
        (
            json.dumps({"a": 'naïve\nnew\tréal "tab"'}),
            {"a", "naïve", "new", "nnew", "tr", "réal", "tab"},
        ),
        (json.dumps([json.dumps(["über\nnew"])]), {"über", "new", "nnew"}),
        (r"\frac{a}{b}", {"frac", "rac", "a", "b"}),
        ("東京 a.b/c", {"東", "京", "a", "b", "c"}),
        (json.dumps(["𠀋ok", "\ud83d"]), {"𠀋", "ok"}),
        (json.dumps(["\ud83d", "𠮷野家", "\ude00", "\ude00a"]), {"𠮷", "野", "家", "a"}),
        (json.dumps(json.dumps(["𠮷", "𠀋𠀋b", "\ud83d𠀋"])), {"𠮷", "𠀋", "b"}),
        ("C:\\users \\u00e9", {"c", "users", "é"}),
        ("a\nb\tc\rd", {"a", "b", "c", "d"}),
        (7, {"7"}),
        (None, {"null"}),
        ("", set()),
        ({}, set()),
    ],
)
def test_the_words_of_a_value(shared_pool: StoragePool, value: Any, words: set[str]) -> None:
    assert words_of(shared_pool, {"input.value": value}) == words


def test_other_json_than_an_object_has_no_words(shared_pool: StoragePool) -> None:
    for attributes in ([], ["input.value"], "input.value", 1, None, True):
        assert not words_of(shared_pool, attributes)


def test_the_end_of_a_long_prompt_and_the_beginning_of_a_long_answer(
    shared_pool: StoragePool,
) -> None:
    filling = "x " * 60_000
    found = words_of(
        shared_pool,
        {"input.value": f"first {filling} last", "output.value": f"begin {filling} end"},
    )
    assert found == {"last", "begin", "x"}


PIECES = [
    *(
        "river",
        "RIVER",
        "iver",
        "Paris",
        "ab",
        "K",
        "İ",
        "straße",
        "привет",
        "日本",
        "x1",
        "1x",
        "or",
    ),
    *("<river>", "&river;", "river.com/paris", "a-river", "-paris", "_", "'", '"', "\\", "\\\\"),
    *(
        "\\u0440",
        "\\u00e9",
        "\\ud83d",
        "\\uD83D\\uDE00",
        "\\u0072iver",
        "\\u",
        "\\u00",
        "\\U",
        "\\+",
    ),
    *(
        "\n",
        "\t",
        " ",
        " ",
        " ",
        "!",
        "?",
        "(",
        "%",
        "*",
        "e\u0301",
        "\u200b",
        "\x7f",
        "{",
        "]",
        ":",
    ),
]


def test_the_expression_never_fails_and_finds_all_words_with_letters(
    shared_pool: StoragePool,
) -> None:
    chance = random.Random(3)

    def text(most: int) -> str:
        return "".join(chance.choices(PIECES, k=chance.randrange(most)))

    def document() -> dict[str, Any]:
        given = text(12)
        return {
            "input.value": chance.choice(
                [given, json.dumps(given), json.dumps([json.dumps(given)])]
            ),
            "output.value": [given],
        }

    table = documents([document() for _ in range(200)])
    attributes = table.c.attributes
    content = content_of_attributes(attributes)
    used = 0
    with shared_pool.engine.connect() as connection:
        for query in [*PIECES, *(text(4) for _ in range(400))]:
            word = TextSearch(query).required_word()
            if word is None or len(word) < 3:
                continue
            used += 1
            search = TextSearch(query)
            whole = search.condition(
                content_vector(content),
                partial(has_literally, content),
                content_vector(content, words_twice=False),
            )
            quick = has_words(content, search)
            differing = sa.select(attributes).where(whole.is_distinct_from(quick))
            assert not connection.scalars(differing).all(), (query, word)
    assert used > 20


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("river", "river"),
        ("the Seine, in Paris?", "Seine"),
        ('"the Seine" paris', "Seine"),
        ("straße", "stra"),
        ("x1 v2beta", "v2beta"),
        ("river or sea", None),
        ("sea -river", "sea"),
        ('sea -"the river"', "sea"),
        ("<module> a", "module"),
        ("riv*", "riv"),
        ("well-known river", "known"),
        ("京都", None),
        ("-river", None),
    ],
)
def test_the_longest_required_word_is_found(text: str, word: str | None) -> None:
    assert TextSearch(text).required_word() == word
