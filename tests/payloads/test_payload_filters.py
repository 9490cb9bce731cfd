"""Filters on attributes find the same rows, whether values stand in their rows or in frames."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import pytest

from observatory_storage import (
    CopyWriter,
    Exists,
    Not,
    OneOf,
    Prefix,
    SpanFilters,
    StoragePool,
    TraceFilters,
    UnitOfWork,
    ValidationError,
    build_partition_indexes,
)
from observatory_storage.repositories.reading.validation import AttributeFilter
from tests import citus
from tests.payloads.moved_rows import move_stored
from tests.repositories.plans import plans_of, walk_first
from tests.repositories.samples import DAY, SECOND, START, a_span, an_event

LONG = "Which river runs through Paris? " * 20
SEINE = [{"role": "assistant", "content": "The Seine. " * 30}]
OBJECT = {"content": "The Seine. " * 30}
SEINE_TEXT = '[{"role":"assistant","content":"' + "The Seine. " * 30 + '"}]'
VALUES: list[Any] = [
    *("short", LONG, LONG + "!", LONG[:100], LONG[:100] + "…", LONG[:99] + "…", "😀" * 70),
    *("😀" * 101, "😀" * 100 + "…", "\x01" * 60, 'a "quoted" text\n' * 20),
    *(SEINE, SEINE_TEXT, SEINE_TEXT[:100] + "…", OBJECT, [LONG, "short"], [[LONG]], [SEINE]),
    # Its text as JSON is large, but no longer than a preview.
    *([{"😀" * 40: "😀" * 40}], '[{"' + "😀" * 40 + '":"' + "😀" * 40 + '"}]'),
    *(17, True, None, [], {}, "[", "{", list(range(200)), int("9" * 300)),
]
TEXTS = [value for value in VALUES if isinstance(value, str)]
PREFIXES = [*("W", "Which", LONG[:99], LONG[:100], "[", "{", '[{"role"', "😀", "😀" * 100, "\x01")]
LISTS: list[Any] = [[LONG, "short"], [], [[LONG]], list(range(200))]


def wanted() -> Iterator[AttributeFilter]:
    single: list[AttributeFilter] = [*TEXTS, *map(Prefix, PREFIXES), 17, True]
    yield from single
    yield from LISTS
    yield from map(Not, single)
    yield from (OneOf(*pair) for pair in combinations([LONG, "short", *map(Prefix, "[{Ws")], 2))
    yield OneOf(LONG[:100] + "…", LONG, Prefix("["), 17)
    yield Not(LONG, "short")
    yield from (Exists(), Not(Exists()))


def answers(uow: UnitOfWork) -> dict[str, list[list[str]]]:
    """What each filter finds: spans, and traces."""
    found = {}
    for number, value in enumerate(wanted()):
        of_spans = SpanFilters(attributes={"key": value}, limit=1000)
        of_traces = TraceFilters(attributes={"key": value}, limit=1000)
        found[f"{number} {value!r:.100}"] = [
            [span.span_id for span in uow.traces.list_spans(of_spans)],
            [trace.trace_id for trace in uow.traces.list(of_traces)],
        ]
    return found


def test_filters_find_the_same_in_rows_and_in_frames(pool: StoragePool) -> None:
    rows = []
    for number, value in enumerate(VALUES, start=1):
        pair = {"key": value}
        rows.append(a_span(number, 1, attributes=pair))
        rows.append(a_span(number + 100, 1, events=[an_event(), an_event(**pair)]))
    rows.append(a_span(97, 1))
    rows.append(a_span(99, 1, resource_attributes={"key": LONG}))
    rows.append(
        a_span(
            98, 1, links=[{"trace_id": "1" * 32, "span_id": "1" * 16, "attributes": {"key": LONG}}]
        )
    )
    CopyWriter(pool).write_spans(rows)
    with pool.unit_of_work() as uow:
        inline = answers(uow)
    assert move_stored(pool) == 2 * 12
    with pool.unit_of_work() as uow:
        assert answers(uow) == inline
    # Each filter finds something, and not everything.
    assert not [name for name, (spans, _) in inline.items() if len(spans) in (0, len(rows))]


@pytest.mark.parametrize("operator", [OneOf("a", Prefix("a" * 101)), Not(Prefix("a" * 101))])
def test_a_prefix_is_no_longer_than_previews(operator: AttributeFilter) -> None:
    with pytest.raises(ValidationError, match="at most 100 characters"):
        SpanFilters(attributes={"key": operator})


@citus.not_there("shards have plans of their own")
def test_an_index_finds_a_value_in_a_frame(
    pool: StoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = [f"{number:04} {LONG}" for number in range(1500)]
    rows = [
        a_span(number, 1, START + number * SECOND, attributes={"key": value})
        for number, value in enumerate(values, start=1)
    ]
    CopyWriter(pool).write_spans(rows)
    assert move_stored(pool) == len(rows)
    build_partition_indexes(pool)
    with pool.engine.connect() as connection:
        connection.exec_driver_sql("ANALYZE")
        connection.commit()
    walk_first(monkeypatch, 20)
    asked = SpanFilters(attributes={"key": values[77]}, start_time=START, end_time=START + DAY)
    with pool.unit_of_work() as uow:
        assert [span.trace_id.int for span in uow.traces.list_spans(asked)] == [78]
    plans = plans_of(pool, lambda uow: uow.traces.list_spans(asked))
    assert any("attributes" in index for plan in plans for index in plan.indexes)
    assert not {name for plan in plans for name in plan.read_whole if "spans" in name}
