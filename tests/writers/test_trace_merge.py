"""A trace is what its spans say, exactly, whatever comes in which order and how often."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any, Literal

import pytest

from observatory_storage import ids
from observatory_storage.models import Trace, TraceEvent, TraceSpan
from observatory_storage.pool import StoragePool
from observatory_storage.writers import CopyWriter
from tests.writers.helpers import (
    START,
    a_span,
    a_trace,
    an_event,
    contents,
    event,
    fetch,
    span_id,
    trace_id,
)
from tests.writers.trace_model import check_traces

Method = Literal["auto", "insert", "copy"]
METHODS: tuple[Method, ...] = ("insert", "copy")
LATER = START + timedelta(minutes=1)


REPLACEMENTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a greater end": ({}, {"end_time": LATER}),
    "a smaller end": ({"end_time": LATER}, {"end_time": START + timedelta(seconds=2)}),
    "an end at last": ({"end_time": None}, {"end_time": LATER}),
    "a weaker status": ({"status": "error"}, {"status": "unset"}),
    "a stronger status": ({"status": "unset"}, {"status": "error"}),
    "no parent": ({}, {"parent_span_id": None, "name": "root", "service_name": "web"}),
    "a parent": ({"parent_span_id": None, "name": "root"}, {"parent_span_id": "0" * 15 + "b"}),
    "another name": ({"name": "before"}, {"name": "after"}),
    "another service": ({"service_name": "before"}, {"service_name": "after"}),
    "tokens at last": ({}, {"total_tokens": 5, "total_cost_usd": "0.5"}),
    "other tokens": (
        {"total_tokens": 5, "total_cost_usd": "0.5"},
        {"total_tokens": 2, "total_cost_usd": "0.1"},
    ),
    "no tokens any more": ({"total_tokens": 5, "total_cost_usd": "0.5"}, {}),
    "zero tokens": ({"total_tokens": 5}, {"total_tokens": 0}),
    "nothing that a trace knows": ({}, {"attributes": {"a": 1}}),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("change", REPLACEMENTS)
def test_a_span_sent_again_replaces_the_stored_one(
    pool: StoragePool, change: str, method: Method
) -> None:
    """In a trace of its own, and in one that has another span."""
    before, after = REPLACEMENTS[change]
    parent = {"parent_span_id": "00000000000000aa"}
    other = a_span(2, 2, **parent, total_tokens=1, total_cost_usd=1)
    writer = CopyWriter(pool, method=method)
    writer.write_spans([*(a_span(n, 1, **{**parent, **before}) for n in (1, 2)), other])
    check_traces(pool)
    writer.write_spans([a_span(n, 1, **{**parent, **after}) for n in (1, 2)])
    assert check_traces(pool) == 2
    stored = fetch(pool, TraceSpan)
    assert [row["span_id"] for row in stored] == [span_id(1), span_id(1), span_id(2)]
    for column, value in after.items():
        for row in stored[:2]:
            got = row[column]
            assert got == (Decimal(value) if isinstance(got, Decimal) else value)


@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "one by one"])
@pytest.mark.parametrize("method", METHODS)
def test_an_ended_span_is_never_replaced_by_an_unended_one(
    pool: StoragePool, method: Method, together: bool
) -> None:
    ended = a_span(name="ended", events=[{"name": "kept", "timestamp": START}])
    unended = a_span(name="unended", end_time=None, status="error", events=[])
    for batch in [[ended, unended]] if together else [[ended], [unended]]:
        CopyWriter(pool, method=method).write_spans(batch)
    (span,) = fetch(pool, TraceSpan)
    assert span["name"] == "ended"
    assert [event["name"] for event in fetch(pool, TraceEvent)] == ["kept"]
    check_traces(pool)


@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "one by one"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("ended", [True, False], ids=["ended first", "ended last"])
def test_events_stay_if_their_span_is_written_again_without_events(
    pool: StoragePool, method: Method, together: bool, ended: bool
) -> None:
    spans = [
        a_span(end_time=START + timedelta(minutes=5) if ended else None, events=[event("kept")]),
        a_span(name="again"),
    ]
    for batch in [spans] if together else [[span] for span in spans]:
        CopyWriter(pool, method=method).write_spans(batch)
    assert [row["name"] for row in fetch(pool, TraceEvent)] == ["kept"]
    assert [row["name"] for row in fetch(pool, TraceSpan)] == ["again"]


@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "one by one"])
@pytest.mark.parametrize("method", METHODS)
def test_events_are_replaced_with_their_span(
    pool: StoragePool, method: Method, together: bool
) -> None:
    other = a_span(1, 2, events=[event("of another span")])
    versions = [
        a_span(events=[event("a"), event("b"), event("c")]),
        a_span(events=[event("a"), event("changed")]),
        a_span(events=[event("a"), event("changed"), event("new")]),
    ]
    writer = CopyWriter(pool, method=method)
    batches = [[other, *versions]] if together else [[other, versions[0]], *zip(versions[1:])]
    for batch in batches:
        writer.write_spans(batch)
    names = [row["name"] for row in fetch(pool, TraceEvent)]
    assert names == ["a", "changed", "new", "of another span"]
    writer.write_spans([a_span(events=[])])
    assert [row["name"] for row in fetch(pool, TraceEvent)] == ["of another span"]


def test_events_that_stay_as_they_are_are_not_touched(pool: StoragePool) -> None:
    writer = CopyWriter(pool)
    writer.write_spans([a_span(events=[event("a", attributes={"n": 1}), event("b"), event("c")])])
    before = {row["position"]: row for row in fetch(pool, TraceEvent)}
    physical = _places(pool)
    writer.write_spans(
        [a_span(name="x", events=[event("a", attributes={"n": 1}), event("b2"), event("c")])]
    )
    after = {row["position"]: row for row in fetch(pool, TraceEvent)}
    assert {at for at in before if before[at] != after[at]} == {1}
    places = _places(pool)
    assert (places[0], places[2]) == (physical[0], physical[2])
    assert places[1] != physical[1]


def _places(pool: StoragePool) -> dict[int, str]:
    """Where the rows of events stand: another place is another version of the row."""
    with pool.engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT position, ctid::text FROM trace_events")
        return {row.position: row.ctid for row in rows}


def test_one_span_id_with_two_starts_is_two_spans(pool: StoragePool) -> None:
    """Of another service, or corrected: also where only nanoseconds tell them apart."""
    first = a_span(total_tokens=1)
    spans = [
        first,
        {**first, "start_ns": 1, "service_name": "other"},
        {**first, "start_time": START, "end_time": LATER},
    ]
    for batch in (spans[:1], spans[1:], spans):
        CopyWriter(pool).write_spans(batch)
    assert len(fetch(pool, TraceSpan)) == 3
    assert check_traces(pool) == 1
    assert fetch(pool, Trace)[0]["total_tokens"] == 3


def test_costs_of_many_digits_add_up_exactly(pool: StoragePool) -> None:
    costs = ["123456789012345678901234567890.1", "0.0000000000000000000000000000000000001", "1E-60"]
    for batch in ([0, 1], [2], [1, 2]):
        CopyWriter(pool).write_spans(
            [a_span(1, 1 + at, total_cost_usd=costs[at], name=str(batch)) for at in batch]
        )
        check_traces(pool)
    (trace,) = fetch(pool, Trace)
    assert trace["total_cost_usd"] == Decimal(
        "123456789012345678901234567890.100000000000000000000000000000000000100000000000000000000001"
    )


def test_absurd_numbers_of_tokens_do_not_cost_their_spans(pool: StoragePool) -> None:
    most = 2**63 - 1
    for numbers in ((1, 2), (3,), (1, 4)):
        CopyWriter(pool).write_spans(
            [a_span(1, number, total_tokens=most, name=str(numbers)) for number in numbers]
        )
    assert len(fetch(pool, TraceSpan)) == 4
    (trace,) = fetch(pool, Trace)
    assert (trace["span_count"], trace["total_tokens"]) == (4, most)


@pytest.mark.parametrize("method", METHODS)
def test_write_trace_sets_only_columns_that_no_span_determines(
    pool: StoragePool, method: Method
) -> None:
    said = a_trace(
        service_name="of the trace",
        start_time=LATER,
        end_time=LATER + timedelta(hours=1),
        status="error",
        root_span_name="of the trace",
        span_count=99,
        error_count=99,
        total_tokens=99,
        total_cost_usd=99,
        status_message="said",
        attributes={"said": True},
        resource_attributes={"said": 1},
    )
    writer = CopyWriter(pool, method=method)
    orders: dict[int, tuple[Callable[[int], Any], ...]] = {
        1: (lambda n: writer.write_traces([{**said, "trace_id": trace_id(n)}]), write_pair(writer)),
        2: (write_pair(writer), lambda n: writer.write_traces([{**said, "trace_id": trace_id(n)}])),
    }
    for number, steps in orders.items():
        for step in steps:
            step(number)
    check_traces(pool)
    for trace in fetch(pool, Trace):
        assert trace["span_count"] == 2
        assert trace["status_message"] == "said"
        assert trace["attributes"] == {"said": True}
        assert trace["resource_attributes"] == {"said": 1}


def write_pair(writer: CopyWriter) -> Callable[[int], Any]:
    return lambda number: writer.write_spans([a_span(number, 1), a_span(number, 2)])


@pytest.mark.parametrize("given", ["my trace", "a\x00b", "lone \udc00", "Ω" * 300])
def test_a_trace_id_of_any_text(pool: StoragePool, given: str) -> None:
    span = {**a_span(), "trace_id": given}
    CopyWriter(pool).write_spans([span])
    CopyWriter(pool).write_spans([{**span, "name": "again"}])
    CopyWriter(pool).write_traces([{**a_trace(), "trace_id": given}])
    (trace,) = fetch(pool, Trace)
    assert trace["id"] == ids.trace_uuid(given)
    assert trace["trace_id"] == given.replace("\x00", "\ufffd").replace("\udc00", "\ufffd")
    check_traces(pool)


def test_the_text_of_a_trace_id_does_not_depend_on_who_came_first(pool: StoragePool) -> None:
    for number, texts in enumerate((("a", None), (None, "a")), start=1):
        for text in texts:
            given = f"{text} {number}" if text else ids.trace_uuid(f"a {number}")
            CopyWriter(pool).write_spans([{**a_span(1, 1), "trace_id": given, "name": str(text)}])
    texts_found = [row["trace_id"] for row in fetch(pool, Trace)]
    assert sorted(texts_found) == sorted(
        min(f"a {number}", ids.trace_uuid(f"a {number}").hex) for number in (1, 2)
    )


def test_an_unchanged_trace_is_not_touched_by_others_of_its_batch(pool: StoragePool) -> None:
    CopyWriter(pool).write_spans([a_span(1, 1), a_span(2, 1)])
    before = contents(pool)["traces"]
    CopyWriter(pool).write_spans([a_span(1, 1), a_span(2, 1, name="changed")])
    assert len(set(before) & set(contents(pool)["traces"])) == 1


def test_an_event_written_before_its_span_is_kept(pool: StoragePool) -> None:
    """Also where the span brings one of the same position, which replaces that one alone."""
    CopyWriter(pool).write_events([an_event(1, 1, 0, name="early"), an_event(1, 1, 7, name="late")])
    CopyWriter(pool).write_spans([a_span(1, 1, events=[event("of the span")])])
    assert [row["name"] for row in fetch(pool, TraceEvent)] == ["of the span", "late"]
