"""A full spool, refused rows, lines that cannot be read, and wrong settings."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from observatory_embedded import EmbeddedPostgres
from observatory_storage.errors import BatchError, StorageError, ValidationError
from observatory_storage.pool import StoragePool
from observatory_storage.writers import (
    FlushResult,
    LogWriter,
    WriterConfig,
)
from tests.writers.helpers import (
    ONCE,
    START,
    a_log,
    count,
    eventually,
    locked,
    quick_pool,
)
from tests.writers.spool.spooling import away, bodies, files, refusing, replayed


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
