"""Writers with a spool: what the database cannot take now it gets later, once and in order."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from observatory_embedded import EmbeddedPostgres
from observatory_storage.errors import BatchError, StorageError, ValidationError
from observatory_storage.models import LogRecord, Metric, Trace, TraceSpan
from observatory_storage.pool import StoragePool
from observatory_storage.writers import (
    FlushResult,
    LogWriter,
    MetricWriter,
    TraceWriter,
    WriterConfig,
)
from observatory_storage.writers.spool import replay
from tests.servers import FAST
from tests.writers.helpers import (
    ONCE,
    START,
    a_log,
    a_metric,
    a_point,
    a_span,
    a_trace,
    an_event,
    count,
    empty,
    eventually,
    fetch,
    fork,
    locked,
    quick_pool,
    trace_id,
    wait_for,
)
from tests.writers.trace_model import check_traces


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    """A server that these tests may stop, if they start it again."""
    with EmbeddedPostgres(settings=FAST, in_memory=True) as server:
        with quick_pool(server.url) as pool:
            pool.run_migrations()
        yield server


@pytest.fixture
def pool(server: EmbeddedPostgres) -> Iterator[StoragePool]:
    """A pool on that server, whose tables are empty; it gives up at the first error."""
    with quick_pool(server.url, ONCE) as pool:
        empty(pool)
        yield pool


@pytest.fixture
def config(tmp_path: Path) -> WriterConfig:
    return WriterConfig(flush_interval_secs=None, spool_dir=tmp_path / "spool")


@contextmanager
def away(server: EmbeddedPostgres) -> Iterator[None]:
    """The server is stopped meanwhile."""
    server.stop()
    try:
        yield
    finally:
        server.start()


def files(config: WriterConfig) -> list[Path]:
    assert config.spool_dir is not None
    return sorted(p for p in Path(config.spool_dir).iterdir() if p.name != ".lock")


def bodies(pool: StoragePool) -> list[Any]:
    return sorted(row["body"] for row in fetch(pool, LogRecord))


def replayed(writer: LogWriter | MetricWriter | TraceWriter, rows: int) -> Callable[[], bool]:
    return lambda: writer.write_stats().replayed == rows


def test_all_signals_go_through_the_spool_while_the_server_is_away(
    server: EmbeddedPostgres, pool: StoragePool, config: WriterConfig
) -> None:
    config = replace(config, batch_size=7, max_concurrency=2)
    with (
        TraceWriter(pool, config) as traces,
        MetricWriter(pool, config) as metrics,
        LogWriter(pool, config) as logs,
    ):
        traces.write_spans(a_span(n % 3 + 1, n) for n in range(1, 10))
        assert traces.flush() == FlushResult(committed=9)
        assert files(config) == []
        with away(server):
            # Some are new, some replace those that are there, with events and without.
            for n in range(5, 20):
                events = [{"name": "e", "timestamp": START}] * (n % 3) if n % 2 else None
                traces.write_span(a_span(n % 3 + 1, n, status="error", events=events))
            traces.write_trace(a_trace(9, attributes={"said": "by hand"}))
            traces.write_event(an_event(3, 5, 7))
            metric = metrics.write_metric(a_metric())
            metrics.write_data_points([a_point(metric, n) for n in range(3)])
            logs.write_logs(a_log(n) for n in range(4))
            assert traces.flush() == FlushResult(spooled=17)
            assert metrics.flush() == FlushResult(spooled=4)
            assert logs.flush() == FlushResult(spooled=4)
            assert len(files(config)) == 3
            for writer, rows in ((traces, 17), (metrics, 4), (logs, 4)):
                assert writer.buffer_stats().buffered == 0
                assert writer.write_stats().spooled == rows
                assert writer.write_stats().replayed == 0
            assert traces.flush() == FlushResult()
        eventually(replayed(traces, 17))
        eventually(replayed(metrics, 4))
        eventually(replayed(logs, 4))
        assert traces.write_stats().rows == 9
    assert files(config) == []
    expected = {
        "trace_spans": 19,
        "trace_events": 10,
        "metrics": 1,
        "metric_data_points": 3,
        "logs": 4,
    }
    assert {table: count(pool, table) for table in expected} == expected
    assert [row["attributes"] for row in fetch(pool, Trace) if row["attributes"]] == [
        {"said": "by hand"}
    ]
    with pool.engine.begin() as connection:  # which no span speaks of
        connection.exec_driver_sql("DELETE FROM traces WHERE attributes <> '{}'")
    assert check_traces(pool) == 3


def test_flush_commits_again_as_soon_as_the_server_is_back(
    server: EmbeddedPostgres, pool: StoragePool, config: WriterConfig
) -> None:
    """Those that wait in the spool go first."""
    with MetricWriter(pool, config) as writer:
        with away(server):
            writer.write_metric(a_metric(description="first"))
            assert writer.flush() == FlushResult(spooled=1)
            writer.write_metric(a_metric(description="second"))
            assert writer.flush() == FlushResult(spooled=1)
        writer.write_metric(a_metric(description="third"))

        def committed() -> bool:
            # A try that began before the server was back may still fail meanwhile.
            return writer.flush() == FlushResult(committed=1) or (
                writer.write_metric(a_metric(description="third")) is None
            )

        eventually(committed)
        assert writer.write_stats().replayed >= 2
    assert [row["description"] for row in fetch(pool, Metric)] == ["third"]


def test_rows_that_follow_wait_behind_those_in_the_spool(
    server: EmbeddedPostgres,
    pool: StoragePool,
    config: WriterConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where much waits, they go through the spool too, and none overtakes another."""
    monkeypatch.setattr(replay, "_LITTLE_BYTES", 0)
    config = replace(config, batch_size=1)
    with MetricWriter(pool, config) as writer:
        with away(server):
            for n in range(20):
                writer.write_metric(a_metric(description=f"{n}"))
            assert writer.flush() == FlushResult(spooled=20)
        for n in range(20, 40):
            writer.write_metric(a_metric(description=f"{n}"))
        writer.flush()
        stats = writer.write_stats()
        assert (stats.spooled + stats.rows, stats.rejected) == (40, 0)
    assert [row["description"] for row in fetch(pool, Metric)] == ["39"]


def test_an_ended_span_in_the_database_outlasts_an_unended_one_in_the_spool(
    server: EmbeddedPostgres, pool: StoragePool, config: WriterConfig
) -> None:
    with TraceWriter(pool, config) as writer:
        with away(server):
            writer.write_span(a_span(1, 1, end_time=None, status="unset"))
            assert writer.flush() == FlushResult(spooled=1)
            with TraceWriter(pool, replace(config, spool_dir=None)) as another:
                another.write_span(a_span(1, 1))
                with pytest.raises(StorageError):
                    another.flush()
                server.start()
                eventually(lambda: another.write_stats().rows == 1)
        eventually(replayed(writer, 1))
    assert [row["status"] for row in fetch(pool, TraceSpan)] == ["ok"]
    check_traces(pool)


WRITING = """
import os, signal, sys
from datetime import UTC, datetime, timedelta
from observatory_storage.config import PoolConfig, PostgresConfig, RetryConfig, StorageConfig
from observatory_storage.pool import StoragePool
from observatory_storage.writers import LogWriter, TraceWriter, WriterConfig

url, directory, name = sys.argv[1:4]
pool = StoragePool(StorageConfig(
    postgres=PostgresConfig.from_url(url),
    pool=PoolConfig(min_connections=0),
    retry=RetryConfig(max_attempts=1, initial_delay_ms=1),
), connect=False)
config = WriterConfig(batch_size=4, flush_interval_secs=None, spool_dir=directory)
logs, traces = LogWriter(pool, config), TraceWriter(pool, config)
now = datetime(2026, 3, 14, tzinfo=UTC)
for n in range(10):
    logs.write_log({"timestamp": now, "body": f"{name} {n}"})
    traces.write_span({
        "trace_id": f"{n % 2 + 1:032x}", "span_id": os.urandom(8).hex(), "name": "operation",
        "start_time": now + timedelta(seconds=n), "end_time": now + timedelta(seconds=n + 1),
    })
"""
KILLED = """
print(logs.flush().spooled, traces.flush().spooled, flush=True)
sys.stdin.readline()
os.kill(os.getpid(), signal.SIGKILL)
"""


def writing(server: EmbeddedPostgres, config: WriterConfig, name: str, end: str) -> Any:
    return subprocess.Popen(
        [sys.executable, "-c", WRITING + end, server.url, str(config.spool_dir), name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_processes_killed_after_flush_lose_nothing(
    server: EmbeddedPostgres, pool: StoragePool, config: WriterConfig
) -> None:
    """Two share the directory and traces; another process writes what they have left."""
    with away(server):
        processes = [writing(server, config, name, KILLED) for name in ("one", "two")]
        for process in processes:
            assert process.stdout.readline() == "10 10\n"
        # Nobody takes over while they live.
        with LogWriter(pool, config) as bystander:
            bystander.write_log(a_log(body="bystander"))
            assert bystander.flush() == FlushResult(spooled=1)
            assert len(files(config)) == 5
            for process in processes:
                process.communicate("\n", timeout=60)
                assert process.returncode == -signal.SIGKILL
        assert len(files(config)) == 5
    with LogWriter(pool, config) as writer:
        eventually(replayed(writer, 41))
    assert files(config) == []
    expected = [f"{name} {n}" for name in ("one", "two") for n in range(10)]
    assert bodies(pool) == ["bystander", *expected]
    assert count(pool, "trace_spans") == 20
    assert check_traces(pool) == 2


@pytest.mark.parametrize("end", ["", "del logs, traces, pool"])
def test_the_end_of_the_interpreter_spools(
    server: EmbeddedPostgres, pool: StoragePool, config: WriterConfig, end: str
) -> None:
    with away(server):
        process = writing(server, config, "ended", end)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0
        assert "lost" not in errors
    assert len(files(config)) == 2
    with TraceWriter(pool, config) as writer:
        eventually(replayed(writer, 20))
    assert (count(pool, "logs"), count(pool, "trace_spans")) == (10, 10)
    check_traces(pool)


def test_the_end_of_the_interpreter_empties_the_spool_first(
    server: EmbeddedPostgres, pool: StoragePool, config: WriterConfig
) -> None:
    with away(server):
        process = writing(
            server, config, "back", "print(logs.flush().spooled, flush=True); sys.stdin.readline()"
        )
        assert process.stdout.readline() == "10\n"
    process.communicate("\n", timeout=60)
    assert process.returncode == 0
    assert files(config) == []
    assert (count(pool, "logs"), count(pool, "trace_spans")) == (10, 10)


def test_a_writer_that_lives_takes_over_from_one_that_died(
    server: EmbeddedPostgres,
    pool: StoragePool,
    config: WriterConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replay, "_LOOK_SECS", 0.001)
    with LogWriter(pool, config) as writer:
        with away(server):
            process = writing(server, config, "dead", KILLED)
            process.communicate("\n", timeout=60)
        assert len(files(config)) == 2
        writer.write_log(a_log())
        assert writer.flush() == FlushResult(committed=1)
        eventually(replayed(writer, 20))
    assert files(config) == []
    assert count(pool, "logs") == 11


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_both_sides_of_a_fork_spool_their_own_rows(
    server: EmbeddedPostgres, pool: StoragePool, config: WriterConfig
) -> None:
    with LogWriter(pool, config) as writer:

        def in_child() -> None:
            assert writer.write_stats().spooled == 0
            writer.write_log(a_log(body="child"))
            assert writer.flush() == FlushResult(spooled=1)
            assert writer.close() == FlushResult()
            assert len(files(config)) == 2

        with away(server):
            writer.write_log(a_log(body="parent"))
            assert writer.flush() == FlushResult(spooled=1)
            wait_for(fork(in_child))
            # The child has not let go of what is the parent's.
            with LogWriter(pool, config) as another:
                assert another.flush() == FlushResult()
        eventually(replayed(writer, 2))
    assert bodies(pool) == ["child", "parent"]
    assert files(config) == []


def test_a_full_spool_makes_flush_raise_and_loses_nothing(
    server: EmbeddedPostgres, pool: StoragePool, config: WriterConfig
) -> None:
    config = replace(config, spool_max_bytes=1000, batch_size=1)
    writer = LogWriter(pool, config)
    with away(server):
        writer.write_logs(a_log(n, body=f"{n:02}") for n in range(10))
        with pytest.raises(StorageError, match=r"is full: .* spool_max_bytes=1000") as caught:
            writer.flush()
        assert caught.value.retryable
        spooled = writer.write_stats().spooled
        assert 0 < spooled < 10
        assert writer.buffer_stats().buffered == 10 - spooled
        with pytest.raises(StorageError, match="is full"):
            writer.close()
        assert writer.buffer_stats().buffered == 10 - spooled
    # What is spooled was let go of by `close`; what was buffered is still there.
    assert writer.flush() == FlushResult(committed=10 - spooled, spooled=spooled)
    with LogWriter(pool, config) as another:
        eventually(replayed(another, spooled))
    assert bodies(pool) == [f"{n:02}" for n in range(10)]


def test_close_spools_the_rows_that_could_not_be_written(
    server: EmbeddedPostgres, pool: StoragePool, config: WriterConfig
) -> None:
    """Also where the database is there, and a flush would only raise."""
    config = replace(config, batch_size=2)
    pool.partitions.ensure("logs", [START])
    slow, troubled = LogWriter(pool, config), LogWriter(pool, config)
    with locked(server.url, "logs"):
        slow.write_logs(a_log(n) for n in range(5))
        eventually(lambda: slow.buffer_stats().in_flight == 2)
        assert slow.close(timeout=0.01) == FlushResult(spooled=5)
        assert slow.buffer_stats().buffered == 0
    assert slow.close() == FlushResult()
    with pool.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE logs RENAME TO elsewhere")
    try:
        troubled.write_log(a_log(5))
        with pytest.raises(StorageError, match="logs"):
            troubled.flush()
        assert troubled.buffer_stats().buffered == 1
        assert troubled.close() == FlushResult(spooled=1)
    finally:
        with pool.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO logs")
    with LogWriter(pool, config) as writer:
        eventually(replayed(writer, 6))
    assert count(pool, "logs") == 6


@contextmanager
def refusing(pool: StoragePool) -> Iterator[None]:
    """The database refuses some logs for their data."""
    with pool.engine.begin() as connection:
        connection.exec_driver_sql(
            "ALTER TABLE logs ADD CONSTRAINT refused CHECK (body NOT LIKE 'bad%%')"
        )
    yield
    empty(pool)
    with pool.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE logs DROP CONSTRAINT refused")


def test_rows_refused_from_the_spool_are_handed_over_and_not_tried_again(
    server: EmbeddedPostgres, pool: StoragePool, config: WriterConfig
) -> None:
    refused: list[Any] = []
    handling = replace(config, on_rejected=lambda row, error: refused.append((row, error)))
    some = [a_log(n, body=f"bad {n}" if n % 4 == 1 else f"good {n}") for n in range(8)]
    with refusing(pool):
        with LogWriter(pool, handling) as handler, LogWriter(pool, config) as raiser:
            with away(server):
                for writer in (handler, raiser):
                    writer.write_logs(some)
                    assert writer.flush() == FlushResult(spooled=8)
            eventually(replayed(handler, 6))
            eventually(replayed(raiser, 6))
            eventually(lambda: files(config) == [])
            assert handler.write_stats().rejected == raiser.write_stats().rejected == 2
            assert [row["body"] for row, _ in refused] == ["bad 1", "bad 5"]
            assert all(isinstance(error, ValidationError) for _, error in refused)
            with pytest.raises(BatchError) as caught:
                raiser.flush()
            assert [one.row["body"] for one in caught.value.rejected] == ["bad 1", "bad 5"]
            # Of what another process has left only the log and the stats speak.
            with away(server):
                leaving = LogWriter(pool, config)
                leaving.write_log(a_log(body="bad"))
                leaving.close()
            with LogWriter(pool, config) as finder:
                eventually(lambda: finder.write_stats().rejected == 1)
                assert finder.flush() == FlushResult()
        assert files(config) == []
        assert count(pool, "logs") == 12


def test_lines_that_cannot_be_read_are_counted_and_kept(
    server: EmbeddedPostgres,
    pool: StoragePool,
    config: WriterConfig,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with away(server):
        leaving = LogWriter(pool, config)
        leaving.write_logs(a_log(n, body=f"body {n}") for n in range(5))
        assert leaving.close() == FlushResult(spooled=5)
    (path,) = files(config)
    path.write_bytes(path.read_bytes().replace(b"body 3", b"body 7"))
    with caplog.at_level(logging.WARNING), LogWriter(pool, config) as writer:
        eventually(replayed(writer, 4))
        assert writer.write_stats().damaged == 1
        eventually(lambda: [path.suffix for path in files(config)] == [".corrupt"])
    assert bodies(pool) == ["body 0", "body 1", "body 2", "body 4"]
    assert "could not be read" in caplog.text


def test_rows_are_spooled_after_redaction(
    server: EmbeddedPostgres, pool: StoragePool, config: WriterConfig
) -> None:
    config = replace(config, redact=lambda row: {**row, "body": "redacted", "attributes": {}})
    with away(server), LogWriter(pool, config) as writer:
        writer.write_log(a_log(body="secret", attributes={"secret": "secret"}))
        assert writer.flush() == FlushResult(spooled=1)
        (path,) = files(config)
        assert b"redacted" in path.read_bytes()
        assert b"secret" not in path.read_bytes()


def test_a_writer_of_another_schema_leaves_the_rows_alone(
    server: EmbeddedPostgres, pool: StoragePool, config: WriterConfig
) -> None:
    with quick_pool(server.url, ONCE, schema="tenant") as tenant:
        tenant.run_migrations()
        with away(server):
            leaving = LogWriter(pool, config)
            leaving.write_log(a_log())
            assert leaving.close() == FlushResult(spooled=1)
        with LogWriter(tenant, config) as other:
            other.write_log(a_log())
            assert other.flush() == FlushResult(committed=1)
        assert len(files(config)) == 1
        with LogWriter(pool, config) as writer:
            eventually(replayed(writer, 1))
        assert count(pool, "logs") == count(tenant, "logs") == 1


def test_a_directory_that_cannot_be_used_is_told_at_once(
    pool: StoragePool, config: WriterConfig, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file cannot be used"):
        LogWriter(pool, replace(config, spool_dir=tmp_path / "file"))


@pytest.mark.parametrize(
    ("field", "value"), [("spool_dir", ""), ("spool_dir", 5), ("spool_max_bytes", 0)]
)
def test_a_setting_out_of_range_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        WriterConfig(**{field: value})
    assert caught.value.field == field


def test_without_trouble_the_spool_costs_nothing(pool: StoragePool, config: WriterConfig) -> None:
    with TraceWriter(pool, config) as writer:
        writer.write_span(a_span(1, 1))
        assert writer.flush() == FlushResult(committed=1)
        assert files(config) == []
        assert (writer.write_stats().spooled, writer.write_stats().replayed) == (0, 0)
    assert [str(row["trace_id"]) for row in fetch(pool, Trace)] == [trace_id(1)]
