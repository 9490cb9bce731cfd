"""Spans that come while retention is at work, at each point of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from observatory_storage.config import RetentionConfig
from observatory_storage.lifecycle import partition_removal, partition_rewriting, retention
from observatory_storage.lifecycle.retention import apply_retention
from observatory_storage.lifecycle.run import Run
from observatory_storage.pool import StoragePool
from observatory_storage.writers import CopyWriter
from tests import citus
from tests.lifecycle.days import (
    DAY,
    HOUR,
    NOW,
    a_call,
    noon,
    oddities,
    partitions,
    retain,
    traces_in,
    write_spans,
)
from tests.writers.helpers import a_log, a_metric, a_point, eventually, trace_id


@pytest.fixture(autouse=True)
def _nothing_odd(database_url: str) -> Any:
    yield
    assert oddities(database_url) == {}


@contextmanager
def before(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, action: Callable[[], object]
) -> Iterator[list[str]]:
    """Do something once, just before a function is called for the first time."""
    called: list[str] = []
    original = getattr(module, name)

    def first(*arguments: Any, **named: Any) -> Any:
        if not called:
            called.append(name)
            action()
        return original(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(module, name, first)
        yield called


def spans_of(pool: StoragePool, trace: int) -> list[int]:
    with pool.unit_of_work() as work:
        found = work.traces.get_spans(trace_id(trace), with_events=True)
        assert all(len(span.events) == 1 for span in found)
        return [int(span.span_id, 16) for span in found]


def test_a_late_span_between_the_look_and_the_detachment_is_put_back(
    pool: StoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_spans(pool, *(a_call(1, hour, noon(10) + hour * HOUR) for hour in range(1, 5)))
    late = a_call(1, 9, noon(10) + 2.5 * HOUR)
    with before(monkeypatch, retention, "remove", lambda: write_spans(pool, late)) as called:
        result = retain(pool, traces="3d")
    assert called
    assert result.partitions[0].outcome == "dropped"
    # Two spans of the deleted trace start between those that are left of the new one.
    assert spans_of(pool, 1) == [9]
    retain(pool, traces="3d")
    assert traces_in(pool) == set()


def test_a_span_that_is_sent_again_after_its_trace_was_deleted_is_put_back(
    pool: StoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = [a_call(1, hour, noon(10) + hour * HOUR) for hour in range(1, 5)]
    write_spans(pool, *calls)
    again = (calls[1], calls[3])
    with before(monkeypatch, retention, "remove", lambda: write_spans(pool, *again)):
        retain(pool, traces="3d")
    assert spans_of(pool, 1) == [2, 3, 4]


def test_spans_that_come_while_rows_are_copied_are_copied_too(
    pool: StoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_spans(pool, *(a_call(n, hour, noon(10) + hour * HOUR) for n in (1, 2) for hour in (1, 3)))
    with pool.unit_of_work() as work:
        work.traces.pin(trace_id(1))
        work.traces.pin(trace_id(2))
        work.commit()

    def change() -> None:
        write_spans(
            pool,
            a_call(1, 3, noon(10) + 3 * HOUR, name="corrected"),
            a_call(1, 9, noon(10) + 2 * HOUR),
            a_call(3, 1, noon(10)),
        )
        with pool.unit_of_work() as work:
            work.traces.delete(trace_id(2))
            work.commit()

    with before(monkeypatch, partition_rewriting, "with_short_locks", change):
        result = retain(pool, traces="3d")
    assert [(one.outcome, one.kept_rows) for one in result.partitions] == [("rewritten", 4)] * 2
    assert spans_of(pool, 1) == [1, 9, 3]
    assert traces_in(pool) == {1, 3}
    with pool.unit_of_work() as work:
        assert work.traces.get_spans(trace_id(1))[-1].name == "corrected"


@citus.not_there("a partition is detached at once")
def test_rows_for_a_partition_that_is_being_detached_are_written_when_it_is_gone(
    pool: StoragePool, database_url: str
) -> None:
    """A reader holds up the detachment; the writer waits, and gets a partition of its own."""
    CopyWriter(pool).write_logs([a_log(timestamp=noon(10)), a_log(timestamp=noon(1))])
    with psycopg.connect(database_url) as reader:
        reader.execute("SELECT count(*) FROM logs")
        retaining = threading.Thread(target=lambda: retain(pool, logs="3d"))
        retaining.start()
        eventually(lambda: len(partitions_left(database_url)) == 1)
        writing = threading.Thread(
            target=lambda: CopyWriter(pool).write_logs([a_log(timestamp=noon(10), body="late")])
        )
        writing.start()
        time.sleep(0.2)  # the writer may be anywhere by now
        reader.rollback()
        retaining.join()
        writing.join()
    with pool.unit_of_work() as work:
        assert [log.body for log in work.logs.list(end_time=noon(5))] == ["late"]


def partitions_left(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'logs'::regclass"
            " AND NOT inhdetachpending"
        )
        return [name for (name,) in rows]


def test_a_reader_that_stays_makes_the_next_run_go_on(
    pool: StoragePool, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partition_removal, "_WAIT", "100ms")
    write_spans(pool, a_call(1, 1, noon(10)), a_call(2, 1, noon(1)))
    with psycopg.connect(database_url) as reader:
        reader.execute("SELECT count(*) FROM trace_spans")
        result = retain(pool, traces="3d")
        assert not result.is_complete
        assert [one.outcome for one in result.partitions] == ["in use"]
        # Others read and write as before.
        write_spans(pool, a_call(3, 1, noon(1)))
        assert traces_in(pool) == {2, 3}
        assert not retain(pool, traces="3d").is_complete
    assert retain(pool, traces="3d").is_complete
    assert len(partitions(database_url, "trace_spans")) == 1


def test_a_partition_gets_another_name_while_a_table_has_its_own(
    pool: StoragePool, database_url: str
) -> None:
    write_spans(pool, a_call(1, 1, noon(10)))
    (name,) = partitions(database_url, "trace_events")
    with psycopg.connect(database_url) as connection:
        connection.execute(f"ALTER TABLE trace_events DETACH PARTITION {name}".encode())
    write_spans(pool, a_call(2, 1, noon(10)))
    assert partitions(database_url, "trace_events") == [f"{name}_2"]
    retain(pool, traces="3d")
    with psycopg.connect(database_url) as connection:
        connection.execute(f"DROP TABLE {name}".encode())  # retention has left it alone


def test_writers_and_readers_do_not_notice(pool: StoragePool) -> None:
    """All of them while days of all signals go, some of them rewritten."""
    for day in range(5, 9):
        write_spans(pool, *(a_call(100 * day + n, 1, noon(day)) for n in range(20)))
        CopyWriter(pool).write_logs([a_log(timestamp=noon(day))])
    with pool.unit_of_work() as work:
        for day in range(6, 9, 2):
            work.traces.pin(trace_id(100 * day))
        work.commit()
    stop, failures = threading.Event(), list[BaseException]()

    def repeat(work: Callable[[int], object]) -> threading.Thread:
        def run() -> None:
            number = 0
            while not stop.is_set():
                number += 1
                try:
                    work(number)
                except BaseException as error:  # noqa: BLE001 - the test tells of it
                    failures.append(error)
                    return

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def read(_: int) -> None:
        with pool.unit_of_work() as work:
            work.traces.list(limit=5, status="ok")
            work.traces.list_spans(limit=5, model=None)
            work.logs.list(limit=5)

    def write(number: int) -> None:
        late = a_call(20_000 + number, 1, noon(5 + number % 4))
        write_spans(pool, a_call(10_000 + number, 1, noon(0)), late)

    def write_metrics(number: int) -> None:
        copier = CopyWriter(pool)
        metric = a_metric(f"metric {number % 3}")
        copier.write_metrics([metric])
        from observatory_storage.rows import prepare_metric

        key = prepare_metric(metric).values[0]
        copier.write_data_points([a_point(key, timestamp=noon(number % 15), value=number)])

    threads = [repeat(read), repeat(write), repeat(write_metrics)]
    try:
        for days in (6, 3):
            age = days * DAY
            config = RetentionConfig(traces=age, logs=age)
            apply_retention(Run(pool, NOW), config=config)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
