"""The standby is promoted while programs write and read.

Committed means here: the flush has returned, and the primary replicates synchronously, so it tells
a writer of a commit once the standby has it on disk. Then nothing that was committed is lost. A
primary that replicates asynchronously, as by default, tells it before, and the last commits before
its end may be lost with it; a spool does not help, since the writer has let go of these rows.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg
import pytest
import sqlalchemy as sa

from observatory_storage import (
    FlushResult,
    PoolConfig,
    PostgresConfig,
    ReadOnly,
    RetryConfig,
    StorageConfig,
    StorageError,
    StoragePool,
    TraceWriter,
    WriterConfig,
)
from tests.replication.pairs import Database, Pair, altered, ask
from tests.repositories.samples import a_span, trace_key
from tests.soak.scale import scaled

BEFORE = AFTER = scaled(10, 200)  # flushes of each writer
WRITERS = READERS = 2
LONGEST_SECS = 120.0


@dataclass
class Program:
    """What a thread has done.

    Attributes:
        committed: the traces whose flush has returned.
        errors: what was raised.
        last: the last result of a flush.
    """

    committed: list[int] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    last: FlushResult = field(default_factory=FlushResult)
    reads: int = 0


@pytest.mark.parametrize("spooled", [False, True], ids=["in memory", "with a spool"])
def test_nothing_that_was_committed_is_lost_when_the_standby_is_promoted(
    frail_pair: Pair, tmp_path: object, spooled: bool
) -> None:
    database = frail_pair.lasting_database("promoted")
    with StoragePool(_config(database), connect=False) as pool:
        stop = threading.Event()
        writers = [Program() for _ in range(WRITERS)]
        readers = [Program() for _ in range(READERS)]
        threads = [
            *(
                threading.Thread(
                    target=_write, args=(pool, one, n, stop, tmp_path if spooled else None)
                )
                for n, one in enumerate(writers)
            ),
            *(threading.Thread(target=_read, args=(pool, one, stop)) for one in readers),
        ]
        with _synchronous(frail_pair):
            for thread in threads:
                thread.start()
            _until(lambda: min(len(one.committed) for one in writers) >= BEFORE)
            frail_pair.primary.kill()
        frail_pair.standby.promote()
        reached = [len(one.committed) for one in writers]
        reads = [one.reads for one in readers]
        _until(
            lambda: all(
                len(one.committed) >= least + AFTER
                for one, least in zip(writers, reached, strict=True)
            )
        )
        _until(lambda: all(one.reads > least for one, least in zip(readers, reads, strict=True)))
        stop.set()
        for thread in threads:
            thread.join()
        errors = [error for one in (*writers, *readers) for error in one.errors]
        assert [e for e in errors if not isinstance(e, StorageError)] == []
        assert [e for e in errors if not (e.retryable or isinstance(e, ReadOnly))] == []  # type: ignore[attr-defined]
        expected = {trace_key(trace) for one in writers for trace in one.committed}
        with pool.unit_of_work(read_only=True, after=writers[0].last) as uow:
            assert not uow.session.scalar(sa.text("SELECT pg_is_in_recovery()"))
            stored = {trace.trace_id: trace.span_count for trace in uow.traces.iterate()}
            spans = sum(1 for _ in uow.traces.iterate_spans())
        assert expected <= stored.keys()
        assert set(stored.values()) == {1}
        assert spans == len(stored)


def _config(database: Database) -> StorageConfig:
    """Both servers, in either URL, as a program names them that is to survive a failover."""
    both = [psycopg.conninfo.conninfo_to_dict(u) for u in (database.url, database.read_url)]
    hosts = ",".join(str(each["host"]) for each in both)
    url = f"postgresql://postgres@/{both[0]['dbname']}?host={hosts}&port=5432,5432"
    return StorageConfig(
        postgres=PostgresConfig.from_url(
            f"{url}&target_session_attrs=read-write",
            read_url=f"{url}&target_session_attrs=prefer-standby",
        ),
        pool=PoolConfig(min_connections=0),
        retry=RetryConfig(max_attempts=2, initial_delay_ms=5, max_delay_ms=50),
    )


def _write(
    pool: StoragePool, done: Program, number: int, stop: threading.Event, spool: object
) -> None:
    folder = None if spool is None else f"{spool}/{number}"
    config = WriterConfig(flush_interval_secs=None, spool_dir=folder)
    trace = number
    waiting: list[int] = []
    with TraceWriter(pool, config) as writer:
        while not stop.is_set():
            trace += WRITERS
            writer.write_span(a_span(trace, 1))
            waiting.append(trace)
            try:
                result = writer.flush()
            except StorageError as error:
                done.errors.append(error)
                continue
            if result.spooled:
                continue  # they are committed once a later flush has followed them
            done.last = result
            done.committed += waiting
            waiting.clear()
    done.committed += waiting


def _read(pool: StoragePool, done: Program, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            with pool.unit_of_work(read_only=True) as uow:
                for trace in uow.traces.list(limit=50):
                    assert trace.span_count == 1
            done.reads += 1
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            done.errors.append(error)
        time.sleep(0.002)


@contextmanager
def _synchronous(pair: Pair) -> Iterator[None]:
    with altered(pair.primary, "synchronous_standby_names", "standby"):
        _until(
            lambda: (
                ask(
                    pair.primary.url,
                    "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'",
                )
                == (1,)
            )
        )
        yield


def _until(is_so: object) -> None:
    assert callable(is_so)
    deadline = time.monotonic() + LONGEST_SECS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)
