"""Readers and writers that meet at every point: nobody sees or stores what is out of date."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from observatory_storage import CopyWriter, StoragePool
from tests.cache.conftest import MakePool
from tests.cache.reading import KEY, counting, names, some_spans, span_count
from tests.repositories.samples import DAY, START, a_span

Read = Callable[[StoragePool], Any]
READS: dict[str, Read] = {
    "traces": lambda pool: len(names(pool)),
    "statistics": span_count,
}


@contextmanager
def once(pool: StoragePool, event: str, act: Callable[[], object], *words: str) -> Iterator[None]:
    """Within the block, act at the first event of the engine, in the thread that it happens in.

    Args:
        words: the event is of a statement with these words.
    """
    done: list[bool] = []

    def happened(*arguments: Any) -> None:
        statement = arguments[2] if len(arguments) > 2 else ""
        if not done and all(word in statement for word in words):
            done.append(True)
            act()

    target = pool.engine.pool if event == "checkin" else pool.engine
    sa.event.listen(target, event, happened)
    try:
        yield
    finally:
        sa.event.remove(target, event, happened)
    assert done


def write_one_more(pool: StoragePool) -> None:
    CopyWriter(pool).write_spans([a_span(1, 99, START, name="later")])


@pytest.mark.parametrize("recheck", ["0s", "1h"])
@pytest.mark.parametrize("kind", READS)
def test_a_reader_that_began_before_a_commit_does_not_put_the_old_value_back(
    make_pool: MakePool, kind: str, recheck: str
) -> None:
    reader, writer = make_pool(traces_recheck=recheck), make_pool()
    CopyWriter(writer).write_spans(some_spans())
    # The reader has read the rows when the writer commits, and has not stored them yet.
    table = "trace_events" if kind == "traces" else "trace_spans"  # which is read last
    with (
        counting(reader, kind) as counted,
        once(reader, "after_cursor_execute", lambda: write_one_more(writer), table),
    ):
        assert READS[kind](reader) == 3
    assert counted == {"misses": 1, ("outdated" if kind == "traces" else "stored"): 1}
    with counting(reader, kind) as counted:
        assert READS[kind](reader) == 4
        assert READS[kind](reader) == 4
    assert counted == {"misses": 1, "stored": 1, "hits": 1}


def test_spans_and_events_of_different_versions_are_not_stored(make_pool: MakePool) -> None:
    reader, writer = make_pool(), make_pool()
    CopyWriter(writer).write_spans(some_spans())
    with (
        counting(reader, "traces") as counted,
        once(reader, "after_cursor_execute", lambda: write_one_more(writer), "trace_spans"),
    ):
        assert len(names(reader)) == 4
    assert counted == {"misses": 1}


@pytest.mark.parametrize("recheck", ["0s", "1h"])
@pytest.mark.parametrize("kind", READS)
def test_readers_use_no_cached_value_while_a_commit_is_under_way(
    make_pool: MakePool, kind: str, recheck: str
) -> None:
    reader, writer = make_pool(traces_recheck=recheck), make_pool()
    CopyWriter(writer).write_spans(some_spans())
    for _ in range(2):
        assert READS[kind](reader) == 3
    seen: list[int] = []

    def read() -> None:
        seen.append(READS[kind](reader))

    # Before the commit, and between the commit and the moment when the cache hears of it.
    with once(writer, "commit", read), once(writer, "checkin", read):
        write_one_more(writer)
    assert seen == [3, 4]
    assert READS[kind](reader) == 4


def test_a_writer_killed_after_its_commit_leaves_no_old_value(make_pool: MakePool) -> None:
    reader, writer = make_pool(traces_recheck="1h"), make_pool()
    CopyWriter(writer).write_spans(some_spans())
    for read in READS.values():
        assert [read(reader) for _ in range(2)] == [3, 3]
    child = os.fork()
    if child == 0:
        with once(writer, "checkin", lambda: os.kill(os.getpid(), signal.SIGKILL)):
            write_one_more(writer)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    for read in READS.values():
        assert read(reader) == 4


def test_a_unit_of_work_sees_its_own_rows_and_publishes_none(make_pool: MakePool) -> None:
    pool, other = make_pool(traces_recheck="1h"), make_pool(traces_recheck="1h")
    CopyWriter(pool).write_spans(some_spans())
    for one in (pool, other):
        for read in READS.values():
            assert [read(one) for _ in range(2)] == [3, 3]
    with pool.unit_of_work() as uow:
        CopyWriter(uow).write_spans([a_span(1, 99, START)])
        assert len(uow.traces.get_spans(KEY)) == 4
        assert uow.traces.get_stats().span_count == 4
        for read in READS.values():
            assert read(other) == 3
        uow.rollback()
        assert len(uow.traces.get_spans(KEY)) == 3
    for read in READS.values():
        assert read(pool) == read(other) == 3


def test_statements_of_ones_own_count_as_writing(make_pool: MakePool) -> None:
    pool = make_pool()
    CopyWriter(pool).write_spans(some_spans())
    assert [span_count(pool) for _ in range(2)] == [3, 3]
    with pool.unit_of_work() as uow:
        uow.session.execute(sa.text("DELETE FROM trace_spans"))
        assert uow.traces.get_stats(group_by=()) == []
        assert uow.traces.get_spans(KEY) == []
    assert span_count(pool) == 3


def test_a_transaction_with_a_snapshot_of_its_own_does_not_use_the_cache(
    make_pool: MakePool,
) -> None:
    pool = make_pool(traces_recheck="1h")
    CopyWriter(pool).write_spans(some_spans())
    with pool.unit_of_work() as uow:
        uow.session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        assert uow.traces.get_stats().span_count == 3
        write_one_more(pool)
        assert span_count(pool) == 4
        assert uow.traces.get_stats().span_count == 3
        assert len(uow.traces.get_spans(KEY)) == 3
    assert [span_count(pool) for _ in range(2)] == [4, 4]
    assert len(names(pool)) == 4


def test_changes_by_plain_sql_are_noticed_in_traces(make_pool: MakePool) -> None:
    pool = make_pool(traces_recheck="0s")
    CopyWriter(pool).write_spans(some_spans())
    assert [names(pool) for _ in range(2)] == [["operation"] * 3] * 2
    for statement, expected in (
        ("UPDATE trace_spans SET name = 'renamed'", ["renamed"] * 3),
        ("DELETE FROM trace_spans WHERE span_id = lpad('2', 16, '0')", ["renamed"] * 2),
    ):
        with pool.engine.begin() as connection:
            connection.execute(sa.text(statement))
        with counting(pool, "traces") as counted:
            assert names(pool) == expected
            assert names(pool) == expected
        assert counted == {"misses": 1, "stored": 1, "hits": 1}


def test_statistics_of_other_days_stay_cached(make_pool: MakePool) -> None:
    pool = make_pool()
    CopyWriter(pool).write_spans(some_spans())

    def ask() -> int:
        with pool.unit_of_work() as uow:
            found = uow.traces.get_stats(group_by=(), start_time=START, end_time=START + DAY / 4)
            return found[0].span_count

    assert ask() == 3
    CopyWriter(pool).write_spans([a_span(2, 1, START + DAY)])
    with counting(pool, "statistics") as counted:
        assert ask() == 3
    assert counted == {"hits": 1}
    CopyWriter(pool).write_spans([a_span(3, 1, START)])
    with counting(pool, "statistics") as counted:
        assert ask() == 4
    assert counted == {"misses": 1, "stored": 1}
