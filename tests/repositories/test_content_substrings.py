"""Prompts and completions are searched for any part of their text, whatever it is written in."""

from __future__ import annotations

import json
from copy import copy
from typing import Any

import pytest
import sqlalchemy as sa

from observatory_storage import CopyWriter, StoragePool, TraceSpan
from observatory_storage.config import PostgresConfig
from observatory_storage.distribution import compile_for
from observatory_storage.llm.content_search import content_of_attributes
from observatory_storage.llm.content_substrings import contains
from tests import citus
from tests.repositories.samples import DAY, SECOND, START, a_span, an_event

SAID = (
    'hello\nother "quoted" C:\\temp\\new \\frac{a}{b} 今日は東京タワーへ ภาษาไทย 100% a_b café'
    " 😀party 𠮷野家"
)
MESSAGES = [{"role": "user", "content": SAID}]
WRITTEN: dict[str, dict[str, Any]] = {
    "text": {"attributes": {"input.value": f"first {SAID} last"}},
    "structure": {"attributes": {"gen_ai.output.messages": MESSAGES}},
    "JSON": {"attributes": {"output.value": json.dumps(MESSAGES)}},
    "JSON in letters": {"attributes": {"input.value": json.dumps(MESSAGES, ensure_ascii=False)}},
    "JSON in JSON": {"attributes": {"gen_ai.prompt": json.dumps([json.dumps(MESSAGES)])}},
    "event": {"events": [an_event(**{"gen_ai.completion": SAID})]},
}


LISTED: tuple[Any, ...] = (
    *(-7.5, [7, 7], 1e30, {"a": [[None, True, "x", "y"]]}, "", 'a"b', "\\n", "\x1f \x0a", "ǅ İ"),
    *("😀" * 6000, "n" * 6500, ["a", "b"], ["a", {"b": " "}]),
)


@pytest.fixture(scope="module")
def written(shared_pool: StoragePool) -> StoragePool:
    rows = [a_span(n, n, **columns) for n, columns in enumerate(WRITTEN.values(), 1)]
    rows.append(a_span(99, 99, attributes={"other": SAID, "input.value": 7}))
    CopyWriter(shared_pool).write_spans(rows)
    return shared_pool


@pytest.mark.parametrize(
    "value",
    [
        *("hello", "LO\nOTH", '"quoted"', "C:\\temp\\new", "\\frac{a}{b}", "は東京タ", "ษาไท"),
        *("100%", "a_b", "CAFÉ", "😀par", "quoted", "emp\\n"),
    ],
)
def test_a_substring_is_found_however_it_is_written(written: StoragePool, value: str) -> None:
    with written.unit_of_work() as uow:
        spans = uow.traces.list_spans(contains=value, start_time=START)
        assert {int(span.span_id, 16) for span in spans} == set(range(1, len(WRITTEN) + 1))
        traces = uow.traces.list(contains=value, start_time=START, end_time=START + SECOND)
        assert len(traces) == len(WRITTEN)


@pytest.mark.parametrize("value", ["oother", "100x", "aXb", "京東", "nother", "role", "first  h"])
def test_other_text_is_not_found(written: StoragePool, value: str) -> None:
    with written.unit_of_work() as uow:
        found = uow.traces.list_spans(contains=value, start_time=START)
        # The letter of an escape is a part of the text where that is JSON.
        assert {int(span.span_id, 16) for span in found} <= (
            {3, 4, 5} if value != "100x" else set()
        )
        assert not uow.traces.list_spans(contains="hello", start_time=START + DAY)


@pytest.mark.parametrize(
    "value",
    [
        *("LO\nOTH", '"quoted"', "C:\\temp\\new", "東京タ", "100%", "a_b", "CAFÉ", "emp\\n", "a.b"),
        *("7", "7.5", "-", "3", "7, 7", ".", "%", "[", "null", "true", '", "', "(", "*", ", ", " "),
        *("\n", "\\", "n", "N", "u00", "0A", "\\n", "\x1f", "x", "ǅ", "ǆ", "İ", 'quoted" C:\\T'),
        *("😀" * 5000, "n" * 6000, "N" * 7000, "n" * 6000 + "x"),
    ],
    ids=lambda value: ascii(value[:12]),
)
@citus.not_there("the condition of one server is refused")
def test_the_condition_for_shards_finds_the_same(written: StoragePool, value: str) -> None:
    rows = [a_span(200 + n, 1, attributes={"input.value": one}) for n, one in enumerate(LISTED)]
    CopyWriter(written).write_spans(rows)
    content = content_of_attributes(TraceSpan.attributes)
    statement = sa.select(TraceSpan.trace_id).where(contains(content, value)).order_by(sa.text("1"))
    sharded = copy(written.engine.dialect)
    compile_for(sharded, PostgresConfig(layout="citus"))
    with written.engine.connect() as connection:
        found = list(connection.scalars(statement))
        compiled = statement.compile(dialect=sharded)
        assert "~~*" in str(compiled)
        same = connection.exec_driver_sql(str(compiled), compiled.params)
        assert [row.trace_id for row in same] == found


@pytest.mark.parametrize(
    "text",
    [
        *("C:\\temp\\new", "\\frac{a}{b}", "frac", "\\frac", "京タワー", "東京", "ษาไท", "a_b"),
        *(
            "other",
            "hello",
            "café",
            "quoted",
            "😀party",
            "party",
            "𠮷野家",
            '"hello other"',
            "temp -nowhere.org",
        ),
        *("C:\\temp\\new or x.y", 'hello -"other hello"'),
    ],
)
def test_words_are_found_however_they_are_written(written: StoragePool, text: str) -> None:
    with written.unit_of_work() as uow:
        assert len(uow.traces.list_spans(text=text)) == len(WRITTEN)
        assert len(uow.traces.list(text=text)) == len(WRITTEN)


@pytest.mark.parametrize("text", ["D:\\temp", "\\frac{b}{a}", "京東", 'hello -"hello other"'])
def test_other_words_are_not_found(written: StoragePool, text: str) -> None:
    with written.unit_of_work() as uow:
        assert not uow.traces.list_spans(text=text)
