"""`CopyWriter`: all rows or none, alone or as part of a unit of work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import Any, Literal
from uuid import UUID

import pytest
import sqlalchemy as sa

from observatory_storage import ids
from observatory_storage.config import PostgresConfig, StorageConfig
from observatory_storage.errors import Conflict, ValidationError
from observatory_storage.models import (
    LogRecord,
    Metric,
    MetricDataPoint,
    Trace,
    TraceEvent,
    TraceSpan,
)
from observatory_storage.pool import StoragePool
from observatory_storage.rows import PART
from observatory_storage.writers import CopyWriter
from tests.writers.helpers import (
    START,
    a_log,
    a_metric,
    a_point,
    a_span,
    a_trace,
    an_event,
    contents,
    count,
    fetch,
)
from tests.writers.trace_model import check_traces

Method = Literal["insert", "copy"]
METHODS: tuple[Method, ...] = ("insert", "copy")
METRIC = ids.metric_id(name="requests", metric_type="gauge", service_name="shop")

# Table -> the model, the writer's method, and rows by their number.
WRITES: dict[str, tuple[type[Any], str, Callable[[int], dict[str, Any]]]] = {
    "traces": (Trace, "write_traces", a_trace),
    "trace_spans": (TraceSpan, "write_spans", lambda n: a_span(1, n)),
    "trace_events": (TraceEvent, "write_events", lambda n: an_event(1, 1, n)),
    "metrics": (Metric, "write_metrics", lambda n: a_metric(f"m{n}")),
    "metric_data_points": (MetricDataPoint, "write_data_points", lambda n: a_point(METRIC, n)),
    "logs": (LogRecord, "write_logs", lambda n: a_log(n, id=UUID(int=n))),
}


@pytest.mark.parametrize("table", WRITES)
def test_instances_and_mappings_are_written_alike(pool: StoragePool, table: str) -> None:
    model, write, row = WRITES[table]
    rows = [model(**row(1)), row(2), MappingProxyType(row(3))]
    assert getattr(CopyWriter(pool), write)(iter(rows)) == 3
    assert count(pool, table) == 3


@pytest.fixture
def no_database() -> Iterator[StoragePool]:
    """A pool that nothing may be asked of: what fails before a connection is needed."""
    config = StorageConfig(postgres=PostgresConfig(host="nowhere.invalid"))
    with StoragePool(config, connect=False) as pool:
        yield pool


def test_writing_no_rows_returns_zero_without_a_connection(no_database: StoragePool) -> None:
    for _, write, _ in WRITES.values():
        assert getattr(CopyWriter(no_database), write)([]) == 0


@pytest.mark.parametrize("table", WRITES)
def test_an_invalid_row_is_named_and_none_is_written(no_database: StoragePool, table: str) -> None:
    _, write, row = WRITES[table]
    with pytest.raises(ValidationError) as caught:
        getattr(CopyWriter(no_database), write)(
            [row(1), row(2), {**row(3), "no_such_column": 42}, row(4)]
        )
    error = caught.value
    assert (error.index, error.field, error.value) == (2, "no_such_column", 42)
    assert str(error).startswith("row 2: no_such_column=42: ")


@pytest.mark.parametrize(
    ("write", "row", "field"),
    [
        ("write_spans", a_span(status="good"), "status"),
        ("write_spans", a_span(span_id="xyz"), "span_id"),
        ("write_spans", a_span(start_time=START.replace(tzinfo=None)), "start_time"),
        ("write_traces", a_trace(total_tokens=-1), "total_tokens"),
        ("write_metrics", a_metric(metric_type="dial"), "metric_type"),
        ("write_data_points", a_point(METRIC, value=float("nan")), "value"),
        ("write_logs", a_log(severity_number=25), "severity_number"),
        ("write_logs", 42, "row"),
        ("write_events", an_event(position=-1), "position"),
    ],
)
def test_the_error_names_row_field_and_value(
    no_database: StoragePool, write: str, row: Any, field: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        getattr(CopyWriter(no_database), write)([row])
    assert (caught.value.index, caught.value.field) == (0, field)
    assert "row 0: " in str(caught.value)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("rows", [3, 200])
def test_rows_that_the_database_refuses_make_the_whole_call_fail(
    pool: StoragePool, method: Method, rows: int
) -> None:
    with pool.engine.begin() as connection:
        connection.exec_driver_sql(
            "ALTER TABLE trace_spans ADD CONSTRAINT ck CHECK (name <> 'bad')"
        )
    CopyWriter(pool).write_spans([a_span(1, 1)])
    before = contents(pool)
    spans = [a_span(n % 3 + 1, n, name="bad" if n == 2 else "good") for n in range(1, rows)]
    with pytest.raises(ValidationError, match="ck"):
        CopyWriter(pool, method=method).write_spans(spans)
    assert contents(pool) == before


def test_instances_remember_their_ids(pool: StoragePool) -> None:
    trace, metric = Trace(**{**a_trace(), "trace_id": "my trace"}), Metric(**a_metric())
    point, log = MetricDataPoint(**a_point(METRIC)), LogRecord(**a_log())
    writer = CopyWriter(pool)
    writer.write_traces([trace])
    writer.write_metrics([metric])
    writer.write_data_points([point])
    writer.write_logs([log])
    assert trace.id == ids.trace_uuid("my trace")
    assert metric.id == METRIC
    for row, model in (
        (trace, Trace),
        (metric, Metric),
        (point, MetricDataPoint),
        (log, LogRecord),
    ):
        assert [stored["id"] for stored in fetch(pool, model)] == [row.id]
    # So that the same instances written again are the same rows.
    before = contents(pool)
    writer.write_logs([log])
    assert contents(pool) == before


def test_a_mapping_is_not_changed(pool: StoragePool) -> None:
    span, log = a_span(events=[{"name": "e", "timestamp": START}]), a_log()
    copies = {**span, "events": [dict(span["events"][0])]}, dict(log)
    CopyWriter(pool).write_spans([span])
    CopyWriter(pool).write_logs([log])
    assert (span, log) == copies


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("table", WRITES)
def test_within_a_unit_of_work_the_caller_commits(
    pool: StoragePool, table: str, method: Method
) -> None:
    _, write, row = WRITES[table]
    rows = [row(n) for n in range(1, 4)]
    with pool.unit_of_work() as uow:
        getattr(CopyWriter(uow, method=method), write)(rows)
        assert uow.session.scalar(sa.select(sa.func.count()).select_from(sa.table(table))) == 3
        assert count(pool, table) == 0
        uow.rollback()
        getattr(CopyWriter(uow, method=method), write)(rows[:2])
    assert count(pool, table) == 0
    with pool.unit_of_work() as uow:
        getattr(CopyWriter(uow, method=method), write)(rows)
        getattr(CopyWriter(uow, method=method), write)(rows)
        uow.commit()
    assert count(pool, table) == 3
    check_traces(pool)


@pytest.mark.parametrize("method", METHODS)
def test_a_bad_row_leaves_the_unit_of_work_usable(pool: StoragePool, method: Method) -> None:
    with pool.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE logs ADD CONSTRAINT ck CHECK (body <> 'bad')")
    with pool.unit_of_work() as uow:
        writer = CopyWriter(uow, method=method)
        writer.write_logs([a_log(0)])
        pending = Metric(**a_metric(), id=METRIC)
        uow.session.add(pending)
        for bad in (a_log(1, body="bad"), a_log(1, severity_number=0)):
            with pytest.raises(ValidationError):
                writer.write_logs([a_log(2), bad])
        writer.write_logs([a_log(3, body="a\x00b")])
        assert [log.body for log in uow.logs.list()] != []
        uow.commit()
    assert [row["body"] for row in fetch(pool, LogRecord)] == ["something happened", "a\ufffdb"]
    assert count(pool, "metrics") == 1


def test_rows_written_in_a_unit_of_work_are_read_in_it(pool: StoragePool) -> None:
    with pool.unit_of_work() as uow:
        CopyWriter(uow).write_spans([a_span(1, n) for n in range(1, 20)])
        assert len(uow.traces.get_spans(a_trace()["trace_id"])) == 19
        assert uow.traces.get_by_trace_id(a_trace()["trace_id"]).span_count == 19
        CopyWriter(uow).write_spans([a_span(1, 1, name="again", parent_span_id=None)])
        uow.commit()
    check_traces(pool)


def test_a_partition_dropped_meanwhile_is_made_again_within_a_unit_of_work(
    pool: StoragePool,
) -> None:
    CopyWriter(pool).write_logs([a_log(0)])
    with pool.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE logs_p202603")
    with pool.unit_of_work() as uow:
        uow.session.execute(sa.text("SELECT 1"))
        CopyWriter(uow).write_logs([a_log(1)])
        uow.commit()
    assert count(pool, "logs") == 1


def test_a_transient_error_within_a_unit_of_work_is_raised_to_the_caller(
    pool: StoragePool,
) -> None:
    """Who alone could repeat what went before in the transaction."""
    with pool.unit_of_work() as one, pool.unit_of_work() as two:
        CopyWriter(one).write_traces([a_trace(1)])
        CopyWriter(two).write_traces([a_trace(2)])
        # Also on the workers, where tables have shards.
        two.session.execute(sa.text("SET LOCAL citus.propagate_set_commands = 'local'"))
        two.session.execute(sa.text("SET LOCAL lock_timeout = '50ms'"))
        with pytest.raises(Conflict) as caught:
            CopyWriter(two).write_traces([a_trace(1)])
        assert caught.value.retryable
        CopyWriter(two).write_traces([a_trace(3)])
        two.commit()
        one.commit()
    assert count(pool, "traces") == 3


def test_many_logs_and_points_are_written_once_whatever_is_there(pool: StoragePool) -> None:
    writer = CopyWriter(pool)
    logs = [LogRecord(**a_log(n)) for n in range(PART + 5)]
    points = [a_point(UUID(int=3), n) for n in range(PART + 5)]
    for _ in range(2):
        assert writer.write_logs([*logs, logs[0]]) == PART + 6
        assert writer.write_data_points([*points, {**points[0], "value": 7}]) == PART + 6
    assert {row["id"] for row in fetch(pool, LogRecord)} == {row.id for row in logs}
    assert [row["value"] for row in fetch(pool, MetricDataPoint)] == [1.5] * len(points)


def test_none_of_many_logs_are_written_if_one_is_not_valid(pool: StoragePool) -> None:
    logs = [a_log(n) for n in range(PART + 5)]
    logs[PART + 2]["severity_number"] = 99
    with pytest.raises(ValidationError) as caught:
        CopyWriter(pool).write_logs(logs)
    assert (caught.value.index, caught.value.field) == (PART + 2, "severity_number")
    assert count(pool, "logs") == 0
    logs[PART + 2] |= {"severity_number": 9, "body": "a\x00b"}
    assert CopyWriter(pool).write_logs(logs) == len(logs)
    bodies = {row["body"] for row in fetch(pool, LogRecord)}
    assert bodies == {"something happened", "a\N{REPLACEMENT CHARACTER}b"}
