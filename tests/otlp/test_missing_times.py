"""Times that senders leave out: an item takes the nearest one it has, or is refused by name."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from observatory_storage import (
    LogFilters,
    StoragePool,
    export_logs,
    export_traces,
    ingest_logs,
    ingest_metrics,
    ingest_traces,
)
from observatory_storage.times import UNIX_EPOCH
from tests.otlp.faulty_items import END, FORMS, gauge, point, stored_span, the_error, without
from tests.otlp.otlp import meaning
from tests.otlp.samples import (
    TRACE_ID,
    logs_request,
    request_of,
    span,
    span_request,
    spans_request,
)


@pytest.mark.parametrize("form", [*FORMS, lambda request: request_of("traces", request)])
def test_span_without_a_start_starts_at_its_end(pool: StoragePool, form: Any) -> None:
    request = spans_request(without(span(events=[{"name": "e"}]), "startTimeUnixNano"))
    assert ingest_traces(pool, form(request)).accepted == 1
    stored = stored_span(pool)
    assert stored.start_time == stored.end_time == UNIX_EPOCH + timedelta(seconds=1544712661)
    assert (stored.start_ns, stored.duration_us, stored.duration_ns) == (456, 0, 0)
    assert stored.events[0].timestamp == stored.start_time
    with pool.unit_of_work() as uow:
        assert uow.traces.get_by_trace_id(TRACE_ID).duration_us == 0
    assert meaning("traces", export_traces(pool)) == meaning("traces", [request])
    for exported in list(export_traces(pool)):
        assert ingest_traces(pool, exported).accepted == 1
    assert stored_span(pool).to_dict() == stored.to_dict()


@pytest.mark.parametrize("zero", [None, 0, "0"])
@pytest.mark.parametrize("form", FORMS)
def test_span_without_start_and_end_is_refused_by_name(
    pool: StoragePool, form: Any, zero: Any
) -> None:
    bad = span(startTimeUnixNano=zero, endTimeUnixNano=zero)
    error = the_error(ingest_traces(pool, form(spans_request(bad))))
    assert "scopeSpans[0].spans[0].startTimeUnixNano=" in error
    assert "is required, or at least endTimeUnixNano" in error


def test_event_without_a_time_has_the_start_of_its_span(pool: StoragePool) -> None:
    request = span_request(events=[{"name": "a"}, {"name": "b", "timeUnixNano": END}])
    ingest_traces(pool, request)
    stored = stored_span(pool)
    first, second = stored.events
    assert (first.timestamp, first.timestamp_ns) == (stored.start_time, stored.start_ns)
    assert second.timestamp == stored.end_time
    assert meaning("traces", export_traces(pool)) == meaning("traces", [request])


@pytest.mark.parametrize("form", [*FORMS, lambda request: request_of("metrics", request)])
def test_data_point_without_a_time_is_refused_by_name(pool: StoragePool, form: Any) -> None:
    request = gauge(asInt="1", timeUnixNano=0)
    request["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][0]["gauge"]["dataPoints"].append(
        point(asInt="2")
    )
    result = ingest_metrics(pool, form(request))
    assert (result.accepted, [one.index for one in result.rejected]) == (1, [0])
    error = str(result.rejected[0].error)
    assert "metrics[0].gauge.dataPoints[0].timeUnixNano=0: is required" in error


@pytest.mark.parametrize("before", [0, 250])
@pytest.mark.parametrize("form", FORMS)
def test_log_without_any_time_is_stored_once(pool: StoragePool, form: Any, before: int) -> None:
    timed = [{"timeUnixNano": str(index + 1)} for index in range(before)]
    timeless = [{"body": {"stringValue": text}} for text in ("a", "a", "b")]
    request = logs_request(*timed, *timeless)
    first = ingest_logs(pool, form(request))
    assert (first.accepted, first.duplicates) == (before + 3, 0)
    with pool.unit_of_work() as uow:
        stored = [record.to_dict() for record in uow.logs.iterate(LogFilters())]
    for again in (form(request), *export_logs(pool)):
        result = ingest_logs(pool, again)
        assert (result.accepted, result.rejected) == (result.duplicates, [])
    with pool.unit_of_work() as uow:
        assert [record.to_dict() for record in uow.logs.iterate(LogFilters())] == stored
    assert meaning("logs", export_logs(pool)) == meaning("logs", [request])
