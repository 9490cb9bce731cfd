"""Frames are read by one statement, and lose what no row refers to any more."""

from __future__ import annotations

import random
import uuid
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from observatory_storage import CopyWriter
from observatory_storage.models import PayloadFrame, TraceEvent, TraceSpan
from observatory_storage.payloads import (
    DamagedFrame,
    Frame,
    FrameKey,
    Member,
    digest_of,
    hour_of,
    insert_frames,
    new_frame_id,
    owner_of,
    pack,
    prune_frames,
    read_frames,
    references_to,
    unpack,
    zstd_module,
)
from observatory_storage.pool import StoragePool
from tests.writers.helpers import a_span

START = datetime(2026, 3, 1, 12, 30, 5, 17, tzinfo=UTC)
TEXT = b'"' + b"word " * 80 + b'"'


@pytest.fixture
def connection(pool: StoragePool) -> Iterator[sa.Connection]:
    for table in ("trace_spans", "trace_events", "payload_frames"):
        pool.partitions.ensure(table, [START, datetime(9999, 12, 31, 23, 30, tzinfo=UTC)])
    with pool.engine.begin() as connection:
        yield connection


def add_span(connection: sa.Connection, key: FrameKey, span_id: str, start: datetime) -> None:
    row = {"trace_id": key.trace_id, "span_id": span_id, "start_time": start, "start_ns": 3}
    digests = {"payload_frame": key.id, "payload_digests": {"prompt": digest_of(TEXT)}}
    named = {"name": "call", "service_name": "chat", "status": "ok"}
    connection.execute(sa.insert(TraceSpan), [{**row, **named, **digests}])


def add_event(connection: sa.Connection, key: FrameKey, span_id: str, start: datetime) -> None:
    span = {"trace_id": key.trace_id, "span_id": span_id, "span_start_time": start}
    row = {"span_start_ns": 3, "position": 0, "timestamp": start, "name": "told"}
    digests = {"payload_frame": key.id, "payload_digests": {"answer": digest_of(TEXT)}}
    connection.execute(sa.insert(TraceEvent), [{**span, **row, **digests}])


def a_frame(start: datetime = START) -> FrameKey:
    return FrameKey(uuid.uuid4(), hour_of(start), new_frame_id())


def test_hours_are_those_of_utc() -> None:
    half = datetime.fromisoformat("2026-03-01T05:45:00+05:30")
    assert hour_of(half) == datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize("level", [1, 6])
def test_an_image_that_calls_carry_along_is_compressed_once(level: int) -> None:
    image = b64encode(random.Random(3).randbytes(600_000))
    members = [
        Member(
            owner_of(f"{number:016x}", START, 0),
            {"prompt": b'"%b %b %b"' % (TEXT[1:-1] * number, image, TEXT[1:-1])},
        )
        for number in range(1, 6)
    ]
    data = pack(members, level)
    assert len(data) < 1.1 * len(image)
    assert unpack(data).members() == members


def test_calls_that_carry_an_image_along_share_frames(pool: StoragePool) -> None:
    image = b64encode(random.Random(4).randbytes(600_000)).decode()
    spans = [
        a_span(1, number, attributes={"gen_ai.input.messages": f"{number} {image} end {number}"})
        for number in range(1, 11)
    ]
    CopyWriter(pool, payloads="compressed").write_spans(spans)
    with pool.engine.connect() as connection:
        stored = connection.scalar(sa.select(sa.func.sum(sa.func.length(PayloadFrame.data))))
    assert stored < 2.5 * len(image)
    with pool.unit_of_work() as uow:
        for given, read in zip(spans, uow.traces.get_spans(spans[0]["trace_id"]), strict=True):
            assert read.attributes == given["attributes"]


def test_frames_are_read_by_one_statement_and_told_by_name(connection: sa.Connection) -> None:
    good, bad, missing = (a_frame() for _ in range(3))
    members = [Member(owner_of("a" * 16, START, 3), {"prompt": TEXT})]
    insert_frames(connection, {good: members, bad: members})
    connection.execute(
        sa.update(PayloadFrame).where(PayloadFrame.id == bad.id).values(data=b"damaged")
    )
    statements: list[str] = []
    sa.event.listen(
        connection, "before_cursor_execute", lambda _, __, text, *___: statements.append(text)
    )
    found = read_frames(connection, [good, bad, missing, good])
    assert len(statements) == 1
    assert isinstance(found[good], Frame)
    assert found[good] == {members[0].owner: {"prompt": TEXT}}
    for key, problem in ((bad, "damaged"), (missing, "missing")):
        error = found[key]
        assert isinstance(error, DamagedFrame)
        for part in (str(key.id), key.trace_id.hex, "2026-03-01 12:00 UTC", problem):
            assert part in str(error)
    assert read_frames(connection, []) == {}
    assert len(statements) == 1


@pytest.mark.parametrize(
    "content",
    ["hello", "null", "1", "[1]", "[[]]", "[{}]", '[["a",1,0,null,[["k",9]]]]', "[]more", "[7, "],
)
def test_data_that_are_no_frame_are_damaged(content: str) -> None:
    length = len(content.removesuffix("more")).to_bytes(4, "big")
    data = zstd_module().compress(length + content.encode())
    with pytest.raises(DamagedFrame, match="a payload frame is damaged"):
        unpack(data)


@pytest.mark.parametrize("wanted", [1, 2])
def test_other_frames_of_a_large_trace_are_not_read(connection: sa.Connection, wanted: int) -> None:
    first = a_frame()
    keys = [first, *(first._replace(id=new_frame_id()) for _ in range(9))]
    member = Member(owner_of("a" * 16, START, 3), {"prompt": TEXT})
    insert_frames(connection, {key: [member] for key in keys})
    counts: list[int] = []
    sa.event.listen(
        connection, "after_cursor_execute", lambda _, cursor, *__: counts.append(cursor.rowcount)
    )
    # A key for each row of a page.
    found = read_frames(connection, keys[:wanted] * 20)
    assert found == {key: {member.owner: member.values} for key in keys[:wanted]}
    assert counts == [wanted]


@pytest.mark.parametrize("start", [START, datetime(9999, 12, 31, 23, 30, tzinfo=UTC)])
def test_pruning_keeps_what_rows_refer_to(connection: sa.Connection, start: datetime) -> None:
    key, other = a_frame(start), a_frame(start)
    span, gone = owner_of("a" * 16, start, 3), owner_of("b" * 16, start, 3)
    event = owner_of("b" * 16, start, 3, 0)
    add_span(connection, key, span.span_id, start)
    add_event(connection, key, event.span_id, start)
    add_span(connection, other, gone.span_id, start)
    both = {"prompt": TEXT, "answer": TEXT}
    members = [Member(span, {**both, "prompt": TEXT + b" "}), Member(event, both)]
    insert_frames(connection, {key: [*members, Member(gone, both)], other: [Member(span, both)]})
    assert {each.owner for each in references_to(connection, [key])} == {span, event}
    prune_frames(connection, [key, other, a_frame()])
    found = read_frames(connection, [key, other])
    assert found[key] == {event: {"answer": TEXT}}
    assert "missing" in str(found[other])
    size = sa.select(PayloadFrame.value_bytes)
    assert connection.execute(size).scalars().all() == [len(TEXT)]


def test_a_damaged_frame_stays_while_rows_refer_to_it(
    connection: sa.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    key = a_frame()
    add_span(connection, key, "a" * 16, START)
    insert_frames(connection, {key: []})
    connection.execute(sa.update(PayloadFrame).values(data=b"damaged"))
    prune_frames(connection, [key])
    assert str(key.id) in caplog.text
    connection.execute(sa.delete(TraceSpan))
    prune_frames(connection, [key])
    assert connection.execute(sa.select(PayloadFrame.id)).all() == []


def test_spans_of_the_next_hour_do_not_refer_to_a_frame(connection: sa.Connection) -> None:
    key = a_frame()
    add_span(connection, key, "a" * 16, key.start_time + timedelta(hours=1))
    assert references_to(connection, [key]) == []


def test_a_frame_is_found_by_the_ids_that_it_has_taken_over(connection: sa.Connection) -> None:
    key = a_frame()
    first, second, gone = (key._replace(id=new_frame_id()) for _ in range(3))
    owners = [owner_of(letter * 16, START, 3) for letter in "abc"]
    for of, owner in zip((first, second), owners, strict=False):
        add_span(connection, of, owner.span_id, START)
    insert_frames(connection, {key: [Member(owner, {"prompt": TEXT}) for owner in owners]})
    packed = sa.update(PayloadFrame).values(packed_ids=[first.id, second.id])
    connection.execute(packed)
    found = read_frames(connection, [first, second, gone])
    assert found[first] is found[second]
    assert "missing" in str(found[gone])
    for change, kept in (
        (sa.false(), owners),
        (TraceSpan.payload_frame.is_(None), owners[:2]),
        (TraceSpan.payload_frame == first.id, owners[1:2]),
    ):
        connection.execute(sa.delete(TraceSpan).where(change))
        if kept != owners:
            prune_frames(connection, [first])
        frame = read_frames(connection, [second])[second]
        assert isinstance(frame, Frame)
        assert list(frame) == kept
