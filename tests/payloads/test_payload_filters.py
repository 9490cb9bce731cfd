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
)
from observatory_storage.repositories.reading.validation import AttributeFilter
from tests.payloads.framed import move_stored
from tests.repositories.samples import a_span, an_event

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
