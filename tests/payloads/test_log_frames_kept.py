"""Frames of log records live as long as the records that refer to them, and no longer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from observatory_storage import LogRecord, MigrationError, StoragePool, UnitOfWork, migrate
from observatory_storage.lifecycle.closing import close_partitions
from observatory_storage.lifecycle.payload_check import check_payloads
from observatory_storage.lifecycle.payload_conversion import convert_payloads
from observatory_storage.lifecycle.payload_index import index_payloads
from observatory_storage.lifecycle.run import Run
from observatory_storage.models import LogFrame, PayloadSegment
from observatory_storage.payloads import open_payloads, unpack
from tests.lifecycle.days import oddities, partitions
from tests.payloads.framed import START, a_text, turns, write
from tests.payloads.logged import (
    a_record,
    check_logs,
    framed_logs,
    log_frame_count,
    records,
    stored_logs,
    whole_logs,
    write_logs,
)
from tests.writers.helpers import quick_pool, trace_id

Erase = Callable[[UnitOfWork, int], Any]
HOUR = timedelta(hours=1)


@pytest.fixture
def pool(database_url: str) -> Iterator[StoragePool]:
    with quick_pool(database_url) as pool:
        yield pool


def content_of(record: LogRecord) -> str:
    """The text of a body that is an object."""
    content: str = (record.body_json or {})["content"]
    return content


def words_of(pool: StoragePool, trace: int) -> int:
    """In how many values of frames there is a word of this trace."""
    with pool.engine.connect() as connection:
        frames = [unpack(data) for data in connection.scalars(sa.select(LogFrame.data))]
    texts = (text for frame in frames for values in frame.values() for text in values.values())
    return sum(f"secret-{trace} ".encode() in text for text in texts)


@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize(
    "erase",
    [
        lambda uow, n: uow.traces.delete_user(f"user-{n}"),
        lambda uow, n: uow.traces.delete_session(f"session-{n}"),
        lambda uow, n: uow.traces.delete(trace_id(n)),
    ],
    ids=["user", "session", "trace"],
)
def test_no_frame_has_a_word_of_what_was_erased(
    pool: StoragePool, erase: Erase, is_packed: bool
) -> None:
    write(pool, *turns([2], 2))
    write_logs(pool, *records([1, 2, 3], 3))
    # A record of another trace that names the same user: its frame stays, without its values.
    as_second = a_record(2, 9)["attributes"]
    write_logs(pool, [a_record(4, 1), a_record(4, 2, attributes=as_second)])
    if is_packed:
        close_partitions(Run(pool))
    assert words_of(pool, 2) > 0
    with pool.unit_of_work() as uow:
        deleted = erase(uow, 2)
        uow.commit()
    is_trace = not hasattr(deleted, "traces")
    assert deleted.logs == (3 if is_trace else 4)
    assert words_of(pool, 2) == 0
    assert words_of(pool, 1) > 0
    check_logs(pool)
    assert framed_logs(pool) == (8 if is_trace else 7)


def test_an_erasure_during_packing_leaves_nothing(pool: StoragePool) -> None:
    """Log records may have no trace to lock: the deletion waits for the frames."""
    write_logs(pool, *records([1, 2], 4))
    started, done = threading.Event(), threading.Event()

    def erase() -> None:
        started.set()
        with pool.unit_of_work() as uow:
            uow.traces.delete(trace_id(2))
            uow.commit()
        done.set()

    with pool.engine.connect() as blocker, blocker.begin():
        frames = sa.select(LogFrame.id).where(LogFrame.trace_id == UUID(trace_id(2)))
        ids = list(blocker.scalars(frames.with_for_update()))
        thread = threading.Thread(target=erase)
        thread.start()
        assert started.wait(10)
        assert not done.wait(0.3)
        # As packing does: another frame takes over their keys.
        first = sa.select(LogFrame.__table__).where(LogFrame.id == ids[0])
        row = dict(blocker.execute(first).mappings().one())
        blocker.execute(sa.delete(LogFrame).where(LogFrame.id.in_(ids)))
        row |= {"id": 7, "packed_ids": ids}
        blocker.execute(sa.insert(LogFrame), [row])
    thread.join(20)
    assert done.is_set()
    assert words_of(pool, 2) == 0
    check_logs(pool)


def test_closing_packs_the_frames_of_a_trace_and_hour(pool: StoragePool, database_url: str) -> None:
    write_logs(pool, *records([1, 2], 6))
    rows, stored, values = whole_logs(pool), stored_logs(pool), check_logs(pool)
    assert log_frame_count(pool) == 12
    close_partitions(Run(pool))
    assert log_frame_count(pool) == 2
    assert (whole_logs(pool), stored_logs(pool), check_logs(pool)) == (rows, stored, values)
    assert oddities(database_url) == {}


def test_values_are_moved_into_frames_and_back(pool: StoragePool) -> None:
    write_logs(pool, *records([1, 2], 5), [a_record(None, 8)], payloads="inline")
    rows, stored = whole_logs(pool), stored_logs(pool)
    done = convert_payloads(pool, "compressed")
    assert (done.changed_rows, framed_logs(pool)) == (10, 10)
    check_logs(pool)
    assert whole_logs(pool) == rows
    assert convert_payloads(pool, "compressed").changed_rows == 0
    assert convert_payloads(pool, "inline").changed_rows == 10
    assert log_frame_count(pool) == 0
    assert stored_logs(pool) == stored
    assert whole_logs(pool) == rows


def test_a_damaged_frame_is_not_moved_and_is_named(
    pool: StoragePool, caplog: pytest.LogCaptureFixture
) -> None:
    write_logs(pool, *records([1, 2], 1))
    bad = stored_logs(pool)[0]
    with pool.engine.begin() as connection:
        this = LogFrame.id == bad["payload_frame"]
        connection.execute(sa.update(LogFrame).where(this).values(data=b"no"))
    done = convert_payloads(pool, "inline")
    assert (done.changed_rows, done.failed_rows) == (1, 1)
    name = f"log payload frame {bad['payload_frame']} of trace {trace_id(1)}"
    assert any(record.getMessage().startswith(name) for record in caplog.records)
    (problem,) = check_payloads(pool).problems
    assert (problem.kind, problem.trace_id) == ("damaged", UUID(trace_id(1)))
    assert problem.message.startswith(name)


def test_the_check_finds_missing_values_and_garbage(pool: StoragePool) -> None:
    write_logs(pool, *records([1, 2, 3], 1))
    with pool.engine.begin() as connection:
        connection.execute(sa.delete(LogFrame).where(LogFrame.trace_id == UUID(trace_id(1))))
        connection.execute(sa.delete(LogRecord).where(LogRecord.trace_id == UUID(trace_id(2))))
    problems = {problem.trace_id.int: problem for problem in check_payloads(pool).problems}
    assert {trace: one.kind for trace, one in problems.items()} == {1: "missing", 2: "garbage"}
    assert problems[1].message.endswith("it is missing")
    assert f"of log record {UUID(int=2001).hex}" in problems[2].message


def test_a_session_changes_and_deletes_records_with_frames(pool: StoragePool) -> None:
    write_logs(pool, *records([1], 4), [a_record(2, n) for n in (1, 3, 5)])
    with pool.unit_of_work() as uow:
        first, second, third, _ = uow.logs.get_by_trace(trace_id(1))
        first.attributes["turn"] = 17
        second.body_json = {"content": "short"}
        third.trace_id = UUID(trace_id(9))
        uow.commit()
    check_logs(pool)
    with pool.unit_of_work() as uow:
        (moved,) = uow.logs.get_by_trace(trace_id(9))
        first, second, _ = uow.logs.get_by_trace(trace_id(1))
        assert content_of(moved) == "secret-1 " + a_text(3)
        assert first.attributes["turn"] == 17
        assert content_of(first) == "secret-1 " + a_text(1)
        assert second.body_json == {"content": "short"}
        assert len(second.attributes["gen_ai.input.messages"]) == 2
    with Session(pool.engine) as session:
        of_second = sa.select(LogRecord).where(LogRecord.trace_id == UUID(trace_id(2)))
        one, other, last = session.scalars(of_second.order_by(LogRecord.timestamp))
        open_payloads([one], session)
        one.severity_text = "odd"
        other.severity_text = "odd"  # it has previews, and goes on referring to its frame
        session.delete(last)
        session.commit()
    check_logs(pool)
    assert framed_logs(pool) == 1 + 2
    with pool.unit_of_work() as uow:
        bodies = [content_of(row) for row in uow.logs.get_by_trace(trace_id(2))]
    assert bodies == ["secret-2 " + a_text(n) for n in (1, 3)]


def test_words_of_erased_records_are_forgotten(pool: StoragePool) -> None:
    write_logs(pool, *records([1, 2], 1))
    assert index_payloads(Run(pool)).rows == 2

    def keys() -> int:
        with pool.engine.connect() as connection:
            return connection.scalar(sa.select(sa.func.sum(PayloadSegment.key_count))) or 0

    assert keys() == 2
    with pool.unit_of_work() as uow:
        uow.traces.delete(trace_id(2))
        uow.commit()
    index_payloads(Run(pool))
    assert keys() == 1
    with pool.engine.begin() as connection:
        for name in ("logs", "log_frames"):
            connection.exec_driver_sql(f"TRUNCATE {name}")
    assert index_payloads(Run(pool)).removed_segments == 1


def test_frames_have_the_partitions_of_their_records(pool: StoragePool, database_url: str) -> None:
    write_logs(pool, [a_record(1, 1, START - n * 24 * HOUR) for n in range(3)])
    days = {name.removeprefix("logs") for name in partitions(database_url, "logs")}
    frames = {name.removeprefix("log_frames") for name in partitions(database_url, "log_frames")}
    assert days == frames
    assert len(days) == 3


def test_the_table_of_frames_is_not_dropped_while_it_has_values(pool: StoragePool) -> None:
    write_logs(pool, *records([1], 1))
    with pytest.raises(MigrationError, match="log_frames has values of log records"):
        migrate.downgrade(pool.engine, revision="0015")
    convert_payloads(pool, "inline")
    migrate.downgrade(pool.engine, revision="0015")
    migrate.upgrade(pool.engine)
    assert len(whole_logs(pool)) == 1
