"""A read-only unit of work that waits for a flush sees its rows, however late replay is.

``SOAK=1`` writes 1,000 times.
"""

from __future__ import annotations

import os
import re
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from observatory_storage import (
    CopyWriter,
    FlushResult,
    NotFound,
    PoolConfig,
    PostgresConfig,
    StoragePool,
    Timeout,
    TraceWriter,
    WriterConfig,
)
from tests.otel.test_suppression import instrumented
from tests.replication.pairs import Database, Pair, altered
from tests.repositories.samples import a_span, trace_key
from tests.soak.scale import scaled
from tests.writers.helpers import eventually

WRITES: Final = scaled(24, 1000)
THREADS: Final = 4
PATIENT: Final = WriterConfig(flush_interval_secs=None)


@pytest.mark.parametrize("synchronous", ["on", "off"])
def test_every_write_is_read_while_replay_is_delayed(
    pool: StoragePool, pair: Pair, synchronous: str
) -> None:
    missed: list[int] = []

    def write_and_read(thread: int) -> int:
        with TraceWriter(pool, PATIENT) as writer:
            for number in range(WRITES // THREADS):
                trace = 1 + thread + THREADS * number
                writer.write_span(a_span(trace, 1))
                result = writer.flush()
                with pool.unit_of_work(read_only=True) as uow:
                    try:
                        uow.traces.get(trace_key(trace))
                    except NotFound:
                        missed.append(trace)
                with pool.unit_of_work(read_only=True, after=result, after_timeout_secs=60) as uow:
                    assert uow.traces.get(trace_key(trace)).span_count == 1
        return number + 1

    with (
        altered(pair.standby, "recovery_min_apply_delay", "20ms"),
        altered(pair.primary, "synchronous_commit", synchronous),
        ThreadPoolExecutor(THREADS) as threads,
    ):
        assert sum(threads.map(write_and_read, range(THREADS))) == WRITES
    print(f"{WRITES} writes, {len(missed)} not there without waiting")


def test_a_position_that_is_not_reached_is_a_retryable_timeout_that_names_both(
    pool: StoragePool, pair: Pair
) -> None:
    with TraceWriter(pool, PATIENT) as writer, pair.paused():
        writer.write_span(a_span(1, 1))
        result = writer.flush()
        assert result.lsn is not None
        with pool.unit_of_work(read_only=True, after=result, after_timeout_secs=0.01) as uow:
            for _ in range(2):
                with pytest.raises(Timeout) as caught:
                    uow.traces.get(trace_key(1))
                assert caught.value.retryable
                found = re.search(r"is at (\S+) and has not reached (\S+),", str(caught.value))
                assert found is not None
                assert found[1] != found[2] == result.lsn
                # Without a rollback the transaction must not go on with what is behind.
                with pytest.raises(Exception, match="rolled back"):
                    uow.traces.get(trace_key(1))
                uow.rollback()
            pair.resume()
            pair.catch_up()
            assert uow.traces.get(trace_key(1)).span_count == 1


def test_each_transaction_of_a_unit_of_work_waits(pool: StoragePool, pair: Pair) -> None:
    with pair.paused():
        CopyWriter(pool).write_spans([a_span(1, 1)])
        lsn = pool.current_lsn()
        resume = threading.Timer(0.05, pair.resume)
        resume.start()
        with pool.unit_of_work(read_only=True, after=lsn, after_timeout_secs=60) as uow:
            for _ in range(2):
                assert uow.traces.get(trace_key(1)).span_count == 1
                uow.commit()
        resume.join()


def test_a_result_without_a_position_waits_for_that_of_the_primary(
    database: Database, pool: StoragePool
) -> None:
    # The process that writes has no read server.
    with (
        database.pool(postgres=PostgresConfig.from_url(database.url)) as writing,
        TraceWriter(writing, PATIENT) as writer,
        altered(database.pair.standby, "recovery_min_apply_delay", "20ms"),
    ):
        writer.write_span(a_span(1, 1))
        result = writer.flush()
        assert result == FlushResult(committed=1)
        with pool.unit_of_work(read_only=True, after=result, after_timeout_secs=60) as uow:
            assert uow.traces.get(trace_key(1)).span_count == 1


def test_a_position_is_asked_for_once_something_was_committed(pool: StoragePool) -> None:
    with instrumented(pool, suppressed=True) as statements, TraceWriter(pool, PATIENT) as writer:

        def asked() -> int:
            return sum("pg_current_wal_flush_lsn" in one for one in statements)

        assert writer.flush() == FlushResult()
        assert asked() == 0
        writer.write_span(a_span(1, 1))
        assert writer.flush(30).lsn is not None
        assert asked() == 1
        # As when the flush of another thread has reported the rows of this one.
        result = writer.flush()
        assert (result.committed, asked()) == (0, 2)
    with pool.unit_of_work(read_only=True, after=result.lsn, after_timeout_secs=60) as uow:
        assert len(uow.traces.list()) == 1


def test_the_statement_for_a_position_is_not_recorded(pool: StoragePool) -> None:
    with instrumented(pool) as recorded, TraceWriter(pool, PATIENT) as writer:
        for trace, timeout in enumerate((None, 30.0), 1):
            writer.write_span(a_span(trace, 1))
            assert writer.flush(timeout).lsn is not None
    assert recorded == []


def test_a_flush_keeps_its_timeout_while_the_primary_is_silent(database: Database) -> None:
    one = PoolConfig(max_connections=1, min_connections=0)
    with database.pool(pool=one) as pool:
        with pool.engine.connect() as connection:
            backend = int(connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())
        with TraceWriter(pool, WriterConfig(flush_interval_secs=0.01)) as writer:
            writer.write_span(a_span(1, 1))
            eventually(lambda: writer.write_stats().rows == 1)  # by the flush thread
            os.kill(backend, signal.SIGSTOP)
            try:
                assert writer.flush(0.2) == FlushResult(committed=1)
            finally:
                os.kill(backend, signal.SIGCONT)
            assert writer.flush().lsn is not None


def test_a_flush_that_spooled_does_not_look_for_the_primary(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nobody = PostgresConfig.from_url("postgresql://127.0.0.1:9/nothing", read_url=database.read_url)
    spooling = WriterConfig(flush_interval_secs=None, spool_dir=tmp_path)
    with database.pool(postgres=nobody) as pool:
        writer = TraceWriter(pool, spooling)
        for trace in (1, 2):
            writer.write_span(a_span(trace, 1))
            assert writer.flush(30) == FlushResult(spooled=1)
        writer.close()
    assert "the position of what was flushed" not in caplog.text


def test_waiting_holds_no_connection_longer_than_its_unit_of_work(database: Database) -> None:
    one = PoolConfig(max_connections=1, min_connections=0)
    with database.pool(pool=one) as pool, database.pair.paused():
        CopyWriter(pool).write_spans([a_span(1, 1)])
        for _ in range(3):
            with (
                pool.unit_of_work(
                    read_only=True, after=pool.current_lsn(), after_timeout_secs=0
                ) as uow,
                pytest.raises(Timeout),
            ):
                uow.traces.list()
        with pool.unit_of_work(read_only=True) as uow:
            assert len(uow.traces.list()) == 0
        read = pool.stats().read
        assert read is not None
        assert (read.size, read.active) == (1, 0)
