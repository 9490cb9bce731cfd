"""What writers, OTLP requests, the spool and migrations tell hooks."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from observatory_storage import ingest_logs, ingest_metrics, ingest_traces
from observatory_storage.config import PoolConfig, PostgresConfig, StorageConfig
from observatory_storage.errors import (
    BatchError,
    ConnectionLost,
    PoolError,
    StorageError,
    ValidationError,
)
from observatory_storage.operations import StoreOperation
from observatory_storage.pool import StoragePool
from observatory_storage.writers import (
    CopyWriter,
    LogWriter,
    MetricWriter,
    TraceWriter,
    WriterConfig,
)
from tests.observing.conftest import Seen
from tests.otlp.samples import log_request, metric_request, span_request
from tests.writers.helpers import ONCE, a_log, a_metric, a_point, a_span, a_trace

PATIENT = WriterConfig(flush_interval_secs=None)
GAUGE = {"gauge": {"dataPoints": [{"timeUnixNano": "1700000000000000000", "asInt": "3"}]}}


def test_a_flush_is_reported(pool: StoragePool, seen: Seen) -> None:
    with TraceWriter(pool, PATIENT) as writer:
        writer.write_spans([a_span(number=n) for n in range(1, 31)])
        writer.write_trace(a_trace())
    flush = seen.one("flush")
    assert (flush.table, flush.method, flush.outcome) == ("trace_spans", "copy", "ok")
    assert (flush.rows, flush.retries, flush.rejected) == (31, 0, 0)
    assert flush.rows_by_table == {"trace_spans": 30, "traces": 1}
    assert flush.bytes > 30 * 20
    assert flush.seconds > 0


def test_a_flush_of_metrics_names_both_tables(pool: StoragePool, seen: Seen) -> None:
    with MetricWriter(pool, PATIENT) as writer:
        metric = writer.write_metric(a_metric())
        writer.write_data_points([a_point(metric, n) for n in range(5)])
    assert seen.one("flush").rows_by_table == {"metrics": 1, "metric_data_points": 5}


def test_refused_rows_are_counted(pool: StoragePool, seen: Seen) -> None:
    with pool.engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE logs ADD CHECK (body <> 'bad')"))
    writer = LogWriter(pool, PATIENT)
    writer.write_logs([a_log(1), a_log(2, body="bad"), a_log(3)])
    with pytest.raises(BatchError):
        writer.close()
    flush = seen.one("flush")
    assert (flush.rows, flush.rejected, flush.outcome) == (2, 1, "ok")
    assert flush.rows_by_table == {"logs": 2}


def away(seen: Seen) -> StoragePool:
    """A pool of a server that is not there."""
    config = StorageConfig(postgres=PostgresConfig(host="127.0.0.1", port=1), retry=ONCE)
    return StoragePool(config, connect=False, hooks=[seen])


def test_a_flush_that_fails_is_reported_with_its_error(pool: StoragePool, seen: Seen) -> None:
    with LogWriter(pool, PATIENT) as writer:
        rename(pool, "logs", "hidden")
        writer.write_log(a_log())
        with pytest.raises(StorageError):
            writer.flush()
        rename(pool, "hidden", "logs")
    failed, done = seen.of("flush")[0], seen.of("flush")[-1]
    assert (failed.table, failed.rows, failed.outcome) == ("logs", 0, "StorageError")
    assert (done.table, done.rows, done.outcome) == ("logs", 1, "ok")


def rename(pool: StoragePool, table: str, name: str) -> None:
    with pool.engine.begin() as connection:
        connection.execute(sa.text(f"ALTER TABLE {table} RENAME TO {name}"))


def test_a_server_that_is_away_is_reported_with_each_connection() -> None:
    seen = Seen()
    with away(seen) as pool, pytest.raises(ConnectionLost), pool.unit_of_work() as uow:
        uow.traces.services()
    assert [(one.operation, one.outcome) for one in seen.all] == [
        ("acquire", "ConnectionLost"),
        ("query", "ConnectionLost"),
    ]


@pytest.mark.parametrize("number", [1, 40, 2_000])
def test_a_call_of_a_copy_writer_is_reported(pool: StoragePool, seen: Seen, number: int) -> None:
    CopyWriter(pool).write_spans([a_span(number=n) for n in range(1, number + 1)])
    write = seen.one("write")
    assert (write.table, write.rows, write.outcome) == ("trace_spans", number, "ok")
    assert write.method == ("insert" if number == 1 else "copy")
    assert write.bytes > number * 20


def test_a_call_without_rows_is_no_operation(pool: StoragePool, seen: Seen) -> None:
    assert CopyWriter(pool).write_logs([]) == 0
    assert seen.all == []


def test_a_write_within_a_unit_of_work_is_reported(pool: StoragePool, seen: Seen) -> None:
    with pool.unit_of_work() as uow:
        CopyWriter(uow).write_logs([a_log(1), a_log(2)])
        uow.commit()
    assert (seen.one("write").table, seen.one("write").rows) == ("logs", 2)


def test_a_refused_call_of_a_copy_writer_is_reported(pool: StoragePool, seen: Seen) -> None:
    with pytest.raises(ValidationError):
        CopyWriter(pool).write_logs([a_log(1), {"body": "no time"}])
    assert (seen.one("write").rows, seen.one("write").outcome) == (0, "ValidationError")


def test_otlp_requests_are_reported_by_table(pool: StoragePool, seen: Seen) -> None:
    accepted = [
        ingest_traces(pool, span_request()).accepted,
        ingest_logs(pool, log_request()).accepted,
        ingest_metrics(pool, metric_request(**GAUGE)).accepted,
    ]
    rows = {one.table: one.rows for one in seen.of("ingest")}
    assert [rows["trace_spans"], rows["logs"], rows["metric_data_points"]] == accepted
    assert rows["metrics"] > 0
    assert all(one.outcome == "ok" and one.bytes for one in seen.of("ingest"))


def test_rejected_items_of_a_request_are_counted(pool: StoragePool, seen: Seen) -> None:
    bad = {"traceId": "5b8efff798038103d269b633813fc60c", "spanId": "no", "name": "x"}
    request = {"resourceSpans": [{"scopeSpans": [{"spans": [bad]}]}]}
    assert ingest_traces(pool, request).rejected
    assert (seen.one("ingest").rows, seen.one("ingest").rejected) == (0, 1)


def test_taking_a_connection_is_reported(pool: StoragePool, seen: Seen) -> None:
    with pool.engine.connect():
        pass
    assert [(one.outcome, one.table) for one in seen.of("acquire")] == [("ok", None)]


def test_waiting_in_vain_for_a_connection_is_reported(database_url: str) -> None:
    seen = Seen()
    config = StorageConfig(
        postgres=PostgresConfig.from_url(database_url),
        pool=PoolConfig(max_connections=1, min_connections=1, acquire_timeout_secs=0.05),
    )
    with (
        StoragePool(config, hooks=[seen]) as pool,
        pool.engine.connect(),
        pytest.raises(PoolError),
    ):
        pool.engine.connect()
    failed = seen.all[-1]
    assert (failed.operation, failed.outcome) == ("acquire", "PoolError")
    assert failed.seconds >= 0.05


def test_connections_of_an_application_s_engine_are_reported(database_url: str) -> None:
    seen: list[StoreOperation] = []
    url = sa.make_url(database_url).set(drivername="postgresql+psycopg")
    engine = sa.create_engine(url)
    with StoragePool.from_engine(engine, hooks=[seen.append]) as pool:
        with pool.unit_of_work() as uow:
            uow.traces.services()
        assert [one.operation for one in seen] == ["acquire", "query"]
        with engine.connect():  # the application's own use is no operation of the store
            pass
    engine.dispose()
    assert len(seen) == 2


def test_a_migration_is_reported(empty_database_url: str) -> None:
    seen = Seen()
    config = StorageConfig(postgres=PostgresConfig.from_url(empty_database_url))
    with StoragePool(config, hooks=[seen]) as pool:
        pool.run_migrations()
    assert seen.one("migrate").outcome == "ok"


def test_nothing_is_reported_after_a_hook_was_removed(pool: StoragePool, seen: Seen) -> None:
    pool.remove_hook(seen)
    CopyWriter(pool).write_logs([a_log()])
    assert seen.all == []
