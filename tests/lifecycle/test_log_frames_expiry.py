"""Frames of log records go and stay with the records that refer to them, not with spans."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
import sqlalchemy as sa

from observatory_storage import ingest_logs
from observatory_storage.lifecycle import partition_removal, retention
from observatory_storage.lifecycle.partition_removal import recover
from observatory_storage.lifecycle.retention_plan import total_bytes
from observatory_storage.lifecycle.run import Run
from observatory_storage.lifecycle.splitting import split_partitions
from observatory_storage.models import LogFrame
from observatory_storage.otlp.compression import zstd_module
from observatory_storage.pool import StoragePool
from tests import citus
from tests.lifecycle.days import DAY, noon, oddities, partitions, retain
from tests.lifecycle.full_month import DAYS, FIRST, Ending, make_month
from tests.lifecycle.full_month import NOW as MONTH_NOW
from tests.lifecycle.pools import pool_with, ranges
from tests.lifecycle.test_late_spans import before
from tests.payloads.framed import a_turn, frame_count, write
from tests.payloads.logged import (
    a_record,
    check_logs,
    framed_logs,
    log_frame_count,
    stored_logs,
    whole_logs,
    write_logs,
)

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


def test_frames_go_with_their_records_and_not_with_spans(
    pool: StoragePool, database_url: str
) -> None:
    write(pool, [a_turn(1, 1, noon(10))])
    write_logs(pool, [a_record(1, 1, noon(10)), a_record(2, 1, noon(1))])
    rows = whole_logs(pool)
    retain(pool, traces="3d")
    assert frame_count(pool) == 0
    assert (log_frame_count(pool), whole_logs(pool)) == (2, rows)
    planned = retain(pool, logs="3d", dry_run=True)
    assert [one.outcome for one in planned.partitions] == ["would go"] * 2
    result = retain(pool, logs="3d")
    assert [one.table for one in result.partitions] == ["logs", "log_frames"]
    assert [one.outcome for one in result.partitions] == ["dropped"] * 2
    assert check_logs(pool) > 0
    assert log_frame_count(pool) == 1
    assert len(partitions(database_url, "log_frames")) == 1
    assert oddities(database_url) == {}


def test_frames_of_late_records_are_put_back(
    pool: StoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_logs(pool, [a_record(1, 1, noon(10)), a_record(2, 1, noon(10))])
    late = [a_record(3, 1, noon(10))]
    dropped: list[str] = []
    original = partition_removal.remove

    def remove(run: Run, partition: object, archived: object = None) -> bool:
        name: str = partition.table  # type: ignore[attr-defined]
        if name == "log_frames":
            write_logs(pool, late)  # after the look for records
        dropped.append(name)
        return original(run, partition, archived)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(retention, "remove", remove)
        result = retain(pool, logs="3d")
    # The records that have come meanwhile go at the next attempt, and their frame with them.
    assert result.is_complete
    assert dropped[:2] == ["logs", "log_frames"]
    assert log_frame_count(pool) == framed_logs(pool)
    check_logs(pool)


def test_frames_stay_while_their_records_do(
    pool: StoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_logs(pool, [a_record(1, 1, noon(10))])
    again = [a_record(2, 1, noon(10))]
    rows: list[object] = []

    def look() -> None:
        write_logs(pool, again)
        rows.extend(whole_logs(pool))

    with before(monkeypatch, retention, "has_records", look) as called:
        retain(pool, logs="3d")
    assert called
    assert len(rows) == 1
    check_logs(pool)
    assert log_frame_count(pool) == framed_logs(pool)


def test_archived_records_have_their_values(pool: StoragePool, tmp_path: Path) -> None:
    write_logs(pool, [a_record(1, n, noon(10)) for n in (1, 2, 3)])
    rows = whole_logs(pool)
    result = retain(pool, logs="3d", archive=str(tmp_path))
    (file,) = result.archives
    assert file.items == 3
    assert log_frame_count(pool) == 0
    for line in zstd_module().decompress(file.path.read_bytes()).splitlines():
        ingest_logs(pool, line)
    names = ("attributes", "body_json", "timestamp")
    assert [[row[name] for name in names] for row in whole_logs(pool)] == [
        [row[name] for name in names] for row in rows
    ]


def test_a_killed_removal_is_completed(pool: StoragePool, monkeypatch: pytest.MonkeyPatch) -> None:
    write_logs(pool, [a_record(1, 1, noon(10))])

    class Killed(BaseException):
        pass

    def kill() -> None:
        raise Killed

    with before(monkeypatch, partition_removal, "_put_back_referred", kill), pytest.raises(Killed):
        retain(pool, logs="3d")
    recover(Run(pool))
    assert log_frame_count(pool) == 0
    with pool.engine.connect() as connection:
        left = connection.scalar(sa.text("SELECT count(*) FROM expired_partitions"))
    assert left == 0


def test_frames_count_in_the_size_that_is_kept(pool: StoragePool) -> None:
    write_logs(pool, [a_record(1, n, noon(10)) for n in range(1, 9)])
    before_frames = total_bytes(pool)
    with pool.engine.begin() as connection:
        connection.execute(sa.text("TRUNCATE log_frames"))
    assert total_bytes(pool) < before_frames


@citus.not_there("partitions are not split")
def test_records_and_frames_are_split_alike(database_url: str) -> None:
    with pool_with(database_url, split_rows=20) as pool:
        make_month(pool, "logs", "log_frames")
        write_logs(pool, [a_record(n, 1, FIRST + n * 6 * HOUR) for n in range(1, 80)])
        rows, values = whole_logs(pool), check_logs(pool)
        for done in range(1, 3):
            split = split_partitions(Run(pool, MONTH_NOW, Ending(3)))
            assert (len(split.split), split.is_complete) == (1, done == 2), split
            assert (check_logs(pool), whole_logs(pool)) == (values, rows)
        assert list(ranges(pool, "logs")) == DAYS
        assert list(ranges(pool, "log_frames")) == DAYS


def test_frames_at_the_bound_of_a_partition_within_their_hour_stay(pool: StoragePool) -> None:
    """Another program has made partitions that begin within an hour."""
    day = noon(10).replace(hour=0)
    half = noon(10) + 30 * MINUTE
    with pool.engine.begin() as connection:
        for table in ("logs", "log_frames"):
            for name, first, last in (("a", day, half), ("b", half, day + DAY)):
                connection.execute(
                    sa.text(
                        f"CREATE TABLE {table}_{name} PARTITION OF {table}"
                        f" FOR VALUES FROM ('{first:%Y-%m-%d %H\\:%M}+00')"
                        f" TO ('{last:%Y-%m-%d %H\\:%M}+00')"
                    )
                )
    write_logs(pool, [a_record(1, 1, half + MINUTE), a_record(2, 1, day)])
    with pool.engine.connect() as connection:
        assert noon(10) in connection.scalars(sa.select(LogFrame.start_time)).all()
    result = retain(pool, now=half + 3 * DAY, logs="3d")
    assert [(one.table, one.outcome) for one in result.partitions] == [("logs", "dropped")]
    assert [row["trace_id"] for row in stored_logs(pool)] == [UUID(int=1)]
    # The values of the other one stay with the frame's partition, until the hour is over.
    with pool.unit_of_work() as work:
        (record,) = work.logs.list()
    assert isinstance(record.attributes["gen_ai.input.messages"], list)
    retain(pool, now=half + 5 * DAY, logs="3d")
    assert (log_frame_count(pool), stored_logs(pool)) == (0, [])
