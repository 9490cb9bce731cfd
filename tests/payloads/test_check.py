"""What is wrong with payload frames is told by name."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
import sqlalchemy as sa

from observatory_storage.lifecycle.closing import close_partitions
from observatory_storage.lifecycle.payload_check import check_payloads
from observatory_storage.lifecycle.run import Run
from observatory_storage.models import PayloadFrame, TraceSpan
from observatory_storage.payloads import FrameKey, Member, insert_frames, owner_of
from observatory_storage.pool import StoragePool
from tests.payloads.framed import START, turns, write
from tests.writers.helpers import quick_pool, trace_id

DAY = timedelta(days=1)


@pytest.fixture
def pool(database_url: str) -> Iterator[StoragePool]:
    with quick_pool(database_url) as pool:
        yield pool


def test_right_frames_have_no_problems(pool: StoragePool) -> None:
    write(pool, *turns(range(1, 4), 2), *turns([4], 2, START + timedelta(hours=1)))
    write(pool, *turns([5], 2), payloads="inline")
    checked = check_payloads(pool)
    assert (checked.frames, checked.values, checked.problems) == (8, 24, ())
    close_partitions(Run(pool))
    checked = check_payloads(pool)
    assert (checked.frames, checked.values, checked.problems) == (4, 24, ())
    later = check_payloads(pool, START + timedelta(hours=1))
    assert (later.frames, later.problems, later.next_start) == (1, (), None)


def test_problems_are_told_by_name(pool: StoragePool) -> None:
    write(pool, *turns([1, 2, 3, 4], 1))
    with pool.engine.begin() as connection:
        spans = connection.execute(sa.select(TraceSpan).order_by(TraceSpan.user_id)).all()
        frames = {span.user_id: PayloadFrame.id == span.payload_frame for span in spans}
        connection.execute(sa.update(PayloadFrame).where(frames["user-1"]).values(data=b"no"))
        connection.execute(sa.delete(PayloadFrame).where(frames["user-2"]))
        other = {"payload_digests": {"gen_ai.input.messages": "another"}}
        this = TraceSpan.user_id == "user-3"
        connection.execute(sa.update(TraceSpan).where(this).values(other))
        columns = PayloadFrame.__table__.c
        key = FrameKey(
            *connection.execute(sa.select(*columns[:3]).where(frames["user-4"])).one()
        )._replace(id=17)
        nobody = Member(owner_of("f" * 16, START, 0), {"lost": b'"word"'})
        insert_frames(connection, {key: [nobody]})
    checked = check_payloads(pool)
    found = {(one.trace_id.int, one.kind): one for one in checked.problems}
    ids = [span.trace_id.int for span in spans]
    assert found.keys() == {
        (ids[0], "damaged"),
        (ids[1], "missing"),
        (ids[2], "missing"),
        (ids[2], "garbage"),
        (ids[3], "garbage"),
    }
    assert [span.payload_frame for span in spans[:2]] == [
        found[ids[0], "damaged"].frame_id,
        found[ids[1], "missing"].frame_id,
    ]
    assert found[ids[1], "missing"].values == 3
    assert found[ids[3], "garbage"].message == (
        f"payload frame 17 of trace {trace_id(4)}, {START:%Y-%m-%d %H:00} UTC:"
        " no row refers to lost of span ffffffffffffffff"
    )
    assert "gen_ai.input.messages of span" in found[ids[2], "missing"].message


def test_a_check_goes_on_where_it_stopped(pool: StoragePool) -> None:
    days = 3
    write(pool, *(flush for day in range(days) for flush in turns([day + 1], 1, START + day * DAY)))
    parts = [check_payloads(pool, for_secs=0)]
    while (start := parts[-1].next_start) is not None:
        parts.append(check_payloads(pool, start, for_secs=0))
        assert parts[-1].next_start != start
    assert sum(part.frames for part in parts) == days
    assert len(parts) > 1
