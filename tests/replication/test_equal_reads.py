"""Every method that reads gives on a standby what it gives on the primary."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest
import sqlalchemy as sa

from observatory_storage import (
    LogRepository,
    MetricRepository,
    StoragePool,
    TimeSeriesQuery,
    TraceRepository,
    UnitOfWork,
    export_logs,
    export_metrics,
    export_traces,
)
from observatory_storage.operations import StoreOperation
from tests.replication.pairs import Database, Pair
from tests.replication.stored_rows import END, write_rows
from tests.repositories.samples import DAY, START, a_log, span_key, trace_key

RANGE: dict[str, Any] = {"start_time": START, "end_time": END}
# Write, or follow the primary.
REFUSED = {
    *("traces.delete", "traces.delete_user", "traces.delete_session", "traces.pin"),
    *("traces.unpin", "traces.tail_spans", "metrics.tail_data_points", "logs.tail"),
}
REPOSITORIES = {"traces": TraceRepository, "metrics": MetricRepository, "logs": LogRepository}


def metric_of(uow: UnitOfWork) -> Any:
    return uow.metrics.list()[0].id


QUESTIONS: list[Callable[[UnitOfWork], Any]] = [
    lambda uow: uow.traces.get(trace_key(1)),
    lambda uow: uow.traces.get_by_trace_id(trace_key(2)),
    lambda uow: uow.traces.list(limit=20, total="exact"),
    lambda uow: uow.traces.list(service_name="api", status="error", total="estimated"),
    lambda uow: uow.traces.list(order_by="-duration_us", **RANGE),
    lambda uow: uow.traces.list(attributes={"k": 1}),
    lambda uow: uow.traces.iterate(),
    lambda uow: uow.traces.iterate().to_arrow(),
    lambda uow: uow.traces.services(),
    lambda uow: uow.traces.operations("api"),
    lambda uow: uow.traces.list_sessions(total="exact"),
    lambda uow: uow.traces.iterate_sessions(),
    lambda uow: uow.traces.get_session("s1"),
    lambda uow: uow.traces.get_stats(),
    lambda uow: uow.traces.get_stats(group_by="model", bucket_size_secs="day", fill="zero"),
    lambda uow: uow.traces.get_events(trace_key(1)),
    lambda uow: uow.traces.get_spans(trace_key(1), with_events=True),
    lambda uow: uow.traces.get_span(trace_key(1), span_key(10)),
    lambda uow: uow.traces.get_messages(trace_key(1), span_key(10)),
    lambda uow: uow.traces.get_tree(trace_key(1), payload=True),
    lambda uow: uow.traces.list_spans(payload=True, total="exact", limit=50),
    lambda uow: uow.traces.iterate_spans(payload=True, oldest_first=True),
    lambda uow: uow.traces.iterate_spans(payload=True).to_arrow(),
    lambda uow: uow.traces.search_text("quick brown", payload=True, total="exact"),
    lambda uow: uow.traces.pinned(),
    lambda uow: uow.metrics.get(metric_of(uow)),
    lambda uow: uow.metrics.get_by_name("m"),
    lambda uow: uow.metrics.list(total="exact"),
    lambda uow: uow.metrics.iterate(),
    lambda uow: uow.metrics.get_data_points(metric_of(uow), total="exact"),
    lambda uow: uow.metrics.iterate_data_points(metric_of(uow)),
    lambda uow: uow.metrics.iterate_data_points(metric_of(uow)).to_arrow(),
    lambda uow: uow.metrics.get_latest_data_point(metric_of(uow)),
    lambda uow: uow.metrics.get_stats(metric_of(uow)),
    lambda uow: uow.metrics.query_time_series(
        TimeSeriesQuery(metric_id=metric_of(uow), bucket_size_secs=3600, **RANGE)
    ),
    lambda uow: uow.metrics.get_cost_summary(bucket_size_secs="day"),
    lambda uow: uow.metrics.get_cost_summary(group_by="user_id", source="raw"),
    lambda uow: uow.metrics.get_latency_percentiles(),
    lambda uow: uow.metrics.get_error_summary(),
    lambda uow: uow.metrics.get_user_usage(),
    lambda uow: uow.metrics.get_active_users(),
    lambda uow: uow.metrics.get_unpriced_models(),
    lambda uow: uow.logs.get(a_log(1)["id"]),
    lambda uow: uow.logs.list(payload=True, total="exact"),
    lambda uow: uow.logs.iterate(payload=True),
    lambda uow: uow.logs.iterate(payload=True).to_arrow(),
    lambda uow: uow.logs.get_by_trace(trace_key(1)),
    lambda uow: uow.logs.search_text("record", total="exact"),
    lambda uow: uow.logs.search_text("quick", order="rank", payload=True),
    lambda uow: uow.logs.count_by_level(bucket_size_secs="day"),
    lambda uow: uow.logs.get_stats(),
]


@pytest.fixture(scope="module")
def filled(pair: Pair) -> Iterator[Database]:
    with pair.database() as database:
        with database.pool() as pool:
            write_rows(pool)
        pair.catch_up()
        yield database


@pytest.fixture(scope="module")
def pools(filled: Database) -> Iterator[StoragePool]:
    with filled.pool() as pool:
        yield pool


def plain(value: Any) -> Any:
    """The value without what belongs to one reading of it."""
    if hasattr(value, "read_all"):  # of Arrow
        return value.schema.to_string(), value.read_all().to_pylist()
    if hasattr(value, "rows") and hasattr(value, "next"):
        return plain(list(value)), value.next, value.previous, value.total, value.total_kind
    if hasattr(value, "to_dict"):
        return value.to_dict(json=True)
    if isinstance(value, Iterator | list | tuple):
        return [plain(each) for each in value]
    return value


@pytest.mark.parametrize("number", range(len(QUESTIONS)))
def test_a_read_on_the_standby_equals_one_on_the_primary(pools: StoragePool, number: int) -> None:
    ask = QUESTIONS[number]
    with pools.unit_of_work() as uow, pools.unit_of_work(read_only=True) as reading:
        assert not uow.session.scalar(sa.text("SELECT pg_is_in_recovery()"))
        assert reading.session.scalar(sa.text("SELECT pg_is_in_recovery()"))
        expected, found = plain(ask(uow)), plain(ask(reading))
    assert found == expected
    assert found or found == 0


def test_every_method_is_asked_or_refused(pools: StoragePool) -> None:
    called: set[str] = set()

    def note(operation: StoreOperation) -> None:
        called.add(f"{operation.table}.{operation.method}")

    pools.add_hook(note)
    with pools.unit_of_work(read_only=True) as uow:
        for ask in QUESTIONS:
            plain(ask(uow))
    pools.remove_hook(note)
    public = {
        f"{signal}.{name}"
        for signal, repository in REPOSITORIES.items()
        for name, _ in inspect.getmembers(repository, inspect.isfunction)
        if not name.startswith("_")
    }
    assert REFUSED | (called & public) == public
    assert not REFUSED & called


@pytest.mark.parametrize("export", [export_traces, export_metrics, export_logs])
def test_an_export_from_the_standby_equals_one_from_the_primary(
    pools: StoragePool, filled: Database, export: Callable[..., Iterator[Any]]
) -> None:
    expected, found = (
        [orjson.dumps(each) for each in export(pools, read_only=read_only)]
        for read_only in (False, True)
    )
    assert found == expected
    assert found


def test_reads_without_a_read_server_are_equal_too(filled: Database) -> None:
    alone = filled.config().postgres.model_copy(update={"read_url": None})
    with filled.pool(postgres=alone) as pool, pool.unit_of_work() as uow:
        for ask in QUESTIONS:
            with pool.unit_of_work(read_only=True) as reading:
                assert plain(ask(reading)) == plain(ask(uow))


def test_the_days_are_closed_and_have_rollups(pools: StoragePool) -> None:
    with pools.unit_of_work(read_only=True) as uow:
        assert uow.session.scalar(sa.text("SELECT count(*) FROM partition_states"))
        assert uow.session.scalar(sa.text("SELECT count(*) FROM payload_frames"))
        assert uow.metrics.get_cost_summary(START, START + DAY)
