"""The frames of a trace and hour become one when their partition closes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta

import psycopg
import pytest
import sqlalchemy as sa

from observatory_storage.lifecycle.closing import close_partitions
from observatory_storage.lifecycle.frame_packing import give_back_space, pack_partition
from observatory_storage.lifecycle.run import Deadline, Run
from observatory_storage.lifecycle.splitting import split_partitions
from observatory_storage.models import PayloadFrame, TraceSpan
from observatory_storage.payloads import FrameKey, Member, insert_frames, owner_of, read_frames
from observatory_storage.pool import StoragePool
from tests import citus
from tests.lifecycle.days import oddities, partitions
from tests.lifecycle.pools import ranges, scalar
from tests.payloads.framed import START, a_text, a_turn, frame_count, turns, write
from tests.payloads.invariants import check_payloads, whole_rows
from tests.writers.helpers import quick_pool

_VERSIONS = sa.text("SELECT ctid::text, xmin::text FROM trace_spans ORDER BY 1, 2")


@pytest.fixture
def pool(database_url: str) -> Iterator[StoragePool]:
    with quick_pool(database_url) as pool:
        yield pool


def pack(pool: StoragePool, seconds: float | None = None) -> bool:
    url = pool.engine.url.render_as_string(hide_password=False).replace("+psycopg", "")
    run = Run(pool, deadline=Deadline(seconds))
    done = [pack_partition(run, name) for name in partitions(url, "payload_frames")]
    return all(done)


def data_bytes(pool: StoragePool) -> int:
    with pool.engine.connect() as connection:
        size = sa.select(sa.func.sum(sa.func.octet_length(PayloadFrame.data)))
        return int(connection.scalar(size) or 0)


def test_frames_become_one_and_no_row_is_written(pool: StoragePool) -> None:
    write(pool, *turns(range(1, 8), 6))
    values, rows, size = check_payloads(pool), whole_rows(pool), data_bytes(pool)
    assert frame_count(pool) == 7 * 6
    with pool.engine.connect() as connection:
        versions = connection.execute(_VERSIONS).all()
    assert pack(pool)
    assert frame_count(pool) == 7
    assert check_payloads(pool) == values
    assert whole_rows(pool) == rows
    assert data_bytes(pool) < size / 2
    with pool.engine.connect() as connection:
        assert connection.execute(_VERSIONS).all() == versions


def test_what_is_packed_is_left_alone_until_more_comes(pool: StoragePool) -> None:
    write(pool, *turns([1, 2], 3))
    assert pack(pool)
    versions = sa.text("SELECT ctid::text, packed_ids FROM payload_frames ORDER BY 1, 2")
    with pool.engine.connect() as connection:
        packed = connection.execute(versions).all()
    assert pack(pool)
    with pool.engine.connect() as connection:
        assert connection.execute(versions).all() == packed
    write(pool, [a_turn(1, 4)])
    rows = whole_rows(pool)
    assert frame_count(pool) == 3
    assert pack(pool)
    assert frame_count(pool) == 2
    check_payloads(pool)
    assert whole_rows(pool) == rows


def test_each_hour_keeps_a_frame(pool: StoragePool) -> None:
    write(pool, *turns([1], 3), *turns([1], 2, START + timedelta(hours=1)))
    assert pack(pool)
    assert frame_count(pool) == 2
    check_payloads(pool)


def test_a_replaced_span_leaves_a_packed_frame(pool: StoragePool) -> None:
    write(pool, *turns([1], 3))
    assert pack(pool)
    changed = a_turn(1, 2) | {"attributes": {"other": a_text(77)}, "events": []}
    write(pool, [changed])
    check_payloads(pool)
    write(pool, [a_turn(1, 2)], payloads="inline")
    check_payloads(pool)
    write(pool, [a_turn(1, 1)])  # again, and equal
    check_payloads(pool)
    assert frame_count(pool) == 1
    assert pack(pool)
    check_payloads(pool)


def test_large_frames_are_packed_into_several(pool: StoragePool) -> None:
    write(pool, *([a_turn(1, n, text=a_text(n, 600_000 * n))] for n in (1, 2, 3, 4)))
    rows = whole_rows(pool)
    assert pack(pool)
    check_payloads(pool)
    assert whole_rows(pool) == rows
    with pool.engine.connect() as connection:
        packed = sa.select(PayloadFrame.packed_ids).order_by(sa.desc(PayloadFrame.value_bytes))
        lengths = [len(found or ()) for found in connection.scalars(packed)]
    assert sum(lengths) + len(lengths) == 4
    assert 1 < len(lengths) < 4
    assert pack(pool)
    assert frame_count(pool) == len(lengths)


def test_garbage_is_left_out(pool: StoragePool) -> None:
    write(pool, *turns([1], 2))
    with pool.engine.begin() as connection:
        key = FrameKey(*connection.execute(sa.select(*PayloadFrame.__table__.c[:3]).limit(1)).one())
        nobody = Member(owner_of("f" * 16, START, 0), {"lost": b'"words of nobody"'})
        insert_frames(connection, {key._replace(id=7): [nobody]})
    assert pack(pool)
    assert check_payloads(pool) == 6
    assert frame_count(pool) == 1


def test_a_damaged_frame_stays_and_the_others_are_packed(
    pool: StoragePool, caplog: pytest.LogCaptureFixture
) -> None:
    write(pool, *turns([1, 2], 3))
    with pool.engine.begin() as connection:
        span = connection.execute(sa.select(TraceSpan).limit(1)).one()
        this = PayloadFrame.id == span.payload_frame
        connection.execute(sa.update(PayloadFrame).where(this).values(data=b"damaged"))
    assert pack(pool)
    assert f"payload frame {span.payload_frame} of trace {span.trace_id.hex}" in caplog.text
    with pool.engine.connect() as connection:
        keys = connection.execute(sa.select(*PayloadFrame.__table__.c[:3])).all()
        found = read_frames(connection, [FrameKey(*key) for key in keys])
    assert len(found) == 3
    assert [type(frame).__name__ for frame in found.values()].count("DamagedFrame") == 1


def test_closing_packs_first_and_goes_on_after_a_deadline(pool: StoragePool) -> None:
    write(pool, *turns([1, 2], 3))
    assert not pack(pool, seconds=0)
    assert frame_count(pool) == 6
    closed = close_partitions(Run(pool))
    assert closed.is_complete
    assert any(name.startswith("payload_frames_") for name in closed.closed)
    assert frame_count(pool) == 2
    check_payloads(pool)


@citus.not_there("partitions are not copied anew")
def test_the_space_of_packed_frames_is_given_back(pool: StoragePool, database_url: str) -> None:
    write(pool, *turns(range(1, 41), 12))
    rows = whole_rows(pool)
    (former,) = partitions(database_url, "payload_frames")
    assert pack(pool)
    size = scalar(pool, f"SELECT pg_table_size('{former}')")
    assert close_partitions(Run(pool)).is_complete
    (present,) = partitions(database_url, "payload_frames")
    assert present != former
    assert scalar(pool, f"SELECT pg_table_size('{present}')") < size / 2
    check_payloads(pool)
    assert whole_rows(pool) == rows
    assert oddities(database_url) == {}
    assert close_partitions(Run(pool)).closed == ()
    assert partitions(database_url, "payload_frames") == [present]


def test_frames_are_packed_in_a_schema_of_any_name(empty_database_url: str) -> None:
    with quick_pool(empty_database_url, schema="a \"%s:b'") as pool:
        pool.run_migrations()
        write(pool, *turns(range(1, 41), 12))
        assert close_partitions(Run(pool)).is_complete
        assert frame_count(pool) == 40


@citus.not_there("partitions are not copied anew")
def test_what_keeps_the_space_from_being_given_back_is_told(
    pool: StoragePool, database_url: str
) -> None:
    write(pool, *turns(range(1, 41), 12))
    assert pack(pool)
    ((name, held),) = ranges(pool, "payload_frames").items()
    former = f"payload_frames_{name}"
    told: list[str] = []
    with psycopg.connect(database_url) as reader:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        reader.execute("SELECT count(*) FROM traces")
        time.sleep(1.1)  # a transaction with a snapshot counts after a second
        give_back_space(Run(pool, progress=told.append), former, held)
    assert told[0].startswith(f"could not copy {former} anew yet: a transaction")
    assert partitions(database_url, "payload_frames") == [former]
    split_partitions(Run(pool))
    assert partitions(database_url, "payload_frames") != [former]
    check_payloads(pool)
    assert oddities(database_url) == {}
