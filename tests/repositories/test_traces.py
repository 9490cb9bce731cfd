"""Single traces, spans and events; totals; what services there are; erasure of a trace."""

from __future__ import annotations

import statistics
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from observatory_storage import CopyWriter, NotFound, StoragePool, ValidationError
from observatory_storage.repositories import Operation, TraceFilters
from tests.repositories.samples import (
    DAY,
    SECOND,
    START,
    Row,
    a_log,
    a_span,
    an_event,
    newest_traces,
    span_key,
    statements,
    trace_key,
)


def test_a_trace_is_found_by_every_form_of_its_id(pool: StoragePool) -> None:
    CopyWriter(pool).write_spans([a_span(171, 1)])
    CopyWriter(pool).write_spans([{**a_span(1, 1), "trace_id": "request 5"}])
    key = trace_key(171)
    with pool.unit_of_work() as uow:
        for form in (key, key.upper(), UUID(key), str(UUID(key))):
            assert uow.traces.get(form).id == UUID(key)
            assert uow.traces.get_by_trace_id(form).trace_id == key
            assert len(uow.traces.get_spans(form)) == 1
        named = uow.traces.get_by_trace_id("request 5")
        assert named.trace_id == "request 5"
        assert uow.traces.get(named.id).trace_id == "request 5"
        assert uow.traces.get_span("request 5", span_key(1)).trace_id == named.id


@pytest.mark.parametrize("id_", ["", 5, None, b"x"])
def test_an_invalid_id_is_refused(shared_pool: StoragePool, id_: Any) -> None:
    with shared_pool.unit_of_work() as uow:
        for method in (uow.traces.get, uow.traces.get_by_trace_id, uow.traces.get_spans):
            with pytest.raises(ValidationError):
                method(id_)


def test_a_missing_row_is_not_found(pool: StoragePool) -> None:
    CopyWriter(pool).write_spans([a_span(1, 1)])
    with pool.unit_of_work() as uow:
        for method in (uow.traces.get, uow.traces.get_by_trace_id, uow.traces.delete):
            with pytest.raises(NotFound, match=trace_key(2)):
                method(trace_key(2))
        with pytest.raises(NotFound):
            uow.traces.get_span(trace_key(2), span_key(1))
        with pytest.raises(NotFound):
            uow.traces.get_span(trace_key(1), span_key(2))
        for ask in (uow.traces.get_spans, uow.traces.get_events, uow.traces.get_tree):
            with pytest.raises(NotFound, match=f"there is no trace {trace_key(2)}"):
                ask(trace_key(2))
        assert uow.traces.get_events(trace_key(1)) == []


def test_every_query_of_an_empty_database_returns_an_empty_result(pool: StoragePool) -> None:
    with pool.unit_of_work() as uow:
        assert list(uow.traces.list()) == list(uow.traces.iterate()) == []
        assert list(uow.traces.list_spans()) == list(uow.traces.iterate_spans()) == []
        assert uow.traces.services() == []
        assert uow.traces.operations("service") == []
        stats = uow.traces.get_stats()
        assert (stats.trace_count, stats.span_count, stats.error_span_count) == (0, 0, 0)
        unknown = {name for name in stats.__slots__ if getattr(stats, name) is None}
        counts = {name for name in stats.__slots__ if name.endswith("_count")}
        assert unknown == set(stats.__slots__) - counts
        assert stats.error_rate is None


def test_the_spans_of_a_trace_come_in_order_with_their_events(pool: StoragePool) -> None:
    CopyWriter(pool).write_spans(
        [
            a_span(1, 3, START + DAY, events=[an_event("c"), an_event("d")]),
            a_span(1, 2, start_ns=5, end_ns=5, events=[an_event("b", k=1)]),
            a_span(1, 1, attributes={"a": 1}, events=[]),
            a_span(1, 2, start_ns=6, end_ns=6, events=[an_event("e")]),
            a_span(2, 1, events=[an_event("other")]),
        ]
    )
    with pool.unit_of_work() as uow:
        with statements(pool.engine) as seen:
            spans = uow.traces.get_spans(trace_key(1), with_events=True)
            events = uow.traces.get_events(trace_key(1))
        assert len(seen) == 5
        of_span = uow.traces.get_events(trace_key(1), span_key(2))
        one = uow.traces.get_span(trace_key(1), span_key(2), with_events=True)
    assert [(span.span_id, span.start_ns) for span in spans] == [
        (span_key(1), 0),
        (span_key(2), 5),
        (span_key(2), 6),
        (span_key(3), 0),
    ]
    assert [[event.name for event in span.events] for span in spans] == [
        [],
        ["b"],
        ["e"],
        ["c", "d"],
    ]
    assert spans[0].attributes == {"a": 1}
    assert [event.name for event in events] == ["b", "e", "c", "d"]
    assert [event.name for event in of_span] == ["b", "e"]
    assert (one.start_ns, [event.attributes for event in one.events]) == (5, [{"k": 1}])


def test_the_number_of_statements_does_not_depend_on_the_number_of_spans(pool: StoragePool) -> None:
    CopyWriter(pool).write_spans(
        [a_span(1, n + 1, START + n * SECOND, events=[an_event()] * 2) for n in range(300)]
    )
    with pool.unit_of_work() as uow, statements(pool.engine) as seen:
        spans = uow.traces.get_spans(trace_key(1), with_events=True)
        assert sum(len(span.events) for span in spans) == 600
        assert len(seen) == 3


def test_the_bounds_of_a_trace_that_was_read_are_not_asked_for_again(pool: StoragePool) -> None:
    CopyWriter(pool).write_spans([a_span(1, 1), a_span(1, 2, START + DAY), a_span(2, 3)])
    with pool.unit_of_work() as uow, statements(pool.engine) as seen:
        trace = uow.traces.get_by_trace_id(trace_key(1))
        assert [int(one.span_id, 16) for one in uow.traces.get_spans(trace.id)] == [1, 2]
        assert len(seen) == 2
        uow.traces.get_spans(trace_key(2))
        assert len(seen) == 4
        uow.traces.get_spans(trace, with_events=True)
        assert len(seen) == 6


def test_spans_that_were_written_since_the_trace_was_read_are_found(pool: StoragePool) -> None:
    writer = CopyWriter(pool)
    writer.write_spans([a_span(1, 2)])
    with pool.unit_of_work() as uow:
        trace = uow.traces.get(trace_key(1))
        for number, start in ((3, START + 2 * DAY), (1, START - DAY)):
            writer.write_spans([a_span(1, number, start)])
        assert [int(one.span_id, 16) for one in uow.traces.get_spans(trace.id)] == [1, 2, 3]
        assert [int(one.span_id, 16) for one in uow.traces.get_spans(trace)] == [1, 2, 3]
        with pool.unit_of_work() as other:
            other.traces.delete(trace)
            other.commit()
        with pytest.raises(NotFound):
            uow.traces.get_spans(trace)


def test_services_and_operations_are_each_named_once(
    shared_pool: StoragePool, spans: list[Row]
) -> None:
    with shared_pool.unit_of_work() as uow:
        assert uow.traces.services() == sorted({row["service_name"] for row in spans})
        for service in ("api", "worker", "nobody", "ap%"):
            expected = {
                (row["name"], row["kind"]) for row in spans if row["service_name"] == service
            }
            assert uow.traces.operations(service) == [Operation(*o) for o in sorted(expected)]
        with pytest.raises(ValidationError, match="service_name"):
            uow.traces.operations(None)  # type: ignore[arg-type]  # what is tried here


def _percentile(values: list[int], q: float) -> float:
    """Linear interpolation between the two nearest."""
    values = sorted(values)
    at = q * (len(values) - 1)
    low = int(at)
    return values[low] + (values[min(low + 1, len(values) - 1)] - values[low]) * (at - low)


@pytest.mark.parametrize(
    "filters",
    [
        TraceFilters(),
        TraceFilters(service_name="api", status="error"),
        TraceFilters(user_id="ann"),
        TraceFilters(start_time=START + DAY, end_time=START + 2 * DAY),
        TraceFilters(limit=1),
    ],
    ids=str,
)
def test_totals_are_those_of_whole_traces(
    shared_pool: StoragePool, spans: list[Row], filters: TraceFilters
) -> None:
    wanted = set(newest_traces(spans, filters))
    rows = [row for row in spans if row["trace_id"] in wanted]
    with shared_pool.unit_of_work() as uow:
        traces = [uow.traces.get(key) for key in wanted]
        stats = uow.traces.get_stats(filters)
    took = [trace.duration_us for trace in traces if trace.duration_us is not None]
    tokens = [row["total_tokens"] for row in rows if row["total_tokens"] is not None]
    costs = [row["total_cost_usd"] for row in rows if row["total_cost_usd"] is not None]
    failed = {row["trace_id"] for row in rows if row["status"] == "error"}
    assert stats.trace_count == len(wanted)
    assert stats.error_trace_count == len(failed)
    assert stats.error_rate == len(failed) / len(wanted)
    assert stats.span_count == len(rows)
    assert stats.error_span_count == sum(row["status"] == "error" for row in rows)
    assert stats.total_tokens == sum(tokens)
    assert stats.total_cost_usd == sum(costs, Decimal())
    assert isinstance(stats.total_cost_usd, Decimal)
    assert (stats.min_duration_us, stats.max_duration_us) == (min(took), max(took))
    assert stats.avg_duration_us == pytest.approx(statistics.fmean(took))
    for q in (50, 90, 95, 99):
        value = getattr(stats, f"p{q}_duration_us")
        assert value == pytest.approx(_percentile(took, q / 100))
    starts = [trace.start_time for trace in traces]
    assert (stats.first_start_time, stats.last_start_time) == (min(starts), max(starts))


def test_deleting_a_trace_deletes_only_its_own_rows(pool: StoragePool) -> None:
    writer = CopyWriter(pool)
    writer.write_spans(
        [
            a_span(1, 1, events=[an_event(), an_event()]),
            a_span(1, 2, START + DAY, events=[an_event()]),
            a_span(2, 1, events=[an_event()]),
        ]
    )
    writer.write_logs([a_log(1, trace_id=trace_key(1), body="of the trace")])
    with pool.unit_of_work() as uow:
        assert uow.traces.delete(trace_key(1)).spans == 2
        uow.rollback()
        deleted = uow.traces.delete(trace_key(1))
        uow.commit()
        assert (deleted.spans, deleted.events, deleted.logs) == (2, 3, 1)
        with pytest.raises(NotFound):
            uow.traces.get(trace_key(1))
        assert [span.trace_id.int for span in uow.traces.list_spans()] == [2]
        assert len(uow.traces.get_events(trace_key(2))) == 1
        assert uow.logs.get_by_trace(trace_key(1)) == []
    CopyWriter(pool).write_spans([a_span(1, 3)])
    with pool.unit_of_work() as uow:
        assert uow.traces.get(trace_key(1)).span_count == 1


def test_a_trace_without_spans_is_deleted_too(pool: StoragePool) -> None:
    row = {"trace_id": trace_key(1), "service_name": "service", "start_time": START}
    CopyWriter(pool).write_traces([row])
    with pool.unit_of_work() as uow:
        assert uow.traces.delete(trace_key(1)).spans == 0
        assert not uow.traces.list()


def test_times_are_exact_to_the_nanosecond(pool: StoragePool) -> None:
    moment = START + timedelta(microseconds=123456)
    CopyWriter(pool).write_spans([a_span(1, 1, moment, start_ns=789, end_ns=790)])
    with pool.unit_of_work() as uow:
        (span,) = uow.traces.get_spans(trace_key(1))
        assert (span.start_time, span.start_ns, span.duration_ns) == (moment, 789, 1)
