"""Each field of the filters, alone and with another, against the same filter in plain Python.

The pages have two rows, so that cursors lead through the whole list, forwards and backwards.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import fields
from decimal import Decimal
from functools import partial
from typing import Any

import pytest

from observatory_storage import (
    CopyWriter,
    LogFilters,
    SpanFilters,
    StoragePool,
    TraceFilters,
)
from tests.repositories.samples import (
    DAY,
    SECOND,
    START,
    Row,
    a_log,
    backwards,
    forwards,
    ids_of,
    keys,
    many_spans,
    newest_spans,
    newest_traces,
    span_key,
    trace_key,
)
from tests.repositories.test_logs import BODIES, newest

PAIRS = 12
LATER = START + DAY + 5 * SECOND

# Values of each field that some of the rows below have. A new field needs values here.
OF_SPANS: dict[str, list[Any]] = {
    "service_name": ["api", "worker"],
    "operation": ["chat", "plan"],
    "status": ["ok", "error"],
    "start_time": [START + 10 * SECOND, LATER],
    "end_time": [LATER, LATER + 10 * SECOND],
    "min_duration_us": [2, Decimal("1.5")],
    "max_duration_us": [2, 1000],
    "attributes": [{"k": 1}, {"k": "1"}, {"a.b": "x%"}],
    "provider": ["openai", "local"],
    "model": ["large", "small"],
    "user_id": ["ann", "bob"],
    "session_id": ["s1", "s2"],
    "environment": ["test"],
    "gen_ai_operation": ["chat", "execute_tool"],
    "response_model": ["large-2026"],
    "agent_name": ["planner"],
    "tool_name": ["calculator"],
    "finish_reason": ["stop", "length"],
    "error_type": ["timeout"],
    "prompt_name": ["greeting"],
    "min_tokens": [1, 10],
    "max_tokens": [10, 1000],
    "min_cost_usd": [Decimal("0.001"), 0],
    "max_cost_usd": [Decimal("0.001"), 0.1],
    "text": ["river", "paris"],
    "contains": ["ive", "PAR"],
    "root": [True, False],
    "ended_after": [START + 10 * SECOND, LATER],
    "ended_before": [LATER, LATER + 10 * SECOND],
}
OF_TRACE: dict[str, list[Any]] = {
    "trace_id": [trace_key(3), trace_key(7)],
    "kind": ["internal", "client"],
    "name": ["chat", "search"],
}
OF_LOGS: dict[str, list[Any]] = {
    "service_name": ["api", "worker"],
    "min_severity": ["INFO", 17],
    "trace_id": [trace_key(1), trace_key(2)],
    "span_id": [span_key(1)],
    "start_time": [START + 3 * SECOND, START + DAY],
    "end_time": [START + DAY, START + DAY + 5 * SECOND],
    "event_name": ["login"],
    "attributes": [{"k": 1}, {"k": "1"}, {"a.b": True}],
    "text": ["connection", "retry"],
    "contains": ["RETRY", "0%"],
}
WORDS = ["river", "Paris"]


def some_spans() -> list[Row]:
    chance = random.Random(4)
    rows = many_spans(seed=3, traces=8)
    for row in rows:
        words = " ".join(chance.sample(WORDS, chance.randrange(3)))
        row["attributes"] = {**row.get("attributes", {}), "gen_ai.prompt": words}
    return rows


def some_logs() -> list[Row]:
    chance = random.Random(5)
    return [
        a_log(
            number,
            START + chance.choice([0, 1]) * DAY + chance.randrange(9) * SECOND,
            timestamp_ns=chance.choice([0, 0, 7]),
            severity_number=chance.choice([None, 9, 13, 17]),
            body=chance.choice(BODIES),
            service_name=chance.choice(["api", "worker"]),
            trace_id=chance.choice([None, trace_key(1), trace_key(2)]),
            span_id=chance.choice([None, span_key(1)]),
            event_name=chance.choice([None, "login"]),
            attributes=chance.choice([{}, {"k": 1}, {"k": "1"}, {"a.b": True}]),
        )
        for number in range(1, 25)
    ]


SPANS, LOGS = some_spans(), some_logs()


@pytest.fixture(scope="module")
def filled(shared_pool: StoragePool) -> StoragePool:
    CopyWriter(shared_pool).write_spans(SPANS)
    CopyWriter(shared_pool).write_logs(LOGS)
    return shared_pool


def with_words(given: Row) -> tuple[Row, list[Row]]:
    """The conditions but for the words, and the spans that have them."""
    words = [given[name].lower() for name in ("text", "contains") if name in given]
    prompts = [(row, row["attributes"]["gen_ai.prompt"].lower()) for row in SPANS]
    rows = [row for row, prompt in prompts if all(word in prompt for word in words)]
    return {name: given[name] for name in given if name not in ("text", "contains")}, rows


def expected_traces(given: Row) -> list[Any]:
    conditions, rows = with_words(given)
    found = set(newest_traces(rows, TraceFilters(**conditions)))
    # In the order of the whole traces, which may begin with a span that does not match.
    return [key for key in newest_traces(SPANS, TraceFilters()) if key in found]


def expected_spans(given: Row) -> list[Any]:
    conditions, rows = with_words(given)
    return newest_spans(rows, SpanFilters(**conditions))


def expected_logs(given: Row) -> list[Any]:
    text, contained = given.get("text", ""), given.get("contains", "").lower()
    severity = LogFilters(min_severity=given.get("min_severity")).min_severity or 0
    conditions = {name: given[name] for name in given if name not in ("text", "contains")}
    return newest(
        LOGS,
        **{**conditions, "min_severity": severity},
        text=lambda body: text in body.lower() and contained in body.lower(),
    )


def trace_ids(page: Any) -> list[Any]:
    return [trace.trace_id for trace in page]


Expected = Callable[[Row], list[Any]]
LISTS: dict[type[Any], tuple[dict[str, list[Any]], Any, Callable[[Any], list[Any]], Expected]] = {
    TraceFilters: (OF_SPANS, lambda uow: uow.traces.list, trace_ids, expected_traces),
    SpanFilters: (
        {**OF_SPANS, **OF_TRACE},
        lambda uow: uow.traces.list_spans,
        keys,
        expected_spans,
    ),
    LogFilters: (OF_LOGS, lambda uow: uow.logs.list, ids_of, expected_logs),
}


def conditions_of(kind: type[Any], values: dict[str, list[Any]]) -> Iterator[Row]:
    """Each field with each value, and random pairs of fields."""
    chance = random.Random(kind.__name__)
    names = [field.name for field in fields(kind) if field.name != "limit"]
    yield from ({name: value} for name in names for value in values[name])
    for _ in range(PAIRS):
        yield {name: chance.choice(values[name]) for name in chance.sample(names, 2)}


@pytest.mark.parametrize("kind", LISTS)
def test_pages_of_every_filter_are_what_python_finds(filled: StoragePool, kind: type[Any]) -> None:
    values, list_of, named, expected_of = LISTS[kind]
    found = 0
    with filled.unit_of_work() as uow:
        for given in conditions_of(kind, values):
            if "contains" in given:  # which needs a bound of time
                given.setdefault("start_time", START - DAY)
            page_at = partial(list_of(uow), kind(**given, limit=2))
            pages = forwards(page_at)
            expected = expected_of(given)
            found += bool(expected)
            assert [key for page in pages for key in named(page)] == expected, given
            if len(given) > 1:
                again = backwards(page_at, pages[-1])
                assert list(map(named, again)) == list(map(named, pages)), given
    assert found > PAIRS  # or there would be nothing to compare
