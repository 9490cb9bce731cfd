"""A read-only unit of work that waits for a flush sees its rows, however late replay is.

``SOAK=1`` writes 1,000 times.
"""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
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
from tests.replication.pairs import Database, Pair, altered
from tests.repositories.samples import a_span, trace_key
from tests.soak.scale import scaled

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
