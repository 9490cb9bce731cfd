"""Each trouble by itself, at a moment that is known."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest

from observatory_storage.errors import ReadOnly, StorageError
from observatory_storage.pool import StoragePool
from observatory_storage.writers import CopyWriter, FlushResult, TraceWriter, WriterConfig
from tests.soak.troubles import Troubles, as_writer
from tests.writers.helpers import (
    DEADLINE_SECS,
    ONCE,
    START,
    a_span,
    a_trace,
    count,
    eventually,
    quick_pool,
    trace_id,
)
from tests.writers.trace_model import check_traces

PATIENT = WriterConfig(flush_interval_secs=None)
ALTERATIONS = {
    "read-only": ("SET default_transaction_read_only = on", "RESET ALL"),
    "full": ("CONNECTION LIMIT 0", "CONNECTION LIMIT -1"),
}


@pytest.fixture
def pool(frail_url: str) -> Iterator[StoragePool]:
    with quick_pool(as_writer(frail_url)) as pool:
        yield pool


@pytest.fixture
def troubles(frail_url: str) -> Troubles:
    return Troubles(frail_url, random.Random(0))


@pytest.mark.parametrize("method", ["insert", "copy"])
@pytest.mark.parametrize("known", [True, False], ids=["partition", "no partition"])
def test_sessions_of_a_replica_are_left_when_the_primary_is_back(
    pool: StoragePool, troubles: Troubles, method: str, known: bool
) -> None:
    """They stay read-only for as long as they live: each attempt must have a new one."""
    config = WriterConfig(flush_interval_secs=None, method="copy" if method == "copy" else "insert")
    with TraceWriter(pool, config) as writer:
        if known:
            pool.partitions.ensure("trace_spans", [START])
        with altered(troubles, "read-only"):
            writer.write_spans(a_span(1, n) for n in range(1, 20))
            with pytest.raises(StorageError, match="read-only") as caught:
                writer.flush()
            assert isinstance(caught.value, ReadOnly)
            assert pool.stats().idle == 0
        assert writer.flush() == FlushResult(committed=19)
    assert check_traces(pool) == 1


def test_rows_wait_until_there_are_connections_again(pool: StoragePool, troubles: Troubles) -> None:
    with TraceWriter(pool, PATIENT) as writer:
        with altered(troubles, "full"):
            writer.write_spans(a_span(1, n) for n in range(1, 20))
            with pytest.raises(StorageError, match="too many connections") as caught:
                writer.flush()
            assert caught.value.retryable
            assert writer.buffer_stats().buffered == 19
        assert writer.flush() == FlushResult(committed=19)
    assert check_traces(pool) == 1


@contextmanager
def altered(troubles: Troubles, how: str) -> Iterator[None]:
    """The database is so for the sessions that begin meanwhile; there are no others."""
    change, back = ALTERATIONS[how]
    with troubles.altered(change, back):
        eventually(lambda: not troubles.terminated())
        yield


@pytest.mark.parametrize("resent", [False, True], ids=["new spans", "spans sent again"])
def test_the_victim_of_a_deadlock_tries_again(
    pool: StoragePool, troubles: Troubles, resent: bool
) -> None:
    CopyWriter(pool).write_traces(a_trace(n) for n in range(1, 4))
    spans = [a_span(n, n) for n in range(1, 4)]
    if resent:
        CopyWriter(pool).write_spans(spans)
    with (
        TraceWriter(pool, PATIENT) as writer,
        troubles.session() as other,
        troubles.session() as first,
    ):
        other.execute("SET deadlock_timeout = '1h'")
        writer.write_spans({**span, "status": "error"} for span in spans)
        with other.transaction():
            lock(other, 3)
            with first.transaction():
                lock(first, 2)
                # It holds the first trace, and waits for the second.
                flushing = in_background(writer.flush)
                eventually(lambda: len(troubles.waiting()) == 1)
                waiting = in_background(lambda: lock(other, 1))
                eventually(lambda: waits(troubles, other))
            # Now it waits for the third, and whoever holds that for it.
            waiting.join(DEADLINE_SECS)
        flushing.join(DEADLINE_SECS)
        assert writer.flush() == FlushResult()
        assert (writer.write_stats().rows, writer.write_stats().retries) == (3, 1)
    assert count(pool, "trace_spans") == 3
    assert check_traces(pool) == 3


def lock(session: psycopg.Connection[object], trace: int) -> None:
    session.execute("SELECT FROM traces WHERE trace_id = %s FOR UPDATE", [trace_id(trace)])


def waits(troubles: Troubles, session: psycopg.Connection[object]) -> bool:
    with troubles.session() as connection:
        row = connection.execute(
            "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s",
            [session.info.backend_pid],
        ).fetchone()
    return row == (True,)


def in_background(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_a_pool_without_retries_loses_no_rows(frail_url: str, troubles: Troubles) -> None:
    """Sessions end between the flushes, and the first attempt is the only one."""
    with quick_pool(as_writer(frail_url), ONCE) as pool, TraceWriter(pool, PATIENT) as writer:
        for number in range(1, 6):
            writer.write_span(a_span(1, number))
            assert writer.flush() == FlushResult(committed=1)
            assert troubles.terminated()
            eventually(lambda: not troubles.sessions())
        assert count(pool, "trace_spans") == 5
        assert check_traces(pool) == 1
