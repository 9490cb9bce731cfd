"""The words that maintenance indexes are at least those that PostgreSQL finds in the content."""

from __future__ import annotations

import random
from collections.abc import Iterator

import orjson
import pytest
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from observatory_storage import StoragePool, jsonb
from observatory_storage.llm.content_search import content_of_attributes, content_vector
from observatory_storage.payloads.content_words import is_content, runs_of, words_of_values

PIECES = [
    *"aZé9 ",
    *"\\\\\"'/.,-_@&<>:\n\t\r\b\f\x01\x7f",
    *("\\n", "\\t", "\\u00e9", "\\\\u00e9", "\\ud83d\\ude00", "\\u0041", "\\\\nabla", "\\frac{a}"),
    *(
        "don\u2019t",
        "Straße",
        "İstanbul",
        "\u0131",
        "ΟΔΟΣ",
        "привет",
        "عربى،",
        "हिन्दी",
        "東京",
        "서울",
        "ไทย",
    ),
    *(
        "😀",
        "e\u0301",
        "\u00ad",
        "²",
        "¼",
        "\uff11\uff12",
        "1e5",
        "0x1f",
        "12abc",
        "v1.2.3",
        "\u200b",
        "ª",
    ),
    *("https://example.com/a_b?c=d", "me@example.com", "x" * 50, "<b>bold</b>"),
]


def some_texts(seed: int, count: int) -> Iterator[str]:
    chance = random.Random(seed)
    for _ in range(count):
        text = "".join(chance.choices(PIECES, k=chance.randrange(1, 14)))
        for _ in range(chance.choice([0, 0, 1, 2])):
            text = orjson.dumps({"content": text}).decode()
            text = text.replace("\\n", "\\\\n") if chance.random() < 0.1 else text
        yield text


def some_values(seed: int, count: int) -> Iterator[object]:
    chance = random.Random(seed)
    for text in some_texts(seed, count):
        number = chance.choice([1e5, 1.5e-7, 2.5e300, 12, 3.25, -4e20])
        yield chance.choice([text, [text, number], {"role": text, "n": [number, {"x": text}]}])


def test_no_word_is_missed(pool: StoragePool) -> None:
    attributes = sa.column("attributes", JSONB)
    given = sa.func.unnest(sa.bindparam("texts", type_=sa.ARRAY(sa.Text)))
    row = sa.select(sa.cast(given, JSONB).label("attributes")).subquery("row")
    content = content_of_attributes(row.c.attributes)
    found = sa.select(sa.func.tsvector_to_array(content_vector(content)))
    plain = sa.select(sa.func.tsvector_to_array(content_vector(content, words_twice=False)))
    values = [jsonb.dumps(value) for value in some_values(3, 3_000)]
    texts = [(b'{"input.value":' + value + b"}").decode() for value in values]
    assert attributes is not None
    with pool.engine.connect() as connection:
        for statement in (found, plain):
            for value, words in zip(
                values, connection.scalars(statement, {"texts": texts}), strict=True
            ):
                own = words_of_values([{"input.value": value}])
                for word in words:
                    assert {run.encode() for run in runs_of(word)} <= own, (value, word)


@pytest.mark.parametrize(
    ("word", "runs"),
    [
        ("Straße", ["strasse"]),
        ("İstanbul", ["istanbul"]),
        ("東京", ["東", "京"]),
        ("e\u0301t", ["e", "t"]),
        ("x" * 50, ["x" * 40]),
        ("!", []),
    ],
)
def test_a_word_is_divided_into_runs(word: str, runs: list[str]) -> None:
    assert runs_of(word) == runs


def test_only_content_has_words() -> None:
    contents = {"gen_ai.prompt", "gen_ai.prompt.0.content", "llm.input_messages.12.message.content"}
    contents |= {"embedding.embeddings.3.embedding.text", "content", "input.value"}
    others = {"gen_ai.prompt.name", "embedding.embeddings.x.embedding.text", "url", "input.values"}
    assert {key for key in contents | others if is_content(key)} == contents
    assert words_of_values([{"url": b'"one"', "content": b'"two"'}]) == {b"two"}
