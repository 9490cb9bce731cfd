"""How many statements a question costs: always the same, however many rows answer it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from observatory_storage import CopyWriter, StoragePool, UnitOfWork
from observatory_storage.repositories import (
    LogFilters,
    SpanFilters,
    TimeSeriesQuery,
    TraceFilters,
)
from tests import citus
from tests.repositories.lists import LISTS, Listing, metric_of
from tests.repositories.samples import DAY, START, a_log, a_span, an_event, statements, trace_key

FEW, MANY = trace_key(1), trace_key(2)

QUESTIONS: dict[str, tuple[int, Callable[[UnitOfWork, str], object]]] = {
    "trace": (1, lambda uow, key: uow.traces.get_by_trace_id(key)),
    "spans": (2, lambda uow, key: uow.traces.get_spans(key)),
    "spans with events": (3, lambda uow, key: uow.traces.get_spans(key, with_events=True)),
    "events": (2, lambda uow, key: uow.traces.get_events(key)),
    "span": (2, lambda uow, key: uow.traces.get_span(key, f"{1:016x}")),
    "span with events": (
        3,
        lambda uow, key: uow.traces.get_span(key, f"{1:016x}", with_events=True),
    ),
    "tree": (2, lambda uow, key: uow.traces.get_tree(key)),
    "traces": (1, lambda uow, _: uow.traces.list()),
    "traces of a service": (
        2,
        lambda uow, _: uow.traces.list(TraceFilters(service_name="service")),
    ),
    "traces of no service": (4, lambda uow, _: uow.traces.list(TraceFilters(service_name="a"))),
    "traces of a model": (2, lambda uow, _: uow.traces.list(TraceFilters(model="m", limit=100))),
    "trace statistics": (1, lambda uow, _: uow.traces.get_stats()),
    "services": (1, lambda uow, _: uow.traces.services()),
    "operations": (1, lambda uow, _: uow.traces.operations("service")),
    "list of spans": (1, lambda uow, _: uow.traces.list_spans()),
    "list of a trace's spans": (
        2,
        lambda uow, key: uow.traces.list_spans(SpanFilters(trace_id=key, limit=1000)),
    ),
    "logs": (1, lambda uow, _: uow.logs.list()),
    "logs of a trace": (1, lambda uow, key: uow.logs.list(LogFilters(trace_id=key, limit=1000))),
    "levels": (1, lambda uow, _: uow.logs.count_by_level()),
    "log statistics": (1, lambda uow, _: uow.logs.get_stats()),
    "metrics": (1, lambda uow, _: uow.metrics.list()),
    "cost": (2, lambda uow, _: uow.metrics.get_cost_summary()),
    "percentiles": (2, lambda uow, _: uow.metrics.get_latency_percentiles()),
}


@pytest.fixture(scope="module")
def two_traces(shared_pool: StoragePool) -> StoragePool:
    """A pool on two traces, one of a span and a log, one of 300 of each."""
    writer = CopyWriter(shared_pool)
    for trace, count in ((1, 1), (2, 300)):
        rows = [a_span(trace, n, events=[an_event()], model="m") for n in range(1, count + 1)]
        writer.write_spans(rows)
        writer.write_logs(
            [a_log(trace * 1000 + n, trace_id=trace_key(trace), body="x") for n in range(count)]
        )
    return shared_pool


@citus.not_there("some questions take a statement more, and names one each")
@pytest.mark.parametrize("name", QUESTIONS)
def test_a_question_costs_as_many_statements_for_much_as_for_little(
    two_traces: StoragePool, name: str
) -> None:
    count, ask = QUESTIONS[name]
    with two_traces.unit_of_work() as uow:
        for key in (FEW, MANY):
            with statements(two_traces.engine) as seen:
                ask(uow, key)
            assert len(seen) == count, seen


@pytest.mark.parametrize("temporality", ["delta", "cumulative"])
@pytest.mark.parametrize("points", [1, 50])
def test_a_time_series_costs_two_statements_and_one_to_look_back(
    pool: StoragePool, temporality: str, points: int
) -> None:
    name = {"name": "m", "metric_type": "counter", "service_name": "s", "temporality": temporality}
    writer = CopyWriter(pool)
    writer.write_metrics([name])
    with pool.unit_of_work() as uow:
        metric_id = uow.metrics.list()[0].id
        writer.write_data_points(
            {
                "metric_id": metric_id,
                "timestamp": START,
                "value": 1.0,
                "attributes": {"host": number},
            }
            for number in range(points)
        )
        query = TimeSeriesQuery(metric_id, START, START + DAY, "increase", fill="null")
        with statements(pool.engine) as seen:
            uow.metrics.query_time_series(query)
    assert len(seen) == (2 if temporality == "delta" else 3)


@pytest.mark.parametrize("listing", LISTS, ids=str)
def test_iterating_runs_the_statements_of_one_page_at_a_time(
    pool: StoragePool, listing: Listing
) -> None:
    listing.write(pool, list(range(30)))
    metric_of(pool)
    with pool.unit_of_work() as uow:
        with statements(pool.engine) as seen:
            listing.page(uow, limit=100)
        for_a_page = len(seen)
        with statements(pool.engine) as seen:
            rows = list(listing.walk(uow, 10))
        assert len(rows) >= 30
        assert len(seen) <= for_a_page * (len(rows) // 10 + 1)


def test_a_list_loads_payload_columns_only_on_request(two_traces: StoragePool) -> None:
    heavy = ("resource_attributes", "scope_attributes", "otlp")
    with two_traces.unit_of_work() as uow, statements(two_traces.engine) as seen:
        uow.traces.list_spans()
        uow.logs.list()
        spans, logs = seen
        assert not any(f".{column}" in spans for column in (*heavy, "attributes", "links"))
        assert not any(f".{column}" in logs for column in heavy)
        uow.traces.list_spans(payload=True)
        uow.logs.list(payload=True)
        assert all(f".{column}" in statement for column in heavy for statement in seen[2:])
