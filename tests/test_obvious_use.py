"""Calls that a new user would try first work, or raise an error that says what would work."""

from __future__ import annotations

import copy
import pickle
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
import sqlalchemy as sa

from observatory_storage import (
    BatchError,
    ConfigError,
    CopyWriter,
    LogFilters,
    LogRecord,
    LogWriter,
    Metric,
    MetricDataPoint,
    MetricWriter,
    Operation,
    PoolConfig,
    PostgresConfig,
    SpanFilters,
    StorageConfig,
    StorageError,
    StoragePool,
    Trace,
    TraceEvent,
    TraceSpan,
    TraceWriter,
    ValidationError,
    WriterConfig,
    export_logs,
    export_traces,
)

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
TRACE = "5b8efff798038103d269b633813fc60c"


def a_span(number: int = 1, **columns: Any) -> dict[str, Any]:
    return {
        "trace_id": TRACE,
        "span_id": f"{number:016x}",
        "name": "chat",
        "service_name": "assistant",
        "start_time": START,
        "end_time": START + timedelta(seconds=1),
        **columns,
    }


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (
            Trace(
                trace_id="t", service_name="s", start_time=START, status="ok", attributes={"a": 1}
            ),
            "<Trace trace_id='t' service_name='s' start_time=2026-03-01T12:00:00+00:00"
            " status='ok'>",
        ),
        (
            TraceSpan(trace_id="t", span_id="1" * 16, name="n" * 200),
            f"<TraceSpan trace_id='t' span_id='{'1' * 16}' name='{'n' * 80}…'>",
        ),
        (TraceEvent(position=0, name="retry"), "<TraceEvent position=0 name='retry'>"),
        (Metric(name="m", metric_type="gauge"), "<Metric name='m' metric_type='gauge'>"),
        (MetricDataPoint(value=0.0), "<MetricDataPoint value=0.0>"),
        (LogRecord(body="it's"), '<LogRecord body="it\'s">'),
        (Trace(), "<Trace>"),
    ],
)
def test_repr_of_rows_shows_their_identity(row: object, text: str) -> None:
    assert repr(row) == text


def test_rejected_items_can_be_unpacked(pool: StoragePool) -> None:
    with TraceWriter(pool) as writer, pytest.raises(BatchError) as caught:
        writer.write_spans([a_span(1), a_span(2, name=None)])
    ((index, row, error),) = caught.value.rejected
    assert (index, row["span_id"], type(error)) == (1, f"{2:016x}", ValidationError)
    assert caught.value.rejected[0].error is error
    assert pickle.loads(pickle.dumps(caught.value)).rejected[0].row == row


def test_operations_can_be_unpacked(pool: StoragePool) -> None:
    CopyWriter(pool).write_spans([a_span()])
    with pool.unit_of_work() as uow:
        operations = uow.traces.operations("assistant")
    assert operations == [("chat", "internal")]
    assert [(o.name, o.kind) for o in operations] == [(name, kind) for name, kind in operations]
    assert operations == [Operation(name="chat", kind="internal")]


@pytest.mark.parametrize("target", [None, "postgresql://u:secret@host/db", sa.create_mock_engine])
def test_writer_refuses_anything_but_a_pool(target: Any) -> None:
    for make in (CopyWriter, TraceWriter):
        with pytest.raises(ValidationError, match="must be a StoragePool") as caught:
            make(target)
        assert "secret" not in str(caught.value)


def test_writer_refuses_a_session(pool: StoragePool) -> None:
    with pool.unit_of_work() as uow, pytest.raises(ValidationError, match="must be a StoragePool"):
        CopyWriter(cast(Any, uow.session))


def test_settings_of_a_wrong_type_are_refused(pool: StoragePool) -> None:
    with pytest.raises(ValidationError, match=r"config=.*: must be WriterConfig"):
        LogWriter(pool, cast(Any, {"batch_size": 10}))
    with pytest.raises(ValidationError, match="method='bulk': must be one of"):
        CopyWriter(pool, method=cast(Any, "bulk"))
    with TraceWriter(pool) as writer, pytest.raises(ValidationError, match="must be LlmSpan"):
        writer.write_span_from_llm(cast(Any, {"model": "gpt"}))


@pytest.mark.parametrize("make", [StoragePool, StoragePool.from_engine])
def test_error_for_a_url_instead_of_a_configuration_does_not_show_it(make: Any) -> None:
    with pytest.raises(ConfigError, match=r"must be .* not str") as caught:
        make("postgresql://u:secret@host/db")
    assert "secret" not in str(caught.value)


def test_schema_can_be_set_by_its_name_in_files() -> None:
    config = StorageConfig(postgres=PostgresConfig(schema="tenant"))
    assert config.postgres.schema == config.postgres.schema_name == "tenant"


def test_error_for_missing_tables_says_how_to_migrate(empty_database_url: str) -> None:
    config = StorageConfig(postgres=PostgresConfig.from_url(empty_database_url))
    unmigrated = pytest.raises(StorageError, match=r'"public\.traces".*run_migrations')
    with StoragePool(config) as pool, pool.unit_of_work() as uow, unmigrated:
        uow.traces.list()


def test_columns_that_a_list_omits_are_neither_loaded_nor_written(pool: StoragePool) -> None:
    CopyWriter(pool).write_spans([a_span(attributes={"kept": True})])
    with pool.unit_of_work() as uow:
        (span,) = uow.traces.list_spans(SpanFilters())
    for same in (span, pickle.loads(pickle.dumps(span)), copy.copy(span)):
        with pytest.raises(StorageError, match=r"TraceSpan\.attributes was not loaded"):
            _ = same.attributes
        # Writing it would have replaced the stored attributes by NULL.
        with pytest.raises(ValidationError, match="was not loaded"):
            CopyWriter(pool).write_spans([same])
    span.attributes = {}
    assert span.attributes == {}
    with pool.unit_of_work() as uow:
        (span,) = uow.traces.get_spans(TRACE)
        assert span.attributes == {"kept": True}
    assert CopyWriter(pool).write_spans([span]) == 1


def test_exports_take_ids_by_keyword(pool: StoragePool) -> None:
    CopyWriter(pool).write_spans([a_span()])
    assert len(list(export_traces(pool, ids=[TRACE]))) == 1
    assert len(list(export_traces(pool, ids=TRACE))) == 1
    assert list(export_logs(pool, filters=LogFilters(service_name="assistant"))) == []
    with pytest.raises(ValidationError, match="together"):
        export_logs(pool, LogFilters(), ids=[TRACE])


def test_costs_and_latencies_need_no_time_range(pool: StoragePool) -> None:
    CopyWriter(pool).write_spans([a_span(model="gpt", total_tokens=3)])
    with pool.unit_of_work() as uow:
        (cost,) = uow.metrics.get_cost_summary()
        (latency,) = uow.metrics.get_latency_percentiles(start_time=START)
        assert uow.metrics.get_cost_summary(end_time=START) == []
    assert (cost.model, cost.total_tokens) == ("gpt", 3)
    assert latency.p99_us == 1_000_000


@pytest.mark.parametrize("batch_size", [1, 1000])
def test_the_first_of_two_points_of_one_key_stays(pool: StoragePool, batch_size: int) -> None:
    with MetricWriter(pool, WriterConfig(batch_size=batch_size)) as writer:
        metric_id = writer.write_metric({"name": "m", "metric_type": "gauge"})
        for value in (1, 2):
            writer.write_data_point({"metric_id": metric_id, "timestamp": START, "value": value})
    with pool.unit_of_work() as uow:
        (point,) = uow.metrics.get_data_points(metric_id)
    assert point.value == 1


@pytest.fixture
def pool_of_one(database_url: str) -> StoragePool:
    config = StorageConfig(
        postgres=PostgresConfig.from_url(database_url),
        pool=PoolConfig(max_connections=1, acquire_timeout_secs=0.1),
    )
    return StoragePool(config)


SETTINGS = sa.text(
    "SELECT current_setting('timezone'), current_setting('lock_timeout'),"
    " current_setting('datestyle')"
)


def test_a_pool_of_one_makes_partitions_within_the_unit_of_work(pool_of_one: StoragePool) -> None:
    with pool_of_one as pool:
        with pool.unit_of_work() as uow:
            uow.session.execute(sa.text("SET LOCAL timezone = 'Asia/Kolkata'"))
            uow.session.execute(sa.text("SET LOCAL lock_timeout = '7s'"))
            before = uow.session.execute(SETTINGS).one()
            assert CopyWriter(uow).write_spans([a_span()]) == 1
            assert uow.session.execute(SETTINGS).one() == before
            assert len(uow.traces.get_spans(TRACE)) == 1
        # The partition was rolled back too, so it must not be remembered as existing.
        with pool.unit_of_work() as uow:
            assert len(uow.traces.list()) == 0
            assert CopyWriter(uow).write_spans([a_span()]) == 1
            uow.commit()
        assert CopyWriter(pool).write_spans([a_span(2)]) == 1
        with pool.unit_of_work() as uow:
            assert len(uow.traces.get_spans(TRACE)) == 2
