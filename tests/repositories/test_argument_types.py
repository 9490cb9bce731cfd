"""An argument may be given as what the caller has: a name, a timedelta, a `Trace`."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from observatory_storage import (
    CopyWriter,
    LogFilters,
    StoragePool,
    TimeSeriesQuery,
    Trace,
    TraceFilters,
    ValidationError,
)
from tests.repositories.samples import DAY, SECOND, START, a_log, a_span, an_event, trace_key


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("TRACE", 1), ("trace4", 4), ("Debug", 5), ("DEBUG2", 6), ("INFO", 9), ("info4", 12),
        ("WARN", 13), ("warning", 13), ("WARNING", 13), ("ERROR", 17), ("error3", 19),
        ("critical", 21), ("FATAL", 21), ("Fatal4", 24),
    ],
)  # fmt: skip
def test_a_severity_is_named_as_by_opentelemetry_or_python(name: str, number: int) -> None:
    assert LogFilters(min_severity=name).min_severity == number


@pytest.mark.parametrize("name", ["DEBUG5", "DEBUG1", "DEBUG0", "CRITICAL2", "NOTSET", "", "13"])
def test_an_unknown_severity_is_refused(name: str) -> None:
    with pytest.raises(ValidationError) as refused:
        LogFilters(min_severity=name)
    assert refused.value.field == "min_severity"


def test_a_duration_may_be_a_timedelta() -> None:
    filters = TraceFilters(min_duration_us=timedelta(microseconds=3), max_duration_us=SECOND)
    assert (filters.min_duration_us, filters.max_duration_us) == (Decimal(3), Decimal(1_000_000))
    for wrong in (timedelta(-1), timedelta.max):
        with pytest.raises(ValidationError) as refused:
            TraceFilters(min_duration_us=wrong)
        assert refused.value.field == "min_duration_us"


def test_a_bucket_may_be_a_timedelta(two_rows: StoragePool) -> None:
    with two_rows.unit_of_work() as uow:
        metrics, hour = uow.metrics, timedelta(hours=1)
        assert uow.traces.get_stats(bucket_size_secs=hour) == uow.traces.get_stats(
            bucket_size_secs=3600
        )
        assert metrics.get_cost_summary(bucket_size_secs=hour) == metrics.get_cost_summary(
            bucket_size_secs=3600
        )
        assert metrics.get_latency_percentiles(
            bucket_size_secs=hour
        ) == metrics.get_latency_percentiles(bucket_size_secs=3600)
        assert uow.logs.count_by_level(bucket_size_secs=hour) == uow.logs.count_by_level(
            bucket_size_secs=3600
        )
    query = TimeSeriesQuery(trace_key(1), START, START + DAY, bucket_size_secs=hour)
    assert query.bucket == hour
    for wrong in (timedelta(0), -hour, timedelta.max):
        with pytest.raises(ValidationError) as refused:
            TimeSeriesQuery(trace_key(1), START, START + DAY, bucket_size_secs=wrong)
        assert refused.value.field == "bucket_size_secs"


def test_one_group_may_be_given_as_text(two_rows: StoragePool) -> None:
    with two_rows.unit_of_work() as uow:
        by_model = uow.traces.get_stats(group_by=("model",))
        assert uow.traces.get_stats(group_by="model") == by_model
        by_name = uow.metrics.get_cost_summary(group_by=("operation",))
        assert uow.metrics.get_cost_summary(group_by="operation") == by_name
    query = TimeSeriesQuery(trace_key(1), START, START + DAY, group_by="model")
    assert query.group_by == ("model",)


def test_methods_that_take_a_trace_id_take_a_trace(pool: StoragePool) -> None:
    CopyWriter(pool).write_spans([a_span(1, 1), a_span(2, 2)])
    CopyWriter(pool).write_logs([a_log(1, trace_id=trace_key(1))])
    with pool.unit_of_work() as uow:
        trace = uow.traces.get_by_trace_id(trace_key(1))
        assert isinstance(trace, Trace)
        assert uow.traces.get(trace).id == uow.traces.get_by_trace_id(trace).id == trace.id
        assert [span.trace_id for span in uow.traces.get_spans(trace)] == [trace.id]
        assert uow.traces.get_events(trace) == []
        assert len(uow.traces.get_tree(trace).nodes) == 1
        assert uow.traces.get_span(trace, f"{1:016x}").trace_id == trace.id
        assert len(uow.traces.list_spans(trace_id=trace)) == 1
        assert len(uow.logs.list(trace_id=trace)) == len(uow.logs.get_by_trace(trace)) == 1
        assert uow.traces.delete(trace).spans == 1
        with pytest.raises(ValidationError) as refused:
            uow.traces.get_spans(uow)  # type: ignore[arg-type]  # what is tried here
        assert refused.value.field == "trace_id"


def test_a_trace_is_found_by_its_own_id_where_it_is_not_computed_from_its_trace_id(
    pool: StoragePool,
) -> None:
    CopyWriter(pool).write_spans([a_span(1, 1, events=[an_event()])])
    with pool.unit_of_work() as uow:
        (span,) = uow.traces.list_spans()
        own = Trace(id=span.trace_id, trace_id="mine", service_name="s", start_time=START)
        assert [one.span_id for one in uow.traces.get_spans(own)] == [span.span_id]
        assert [one.name for one in uow.traces.get_events(own)] == ["event"]
        assert uow.traces.get(own).id == span.trace_id
        assert len(uow.traces.list_spans(trace_id=own)) == 1
