"""Lists of traces and spans against the same filters in plain Python, on spans of three days."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from observatory_storage import CopyWriter, StorageError, StoragePool, ValidationError
from observatory_storage.models import Trace, TraceSpan
from observatory_storage.repositories import (
    Exists,
    LogFilters,
    Not,
    OneOf,
    Page,
    Prefix,
    SpanFilters,
    TraceFilters,
)
from observatory_storage.repositories.traces import candidates, trace_search, walk_or_index
from tests.repositories.samples import (
    DAY,
    SECOND,
    START,
    Row,
    a_span,
    backwards,
    forwards,
    keys,
    newest_spans,
    newest_traces,
    span_key,
    statements,
    trace_key,
)

SHARED: list[dict[str, Any]] = [
    {},
    {"service_name": "api"},
    {"service_name": "nobody"},
    {"service_name": "api", "operation": "chat"},
    {"operation": "search"},
    {"operation": "sea%"},
    {"operation": "se_rch"},
    {"operation": "'; DROP TABLE traces; --"},
    {"status": "error"},
    {"status": "ok"},
    {"status": "unset", "service_name": "worker"},
    {"start_time": START + DAY},
    {"end_time": START + DAY + 5 * SECOND},
    {"start_time": START + DAY + 3 * SECOND, "end_time": START + DAY + 9 * SECOND},
    {"start_time": START, "end_time": START},
    {"min_duration_us": 2},
    {"min_duration_us": 1.7500001},
    {"min_duration_us": 2.749, "max_duration_us": 2.999},
    {"max_duration_us": 1},
    {"max_duration_us": 0.5},
    {"min_duration_us": 2000, "status": "error"},
    {"provider": "openai"},
    {"model": "large"},
    {"model": "large", "status": "ok", "service_name": "api"},
    {"user_id": "ann"},
    {"user_id": "ann", "session_id": "s2"},
    {"session_id": "s1", "environment": "test"},
    {"environment": "test"},
    {"attributes": {"k": 1}},
    {"attributes": {"k": 1.0}},
    {"attributes": {"k": "1"}},
    {"attributes": {"k": True}},
    {"attributes": {"k": False}},
    {"attributes": {"a.b": "x%"}},
    {"attributes": {"a": "x%"}},
    {"attributes": {"a.b": "x_"}},
    {"attributes": {"k'\"": "\\"}},
    {"attributes": {"k": 1, "a.b": "x%"}},
    {"attributes": {"k": 1}, "start_time": START + DAY, "end_time": START + 2 * DAY},
    {"attributes": {}},
    {"min_tokens": 10},
    {"max_tokens": 0},
    {"min_tokens": 0, "max_tokens": 10},
    {"min_cost_usd": 0.001},
    {"min_cost_usd": 0.0010000001, "max_cost_usd": 1},
    {"service_name": ["api", "worker"]},
    {"service_name": ["nobody", "api"], "operation": ("chat", "plan")},
    {"service_name": ["api", "nobody"], "model": "large"},
    {"service_name": Prefix("wor")},
    {"service_name": Not("api")},
    {"operation": Prefix("%")},
    {"operation": OneOf(Prefix("se"), "plan")},
    {"operation": Not(Prefix("se"), "plan")},
    {"status": ["error", "unset"]},
    {"status": Not("error")},
    {"status": Not(["error", "ok"]), "service_name": "api"},
    {"model": ["large", "small"]},
    {"model": Not("large")},
    {"model": "large", "status": Not("error")},
    {"model": Not(Exists())},
    {"user_id": Exists()},
    {"user_id": OneOf("ann", "bob"), "session_id": Not("s2")},
    {"user_id": Not("ann", "bob"), "start_time": START + DAY, "end_time": START + 2 * DAY},
    {"environment": Not("test"), "provider": Exists()},
    {"attributes": {"k": OneOf(1, "1")}},
    {"attributes": {"k": OneOf(1, 2, 3), "a.b": Exists()}},
    {"attributes": {"k": Not(True), "a.b": Not(Exists())}},
    {"attributes": {"k": Not(Exists())}, "service_name": "api"},
    {"attributes": {"a.b": OneOf(Prefix("y"), "x%")}},
    {"attributes": {"a.b": Prefix("x_")}},
    {"attributes": {"k": Prefix("1"), "a.b": Not("z")}},
    {"root": True, "operation": "chat"},
    {"root": False, "status": "error"},
    {"ended_after": START + DAY, "ended_before": START + DAY + 9 * SECOND, "status": "ok"},
]
OF_SPANS: list[dict[str, Any]] = [
    {"trace_id": trace_key(7)},
    {"trace_id": trace_key(7), "status": "error"},
    {"trace_id": trace_key(10_000)},
    {"kind": "client"},
    {"name": "plan", "operation": "plan"},
    {"name": "plan", "operation": "chat"},
    {"trace_id": [trace_key(7), trace_key(9), trace_key(10_000)]},
    {"trace_id": Not(trace_key(7)), "attributes": {"k": 1}},
    {"trace_id": [trace_key(7), trace_key(9)], "attributes": {"k": Exists()}},
    {"kind": Not("client"), "name": OneOf("plan", Prefix("c"))},
]


@pytest.mark.parametrize("few", [0, 100_000])
@pytest.mark.parametrize("conditions", SHARED, ids=str)
def test_traces_are_those_of_matching_spans_newest_first(
    shared_pool: StoragePool,
    spans: list[Row],
    conditions: dict[str, Any],
    few: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trace_search, "_FEW_SPANS", few)  # each of the two ways
    monkeypatch.setattr(candidates, "_MOST", few)
    monkeypatch.setattr(walk_or_index, "_WALKED", (2, 5) if few else (3, 9))
    expected = newest_traces(spans, TraceFilters(**conditions))
    filters = TraceFilters(**conditions, limit=7)
    with shared_pool.unit_of_work() as uow:

        def page_at(**cursor: Any) -> Page[Trace]:
            return uow.traces.list(filters, **cursor)

        pages = forwards(page_at)
        assert [trace.trace_id for page in pages for trace in page] == expected
        assert [list(map(id_of, page)) for page in backwards(page_at, pages[-1])] == [
            list(map(id_of, page)) for page in pages
        ]
        assert [trace.trace_id for trace in uow.traces.iterate(filters, 9)] == expected
        assert uow.traces.get_stats(filters).trace_count == len(expected)


@pytest.mark.parametrize("conditions", [*SHARED, *OF_SPANS], ids=str)
def test_spans_are_those_that_match_newest_first(
    shared_pool: StoragePool, spans: list[Row], conditions: dict[str, Any]
) -> None:
    expected = newest_spans(spans, SpanFilters(**conditions))
    filters = SpanFilters(**conditions, limit=11)
    with shared_pool.unit_of_work() as uow:

        def page_at(**cursor: Any) -> Page[TraceSpan]:
            return uow.traces.list_spans(filters, **cursor)

        pages = forwards(page_at)
        assert [key for page in pages for key in keys(page)] == expected
        assert [keys(page) for page in backwards(page_at, pages[-1])] == [
            keys(page) for page in pages
        ]
        assert keys(uow.traces.iterate_spans(filters, 6)) == expected


def id_of(trace: Trace) -> str:
    return trace.trace_id


def test_a_trace_matches_only_where_one_span_meets_all(pool: StoragePool) -> None:
    CopyWriter(pool).write_spans(
        [a_span(1, 1, status="error"), a_span(1, 2, name="chat", attributes={"k": 1, "l": 2})]
    )
    with pool.unit_of_work() as uow:
        assert len(uow.traces.list(TraceFilters(status="error"))) == 1
        assert len(uow.traces.list(TraceFilters(operation="chat"))) == 1
        assert not uow.traces.list(TraceFilters(status="error", operation="chat"))
        assert len(uow.traces.list(TraceFilters(attributes={"k": 1, "l": 2}))) == 1
        assert not uow.traces.list(TraceFilters(attributes={"k": 1, "l": 3}))


def test_the_time_bounds_the_matching_span_not_the_trace(pool: StoragePool) -> None:
    CopyWriter(pool).write_spans([a_span(1, 1), a_span(1, 2, START + DAY, name="late")])
    late: dict[str, Any] = {"start_time": START + DAY, "end_time": START + 2 * DAY}
    with pool.unit_of_work() as uow:
        assert len(uow.traces.list(TraceFilters(**late))) == 1
        assert len(uow.traces.list(TraceFilters(**late, operation="late"))) == 1
        assert not uow.traces.list(TraceFilters(**late, operation="operation"))
        assert not uow.traces.list(TraceFilters(start_time=START + SECOND, end_time=START + DAY))


def test_a_trace_without_spans_counts_as_a_span(pool: StoragePool) -> None:
    row = {
        "trace_id": trace_key(1),
        "service_name": "service",
        "start_time": START,
        "end_time": START + SECOND,
        "status": "error",
        "attributes": {"k": 1},
        "resource_attributes": {"host": "h"},
    }
    CopyWriter(pool).write_traces([row])
    met: list[dict[str, Any]] = [
        {},
        {"service_name": "service", "status": "error"},
        {"start_time": START, "end_time": START + SECOND},
        {"min_duration_us": 1e6, "max_duration_us": 1e6},
        {"attributes": {"k": 1, "host": "h"}},
    ]
    unmet: list[dict[str, Any]] = [
        {"service_name": "other"},
        {"status": "ok"},
        {"start_time": START + SECOND},
        {"end_time": START},
        {"min_duration_us": 1_000_000.001},
        {"max_duration_us": 999_999.999},
        {"attributes": {"k": 2}},
        {"operation": "anything"},
        {"model": "large"},
    ]
    with pool.unit_of_work() as uow:
        for conditions in met:
            assert len(uow.traces.list(TraceFilters(**conditions))) == 1, conditions
            assert uow.traces.get_stats(TraceFilters(**conditions)).trace_count == 1
        for conditions in unmet:
            assert not uow.traces.list(TraceFilters(**conditions)), conditions
            assert uow.traces.get_stats(TraceFilters(**conditions)).trace_count == 0


def test_paging_misses_no_span_while_rows_are_written_and_deleted(pool: StoragePool) -> None:
    writer = CopyWriter(pool)
    writer.write_spans([a_span(n, n, START + n * SECOND) for n in range(1, 9)])
    filters = SpanFilters(limit=3)
    with pool.unit_of_work() as uow:
        first = uow.traces.list_spans(filters)
    assert [int(s.span_id, 16) for s in first] == [8, 7, 6]
    writer.write_spans([a_span(20, 20, START + DAY), a_span(21, 21, START + SECOND / 2)])
    with pool.unit_of_work() as uow:
        uow.traces.delete(trace_key(6))
        uow.commit()
        second = uow.traces.list_spans(filters, after=first.next)
        assert [int(s.span_id, 16) for s in second] == [5, 4, 3]
        third = uow.traces.list_spans(filters, after=second.next)
        assert [int(s.span_id, 16) for s in third] == [2, 1, 21]
        assert third.next is None
        newest = uow.traces.list_spans(filters, before=second.previous)
        assert [int(s.span_id, 16) for s in newest] == [20, 8, 7]
        assert newest.previous is None
        assert uow.traces.list_spans(filters, after=newest.next)[0].span_id == span_key(5)


def test_a_cursor_fits_its_own_query_whatever_the_size_of_the_page(
    shared_pool: StoragePool, spans: list[Row]
) -> None:
    with shared_pool.unit_of_work() as uow:
        page = uow.traces.list(TraceFilters(service_name="api", limit=2))
        larger = uow.traces.list(TraceFilters(service_name="api", limit=3), after=page.next)
        assert len(larger) == 3
        with pytest.raises(ValidationError, match="another query"):
            uow.traces.list(TraceFilters(service_name="worker"), after=page.next)
        with pytest.raises(ValidationError, match="another query"):
            uow.traces.list_spans(SpanFilters(service_name="api"), after=page.next)
        with pytest.raises(ValidationError, match="together with after"):
            uow.traces.list(TraceFilters(service_name="api"), after=page.next, before=page.next)


def test_the_filters_of_another_list_are_refused(shared_pool: StoragePool) -> None:
    with shared_pool.unit_of_work() as uow:
        with pytest.raises(ValidationError, match="must be TraceFilters"):
            uow.traces.list(LogFilters())  # type: ignore[arg-type]  # what is tried here
        with pytest.raises(ValidationError, match="must be SpanFilters"):
            uow.traces.list_spans(TraceFilters())  # type: ignore[arg-type]  # as above
        with pytest.raises(ValidationError, match="batch_size"):
            next(uow.traces.iterate(batch_size=0))


def test_lists_of_spans_load_payloads_only_if_asked(
    shared_pool: StoragePool, spans: list[Row]
) -> None:
    with shared_pool.unit_of_work() as uow:
        with statements(shared_pool.engine) as seen:
            (span,) = uow.traces.list_spans(SpanFilters(limit=1))
        assert len(seen) == 1
        assert "attributes" not in seen[0].partition(" FROM ")[0]
        (whole,) = uow.traces.list_spans(SpanFilters(limit=1), payload=True)
    assert span.model == whole.model
    assert isinstance(whole.attributes, dict)
    for column in ("attributes", "links", "resource_attributes", "scope_attributes", "otlp"):
        getattr(whole, column)
        with pytest.raises(StorageError, match=rf"TraceSpan\.{column} was not loaded"):
            getattr(span, column)


def test_rows_stay_usable_after_the_unit_of_work_with_the_values_of_the_database(
    pool: StoragePool,
) -> None:
    CopyWriter(pool).write_spans([a_span(1, 1)])
    with pool.unit_of_work() as uow:
        before = uow.traces.list()[0]
        CopyWriter(uow).write_spans([a_span(1, 2, status="error")])
        after = uow.traces.list()[0]
        before.service_name = "changed"
        uow.commit()
        assert uow.traces.get(trace_key(1)).service_name == "changed"
    assert (before.span_count, after.span_count) == (1, 2)
    assert after.updated_at - after.created_at >= timedelta(0)


def test_a_span_with_a_duration_has_ended(pool: StoragePool) -> None:
    took = a_span(1, 1, end_time=None, duration_us=5_000_000)
    CopyWriter(pool).write_spans([took, a_span(1, 2)])
    with pool.unit_of_work() as uow:
        (span,) = uow.traces.list_spans(SpanFilters(min_duration_us=3_000_000))
        assert span.end_time == span.start_time + 5 * SECOND
        (trace,) = uow.traces.list(TraceFilters(min_duration_us=3_000_000))
        assert trace.duration_us is not None
        assert trace.duration_us >= 5_000_000


def test_equal_numbers_are_one_query(shared_pool: StoragePool, spans: list[Row]) -> None:
    with shared_pool.unit_of_work() as uow:
        page = uow.traces.list(TraceFilters(min_duration_us=1, limit=1))
        assert page.next is not None
        for number in (1.0, Decimal("1.00")):
            uow.traces.list(TraceFilters(min_duration_us=number, limit=1), after=page.next)
        with pytest.raises(ValidationError, match="another query"):
            uow.traces.list(TraceFilters(min_duration_us=1.5, limit=1), after=page.next)
