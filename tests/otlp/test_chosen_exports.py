"""What is exported is chosen by filters or by ids."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from observatory_storage import (
    StoragePool,
    export_logs,
    export_metrics,
    export_traces,
    ingest_logs,
    ingest_metrics,
    ingest_traces,
)
from observatory_storage.errors import NotFound, ValidationError
from observatory_storage.models import Base
from observatory_storage.repositories import LogFilters, MetricFilters, TraceFilters
from tests.otlp.otlp import meaning
from tests.otlp.samples import log_request, metric_request, span, spans_request


@pytest.fixture
def several(pool: StoragePool) -> StoragePool:
    for trace in range(1, 8):
        ingest_traces(
            pool,
            spans_request(
                *(
                    span(
                        traceId=f"{trace:032x}",
                        spanId=f"{place:016x}",
                        name=f"op{trace % 2}",
                        events=[{"timeUnixNano": "7", "name": f"e{place}"}] * place,
                    )
                    for place in range(1, 4)
                )
            ),
        )
        ingest_logs(pool, log_request(traceId=f"{trace:032x}", timeUnixNano=str(trace * 10**9)))
        ingest_metrics(pool, metric_request(name=f"metric{trace}"))
    return pool


def exported_spans(requests_: Any) -> list[str]:
    return sorted(
        found["traceId"][-1] + found["spanId"][-1]
        for request in requests_
        for resource in request["resourceSpans"]
        for scope in resource["scopeSpans"]
        for found in scope["spans"]
    )


def test_traces_are_exported_by_filters_and_by_ids(several: StoragePool) -> None:
    assert len(exported_spans(export_traces(several))) == 21
    assert len(list(export_traces(several, batch_size=2))) == 11
    odd = export_traces(several, TraceFilters(operation="op1", limit=1))
    assert {found[0] for found in exported_spans(odd)} == {"1", "3", "5", "7"}
    for wanted in (f"{2:032x}", UUID(int=2), [f"{2:032X}"], iter([UUID(int=2)])):
        assert exported_spans(export_traces(several, wanted)) == ["21", "22", "23"]
    assert list(export_traces(several, [])) == []
    with pytest.raises(NotFound, match="there is no trace"):
        list(export_traces(several, [UUID(int=2), UUID(int=99)]))
    for size in (0, 1.5, "x", None, True):
        with pytest.raises(ValidationError, match="batch_size"):
            export_traces(several, batch_size=size)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ValidationError, match="filters"):
        list(export_traces(several, 5))  # type: ignore[arg-type]  # wrong on purpose


def test_logs_and_metrics_are_exported_by_filters_and_by_ids(several: StoragePool) -> None:
    assert sum(meaning("logs", export_logs(several, batch_size=2)).values()) == 7
    assert (
        sum(meaning("logs", export_logs(several, LogFilters(trace_id=UUID(int=3)))).values()) == 1
    )
    assert sum(meaning("logs", export_logs(several, [UUID(int=3), f"{4:032x}"])).values()) == 2
    assert sum(meaning("metrics", export_metrics(several, batch_size=2)).values()) == 7
    (request,) = export_metrics(several, MetricFilters(name="metric3"))
    assert request["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][0]["name"] == "metric3"
    with several.engine.connect() as connection:
        metric_id = connection.execute(
            select(Base.metadata.tables["metrics"].c.id).where(
                Base.metadata.tables["metrics"].c.name == "metric3"
            )
        ).scalar_one()
    assert list(export_metrics(several, metric_id)) == [request]
    with pytest.raises(NotFound, match="there is no metric"):
        list(export_metrics(several, [UUID(int=5)]))
