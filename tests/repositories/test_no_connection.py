"""Reading where no server answers raises the package's own error, whatever is read."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from uuid import UUID

import pytest

from observatory_storage import (
    ConnectionLost,
    PostgresConfig,
    RetryConfig,
    StorageConfig,
    StoragePool,
    UnitOfWork,
)
from observatory_storage.repositories import LogFilters, MetricFilters, SpanFilters, TraceFilters
from tests.repositories.samples import trace_key

NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"
SINCE = datetime(2026, 1, 1, tzinfo=UTC)
READING: dict[str, Callable[[UnitOfWork], object]] = {
    "trace": lambda uow: uow.traces.get_by_trace_id(trace_key(1)),
    "traces": lambda uow: uow.traces.list(),
    "traces by attribute": lambda uow: uow.traces.list(TraceFilters(attributes={"a": 1})),
    "traces by substring": lambda uow: uow.traces.list(contains="x", start_time=SINCE),
    "spans of a trace": lambda uow: uow.traces.get_spans(trace_key(1)),
    "spans": lambda uow: uow.traces.list_spans(),
    "spans by attribute": lambda uow: uow.traces.list_spans(SpanFilters(attributes={"a": 1})),
    "iterated spans": lambda uow: list(uow.traces.iterate_spans()),
    "iterated logs": lambda uow: list(uow.logs.iterate()),
    "iterated points": lambda uow: list(uow.metrics.iterate_data_points(UUID(int=1))),
    "spans in Arrow": lambda uow: uow.traces.iterate_spans().to_arrow().read_all(),
    "tree": lambda uow: uow.traces.get_tree(trace_key(1)),
    "statistics": lambda uow: uow.traces.get_stats(),
    "sessions": lambda uow: uow.traces.list_sessions(),
    "services": lambda uow: uow.traces.services(),
    "operations": lambda uow: uow.traces.operations("service"),
    "logs": lambda uow: uow.logs.list(),
    "words of logs": lambda uow: uow.logs.list(LogFilters(text="x")),
    "found logs": lambda uow: uow.logs.search_text("x"),
    "tail": lambda uow: uow.logs.tail(),
    "metrics": lambda uow: uow.metrics.list(MetricFilters(name="m")),
    "points": lambda uow: uow.metrics.get_data_points(UUID(int=1)),
    "costs": lambda uow: uow.metrics.get_cost_summary(),
}


@pytest.mark.parametrize("name", READING)
def test_the_connection_is_lost(name: str) -> None:
    once = RetryConfig(max_attempts=1)
    config = StorageConfig(postgres=PostgresConfig.from_url(NOWHERE), retry=once)
    with (
        StoragePool(config, connect=False) as pool,
        pool.unit_of_work() as uow,
        pytest.raises(ConnectionLost),
    ):
        READING[name](uow)
