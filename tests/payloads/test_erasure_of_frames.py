"""Erased users, sessions and traces are erased from frames, packed or being packed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import pytest
import sqlalchemy as sa

from observatory_storage import UnitOfWork
from observatory_storage.lifecycle.frame_packing import pack_partition
from observatory_storage.lifecycle.payload_conversion import convert_payloads
from observatory_storage.lifecycle.run import Run
from observatory_storage.models import PayloadFrame, TraceSpan
from observatory_storage.payloads import FrameKey, Member, insert_frames, owner_of, unpack
from observatory_storage.pool import StoragePool
from tests.lifecycle.days import partitions
from tests.payloads.framed import START, a_turn, frame_count, turns, write
from tests.payloads.invariants import check_payloads
from tests.writers.helpers import quick_pool, trace_id

Erase = Callable[[UnitOfWork, int], Any]
ERASURES = pytest.mark.parametrize(
    "erase",
    [
        lambda uow, n: uow.traces.delete_user(f"user-{n}"),
        lambda uow, n: uow.traces.delete_session(f"session-{n}"),
        lambda uow, n: uow.traces.delete(trace_id(n)),
    ],
    ids=["user", "session", "trace"],
)


@pytest.fixture
def pool(database_url: str) -> Iterator[StoragePool]:
    with quick_pool(database_url) as pool:
        yield pool


def words_of(pool: StoragePool, trace: int) -> int:
    """In how many frames there is a word of this trace."""
    with pool.engine.connect() as connection:
        frames = [unpack(data) for data in connection.scalars(sa.select(PayloadFrame.data))]
    word = f"secret-{trace} ".encode()
    return sum(
        any(word in text for values in frame.values() for text in values.values())
        for frame in frames
    )


def erased(pool: StoragePool, erase: Erase, trace: int) -> None:
    with pool.unit_of_work() as uow:
        assert erase(uow, trace).spans > 0
        uow.commit()


@ERASURES
@pytest.mark.parametrize("is_packed", [False, True])
def test_no_frame_has_a_word_of_what_was_erased(
    pool: StoragePool, database_url: str, erase: Erase, is_packed: bool
) -> None:
    write(pool, *turns([1, 2, 3], 3))
    with pool.engine.begin() as connection:
        columns = PayloadFrame.__table__.c
        of_second = TraceSpan.__table__.c.user_id == "user-2"
        trace = sa.select(TraceSpan.trace_id).where(of_second).limit(1).scalar_subquery()
        found = sa.select(*columns[:3]).where(columns.trace_id == trace).limit(1)
        key = FrameKey(*connection.execute(found).one())._replace(id=5)
        lost = Member(owner_of("f" * 16, START, 0), {"lost": b'"secret-2 is garbage"'})
        insert_frames(connection, {key: [lost]})
    assert words_of(pool, 2) == 4
    if is_packed:
        for name in partitions(database_url, "payload_frames"):
            assert pack_partition(Run(pool), name)
        assert words_of(pool, 2) == 1
    erased(pool, erase, 2)
    assert words_of(pool, 2) == 0
    assert frame_count(pool) == (2 if is_packed else 6)
    check_payloads(pool)


def test_frames_of_a_trace_without_a_row_go_too(pool: StoragePool) -> None:
    write(pool, *turns([1], 2))
    with pool.engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM traces"))
    with pool.unit_of_work() as uow:
        uow.traces.delete(trace_id(1))
        uow.commit()
    assert frame_count(pool) == 0


def test_erasing_while_frames_are_packed_and_moved_and_written(database_url: str) -> None:
    gone, kept = range(1, 9), range(9, 15)
    done = threading.Event()
    with quick_pool(database_url) as pool, ThreadPoolExecutor(5) as executor:
        write(pool, *turns([*gone, *kept], 3))
        (partition,) = partitions(database_url, "payload_frames")

        def repeatedly(work: Callable[[int], object]) -> int:
            for number in count():
                if done.is_set():
                    return number
                work(number)
            raise AssertionError

        def rewrite(number: int) -> None:
            trace = kept[number % len(kept)]
            turn = a_turn(trace, number % 5 + 1, version=number)
            write(pool, [turn], payloads="compressed" if number % 3 else "inline")

        def move(number: int) -> None:
            convert_payloads(pool, "inline" if number % 2 else "compressed")

        def pack(_: int) -> None:
            pack_partition(Run(pool), partition)

        working = [executor.submit(repeatedly, work) for work in (rewrite, move, pack, pack)]
        try:
            for trace in gone:
                by_user = trace % 2
                with pool.unit_of_work() as uow:
                    if by_user:
                        uow.traces.delete_user(f"user-{trace}")
                    else:
                        uow.traces.delete(trace_id(trace))
                    uow.commit()
        finally:
            done.set()
        assert all(each.result() > 0 for each in working)
        assert not any(words_of(pool, trace) for trace in gone)
        convert_payloads(pool, "compressed")
        check_payloads(pool)
        assert all(words_of(pool, trace) for trace in kept)
        with pool.engine.connect() as connection:
            spans = sa.select(sa.func.count(sa.distinct(TraceSpan.trace_id)))
            assert connection.scalar(spans) == len(kept)
