"""The tail gives every record once, whatever the order of timestamps and commits."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta

import pytest
import sqlalchemy as sa

from observatory_storage import CopyWriter, StoragePool, ValidationError
from observatory_storage.repositories import LogFilters
from tests import citus
from tests.repositories.samples import DAY, SECOND, START, a_log, a_span
from tests.writers.helpers import eventually


class Tail:
    """Follows the log of a pool, each poll in a unit of work of its own."""

    def __init__(self, pool: StoragePool, **conditions: object) -> None:
        self._pool = pool
        self._filters = LogFilters(**conditions)  # type: ignore[arg-type]  # by name, as they come
        self.cursor: str | None = None

    def poll(self) -> list[int]:
        others_have_ended(self._pool)
        with self._pool.unit_of_work() as uow:
            page = uow.logs.tail(self.cursor, self._filters)
        assert page.previous is None
        self.cursor = page.next
        return [record.id.int for record in page]


def others_have_ended(pool: StoragePool) -> None:
    """Wait for the transactions of other databases: on a shared server they hold the tail up."""
    running = sa.text(
        "SELECT backend_xid::text FROM pg_stat_activity"
        " WHERE datname IS DISTINCT FROM current_database() AND backend_xid IS NOT NULL"
    )
    deadline = time.monotonic() + 30
    awaited: set[str] | None = None
    while awaited is None or awaited:
        assert time.monotonic() < deadline, awaited
        with pool.engine.connect() as connection:
            now = set(connection.scalars(running))
        awaited = now if awaited is None else awaited & now


def write(pool: StoragePool, *numbers: int, **columns: object) -> None:
    CopyWriter(pool).write_logs([a_log(number, **columns) for number in numbers])  # type: ignore[arg-type]  # as above


def test_a_tail_begins_with_the_newest(pool: StoragePool) -> None:
    for number in range(1, 6):
        write(pool, number, timestamp=START - number * SECOND)
    tail = Tail(pool, limit=3)
    assert tail.poll() == [3, 2, 1]
    assert tail.poll() == []
    write(pool, 9)
    assert tail.poll() == [9]
    assert tail.poll() == []


def test_a_tail_of_an_empty_log_returns_later_records(pool: StoragePool) -> None:
    tail = Tail(pool)
    assert tail.poll() == []
    write(pool, 1)
    assert tail.poll() == [1]


def test_records_come_as_they_arrive_however_old_they_are(pool: StoragePool) -> None:
    tail = Tail(pool)
    tail.poll()
    write(pool, 1, timestamp=START)
    write(pool, 2, timestamp=START - 400 * DAY)
    write(pool, 3, timestamp=START + DAY)
    write(pool, 4, timestamp=START)
    assert tail.poll() == [1, 2, 3, 4]
    assert tail.poll() == []


def test_equal_timestamps_are_neither_skipped_nor_repeated(pool: StoragePool) -> None:
    tail = Tail(pool, limit=4)
    tail.poll()
    write(pool, *range(1, 11))
    write(pool, *range(11, 22), timestamp_ns=1)
    found = [tail.poll() for _ in range(7)]
    assert [number for page in found for number in page] == list(range(1, 22))
    assert max(map(len, found)) == 4
    assert found[-1] == []


def test_a_later_commit_delays_the_records_after_it(pool: StoragePool) -> None:
    tail = Tail(pool)
    tail.poll()
    with pool.unit_of_work() as slow:
        CopyWriter(slow).write_logs([a_log(1)])
        write(pool, 2, timestamp=START + SECOND)
        assert tail.poll() == []
        slow.commit()
    assert tail.poll() == [1, 2]
    with pool.unit_of_work() as given_up:
        CopyWriter(given_up).write_logs([a_log(3)])
        write(pool, 4)
        assert tail.poll() == []
    assert tail.poll() == [4]


@citus.not_there("rows are returned in the order in which transactions began")
def test_a_transaction_that_was_open_for_long_before_it_wrote_is_not_missed(
    pool: StoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the server shows is enough here: nothing is taken on trust.
    monkeypatch.setattr("observatory_storage.repositories.reading.tail._TRUSTED", timedelta(0))
    tail = Tail(pool)
    with pool.unit_of_work() as idle, pool.unit_of_work() as busy:
        idle.logs.get_stats()
        tail.poll()
        CopyWriter(busy).write_spans([a_span(1, 1)])
        for number in range(1, 4):
            write(pool, number)
            tail.poll()
        CopyWriter(idle).write_logs([a_log(10)])
        idle.commit()
        CopyWriter(busy).write_logs([a_log(11)])
        assert tail.poll() == []
        busy.commit()
    assert tail.poll() == [1, 2, 3, 10, 11]
    write(pool, 12)
    assert tail.poll() == [12]


def test_a_poll_sees_its_own_transaction_only_when_it_is_committed(pool: StoragePool) -> None:
    with pool.unit_of_work() as uow:
        first = uow.logs.tail()
        CopyWriter(uow).write_logs([a_log(1)])
        second = uow.logs.tail(first.next)
        assert not second
        uow.commit()
        others_have_ended(pool)
        third = uow.logs.tail(second.next)
        assert [record.id.int for record in third] == [1]


def test_only_matching_records_are_returned(pool: StoragePool) -> None:
    tail = Tail(pool, min_severity=17, service_name="service")
    write(pool, 1, severity_number=17)
    write(pool, 2, severity_number=9)
    assert tail.poll() == [1]
    write(pool, 3, severity_number=21, service_name="other")
    write(pool, 4, severity_number=21, body="down")
    assert tail.poll() == [4]


def test_a_tail_cursor_of_another_query_is_refused(pool: StoragePool) -> None:
    with pool.unit_of_work() as uow:
        page = uow.logs.tail()
        assert page.next is not None
        assert not uow.logs.tail(page.next)
        for cursor in ("x", page.next[:-1], ""):
            with pytest.raises(ValidationError, match="cursor"):
                uow.logs.tail(cursor)
        with pytest.raises(ValidationError, match="another query"):
            uow.logs.tail(page.next, LogFilters(min_severity=9))
        with pytest.raises(ValidationError, match="another query"):
            uow.logs.list(after=page.next)


def test_numbers_of_transactions_wrap(pool: StoragePool) -> None:
    from observatory_storage.repositories.reading.tail import _age

    xids = [(5, 2**32 + 9), (2**32 - 3, 2**32 + 9), (8, 9), (2**32 - 1, 2**33)]
    for low, settled in xids:
        age = str(_age(settled).compile(compile_kwargs={"literal_binds": True})).replace(
            "xmin::text::bigint", str(low)
        )
        with pool.engine.connect() as connection:
            assert connection.scalar(sa.text(f"SELECT {age}")) == (settled - low) % 2**32


@pytest.mark.parametrize("seed", range(2))
def test_many_writers_lose_nothing(pool: StoragePool, seed: int) -> None:
    def write_some(writer: int) -> None:
        rng = random.Random(seed * 10 + writer)
        number = writer * 1000
        for _ in range(12):
            with pool.unit_of_work() as uow:
                for _ in range(rng.randrange(1, 3)):
                    rows = []
                    for _ in range(rng.randrange(1, 5)):
                        number += 1
                        rows.append(a_log(number, START + rng.randrange(4) * SECOND))
                    CopyWriter(uow).write_logs(rows)
                if rng.random() < 0.8:
                    uow.commit()

    tail = Tail(pool, limit=7)
    seen = tail.poll()
    with ExitStack() as stack:
        writers = [threading.Thread(target=write_some, args=(n,)) for n in range(1, 5)]
        for thread in writers:
            thread.start()
            stack.callback(thread.join)
        while any(thread.is_alive() for thread in writers):
            seen += tail.poll()
    with pool.unit_of_work() as uow:
        stored = sorted(record.id.int for record in uow.logs.iterate())

    def all_are_seen() -> bool:
        seen.extend(polled_dry(tail.poll))
        return len(seen) >= len(stored)

    eventually(all_are_seen)  # at once on one server; workers of a cluster commit a moment later
    assert sorted(seen) == stored
    assert len(stored) > 50


def polled_dry(poll: Callable[[], list[int]]) -> list[int]:
    """What is given until a poll gives nothing."""
    found: list[int] = []
    while page := poll():
        found += page
    return found
