"""Attributes that are lists are found by an element, and as a whole."""

from __future__ import annotations

from typing import Any

import pytest

from observatory_storage import CopyWriter, StoragePool, TraceWriter
from tests.repositories.samples import START, a_log, a_span, an_event, trace_key

VALUES: list[Any] = [
    *("a", ["a"], ["a", "b"], ["b", "a"], ["b"], [], [["a"]], {"a": "a"}, {"0": "a"}),
    *(1, [1], [1.0, 2], ["1"], [True], True, [-5, 1e22], [None], 'say "a"\\b', ['say "a"\\b']),
]
PLACES = ["attributes", "resource_attributes", "scope_attributes", "events", "links"]


@pytest.fixture(scope="module")
def rows(shared_pool: StoragePool) -> StoragePool:
    for number, value in enumerate(VALUES):
        pair = {'k"$.': value}
        place = PLACES[number % len(PLACES)]
        link = {"trace_id": trace_key(1), "span_id": "1" * 16, "attributes": pair}
        in_place: Any = {"events": [an_event(**pair)], "links": [link]}.get(place, pair)
        span = a_span(number + 1, number + 1, START, **{place: in_place})
        CopyWriter(shared_pool).write_spans([span])
        column = place if place.endswith("attributes") else "attributes"
        CopyWriter(shared_pool).write_logs([a_log(number, START, **{column: pair})])
    return shared_pool


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("a", ["a", ["a"], ["a", "b"], ["b", "a"]]),
        (["a"], [["a"]]),
        (["a", "b"], [["a", "b"]]),
        (("b", "a"), [["b", "a"]]),
        ([], [[]]),
        ([["a"]], [[["a"]]]),
        (1, [1, [1], [1.0, 2]]),
        (1.0, [1, [1], [1.0, 2]]),
        ([1, 2.0], [[1.0, 2]]),
        ("1", [["1"]]),
        (True, [[True], True]),
        (-5, [[-5, 1e22]]),
        (1e22, [[-5, 1e22]]),
        ([None], [[None]]),
        ('say "a"\\b', ['say "a"\\b', ['say "a"\\b']]),
        ("c", []),
        (["a", "c"], []),
    ],
)
def test_an_element_finds_its_list_and_a_list_an_equal_one(
    rows: StoragePool, wanted: Any, found: list[Any]
) -> None:
    attributes = {'k"$.': wanted}
    expected = [n for n, v in enumerate(VALUES) if any(repr(v) == repr(f) for f in found)]
    with rows.unit_of_work() as uow:
        spans = uow.traces.list_spans(attributes=attributes)
        traces = uow.traces.list(attributes=attributes)
        logs = uow.logs.list(attributes=attributes)
        assert uow.traces.get_stats(attributes=attributes).trace_count == len(expected)
    assert sorted(int(span.span_id, 16) - 1 for span in spans) == expected
    assert sorted(int(trace.trace_id, 16) - 1 for trace in traces) == expected
    assert sorted(log.id.int for log in logs) == expected


def test_a_trace_without_spans_has_lists_too(pool: StoragePool) -> None:
    with TraceWriter(pool) as writer:
        row = {"trace_id": trace_key(1), "service_name": "s", "start_time": START}
        writer.write_trace({**row, "attributes": {"tags": ["a", 1]}})
    with pool.unit_of_work() as uow:
        for wanted, count in (("a", 1), (1.0, 1), (["a", 1], 1), ([1, "a"], 0), ("b", 0)):
            assert len(uow.traces.list(attributes={"tags": wanted})) == count, wanted
