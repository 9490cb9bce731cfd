"""Whichever way spans and events are written, frames hold exactly what their rows refer to."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from observatory_storage import (
    CopyWriter,
    PayloadsConfig,
    PostgresConfig,
    StorageConfig,
    StoragePool,
    TraceWriter,
    WriterConfig,
)
from observatory_storage.config import PoolConfig
from observatory_storage.models import PayloadFrame
from observatory_storage.payloads import FULL_FRAME_BYTES
from tests.payloads.invariants import check_payloads, framed_rows, whole_rows
from tests.writers.helpers import (
    QUICK,
    START,
    a_span,
    an_event,
    contents,
    count,
    empty,
    event,
    fetch,
)

LONG = "It was the best of times, it was the worst of times. " * 60


def pool_in(url: str, mode: Any) -> StoragePool:
    return StoragePool(
        StorageConfig(
            postgres=PostgresConfig.from_url(url),
            pool=PoolConfig(min_connections=0),
            retry=QUICK,
            payloads=PayloadsConfig(mode=mode),
        )
    )


@pytest.fixture
def compressed(database_url: str) -> Iterator[StoragePool]:
    with pool_in(database_url, "compressed") as pool:
        yield pool


def a_call(trace: int = 1, number: int = 1, text: str = LONG, **columns: Any) -> dict[str, Any]:
    """A span of a model call with a long prompt, a long list, and an event with a long answer."""
    attributes = {
        "prompt": f"{number} {text}",
        "messages": [{"role": "user", "content": text, "n": [1, 1.0, None]}],
        "model": "m",
    }
    events = [event("answer", attributes={"text": f"{text} {number}"}), event("end")]
    return a_span(trace, number, **{"attributes": attributes, "events": events, **columns})


def calls(count: int = 250) -> list[dict[str, Any]]:
    """Calls of several traces, some of them in two hours, and some spans without large values."""
    return [
        a_span(1 + number % 9, number, attributes={"n": number})
        if number % 5 == 0
        else a_call(
            1 + number % 9,
            number,
            start_time=START + timedelta(minutes=number % 90),
            end_time=None if number % 7 == 0 else START + timedelta(hours=3),
            start_ns=number % 3,
        )
        for number in range(1, count + 1)
    ]


def buffered(pool: StoragePool, spans: list[dict[str, Any]]) -> None:
    with TraceWriter(pool, WriterConfig(batch_size=100)) as writer:
        writer.write_spans(spans)


def one_by_one(pool: StoragePool, spans: list[dict[str, Any]]) -> None:
    writer = CopyWriter(pool)
    for span in spans:
        writer.write_spans([span])


def in_a_unit(pool: StoragePool, spans: list[dict[str, Any]]) -> None:
    with pool.unit_of_work() as uow:
        CopyWriter(uow).write_spans(spans[::2])
        CopyWriter(uow, method="insert").write_spans(spans[1::2])
        uow.commit()


def after_their_starts(pool: StoragePool, spans: list[dict[str, Any]]) -> None:
    """Each span is sent twice: first without an end, and with other values."""
    begun = [
        {**span, "end_time": None, "attributes": {**span["attributes"], "early": LONG + "!"}}
        for span in spans
    ]
    CopyWriter(pool).write_spans(begun)
    CopyWriter(pool).write_spans(spans)


def with_lone_events(pool: StoragePool, spans: list[dict[str, Any]]) -> None:
    """Events come first, by themselves, and other versions of them too."""
    events = [
        {
            **one,
            "trace_id": span["trace_id"],
            "span_id": span["span_id"],
            "span_start_time": span["start_time"],
            "span_start_ns": span.get("start_ns", 0),
            "position": position,
        }
        for span in spans
        for position, one in enumerate(span.get("events", ()))
    ]
    others = [{**one, "attributes": {"text": "another " + LONG}} for one in events]
    CopyWriter(pool).write_events(others)
    CopyWriter(pool).write_events(events[::2])
    with TraceWriter(pool) as writer:
        for one in events[:20]:
            writer.write_event(one)
        writer.write_spans(spans)
        for one in events[20:60]:
            writer.write_event(one)


WAYS: dict[str, Callable[[StoragePool, list[dict[str, Any]]], object]] = {
    "copy": lambda pool, spans: CopyWriter(pool, method="copy").write_spans(spans),
    "insert": lambda pool, spans: CopyWriter(pool, method="insert").write_spans(spans),
    "few at a time": lambda pool, spans: [
        CopyWriter(pool).write_spans(spans[start : start + 30])
        for start in range(0, len(spans), 30)
    ],
    "one by one": one_by_one,
    "buffered": buffered,
    "unit of work": in_a_unit,
    "twice": lambda pool, spans: [CopyWriter(pool).write_spans(spans) for _ in range(2)],
    "after their starts": after_their_starts,
    "with lone events": with_lone_events,
}


@pytest.mark.parametrize("way", WAYS)
def test_both_modes_store_the_same(pool: StoragePool, compressed: StoragePool, way: str) -> None:
    spans = calls(60 if way == "one by one" else 250)
    WAYS[way](pool, spans)
    expected = whole_rows(pool)
    assert check_payloads(pool) == 0
    empty(pool)
    WAYS[way](compressed, spans)
    assert whole_rows(compressed) == expected
    large = [span for span in spans if span.get("events")]
    assert framed_rows(compressed) == 2 * len(large)
    assert check_payloads(compressed) == 3 * len(large)


def test_a_frame_has_a_trace_and_an_hour(compressed: StoragePool) -> None:
    CopyWriter(compressed).write_spans(calls())
    with compressed.engine.connect() as connection:
        frames = connection.execute(sa.select(PayloadFrame.trace_id, PayloadFrame.start_time)).all()
    hours = {(number, hour) for number in range(9) for hour in range(2)}
    assert len(frames) == len(set(frames)) == len(hours)


def test_traces_that_go_on_have_several_frames_of_bounded_size(compressed: StoragePool) -> None:
    text = LONG * 160
    spans = [a_span(1, number, attributes={"text": f"{number}{text}"}) for number in range(1, 41)]
    CopyWriter(compressed).write_spans(spans)
    sizes = [row["value_bytes"] for row in fetch(compressed, PayloadFrame)]
    assert len(sizes) > 2
    assert max(sizes) < FULL_FRAME_BYTES + len(text) + 100
    assert check_payloads(compressed) == len(spans)


def test_written_again_nothing_changes(compressed: StoragePool) -> None:
    CopyWriter(compressed).write_spans(calls())
    before = contents(compressed)
    for method in ("copy", "insert"):
        CopyWriter(compressed, method=method).write_spans(calls())
    buffered(compressed, calls())
    after = contents(compressed)
    assert after.pop("span_changes") == before.pop("span_changes")
    assert after == before


def test_replaced_values_leave_their_frame(compressed: StoragePool) -> None:
    writer = CopyWriter(compressed)
    writer.write_spans(calls())
    changed = [a_call(3, 2, "another text " * 300), a_call(2, 1, "short")]
    changed[0]["start_time"] = START + timedelta(minutes=2)
    changed[0]["start_ns"] = 2
    changed[0]["end_time"] = START + timedelta(hours=3)
    before = count(compressed, "trace_spans")
    writer.write_spans(changed)
    assert count(compressed, "trace_spans") == before + 1
    assert check_payloads(compressed) == 3 * 200
    with compressed.engine.connect() as connection:
        data = connection.execute(sa.select(PayloadFrame.data)).scalars().all()
    assert data


@pytest.mark.parametrize("method", ["copy", "insert"])
def test_an_inline_writer_replaces_framed_rows(compressed: StoragePool, method: Any) -> None:
    CopyWriter(compressed).write_spans(calls())
    expected = whole_rows(compressed)
    inline = CopyWriter(compressed, method=method, payloads="inline")
    inline.write_spans(calls()[:100])
    assert check_payloads(compressed) == 3 * 120
    assert whole_rows(compressed) == expected
    inline.write_spans(calls())
    assert check_payloads(compressed) == 0
    assert count(compressed, "payload_frames") == 0
    assert whole_rows(compressed) == expected


def test_an_unended_version_does_not_replace_an_ended_one(compressed: StoragePool) -> None:
    ended = a_call(text=LONG)
    CopyWriter(compressed).write_spans([ended])
    expected = whole_rows(compressed)
    begun = {**ended, "end_time": None, "attributes": {"prompt": "begun " + LONG}, "events": []}
    CopyWriter(compressed).write_spans([begun])
    assert whole_rows(compressed) == expected
    assert check_payloads(compressed) == 3


def test_events_are_replaced_and_removed(compressed: StoragePool) -> None:
    writer = CopyWriter(compressed)
    writer.write_spans([a_call()])
    other = [event("answer", attributes={"text": LONG + "?"})]
    writer.write_spans([a_call(events=other)])
    assert check_payloads(compressed) == 3
    assert count(compressed, "trace_events") == 1
    writer.write_events([an_event(attributes={"text": "short"})])
    assert check_payloads(compressed) == 2
    writer.write_events([an_event(attributes={"text": LONG})])
    assert check_payloads(compressed) == 3
    writer.write_spans([a_call(events=[])])
    assert check_payloads(compressed) == 2


def test_of_versions_in_a_batch_the_last_is_stored(compressed: StoragePool) -> None:
    versions = [a_call(text=f"{number} {LONG}") for number in range(3)]
    lone = [an_event(position=9, attributes={"text": f"{n} {LONG}"}) for n in range(3)]
    with TraceWriter(compressed) as writer:
        writer.write_spans(versions)
        for one in lone:
            writer.write_event(one)
    (span,) = whole_rows(compressed)["trace_spans"]
    assert json.loads(span[2]["attributes"])["prompt"] == f"1 2 {LONG}"
    assert check_payloads(compressed) == 4


def test_refused_rows_leave_nothing(compressed: StoragePool) -> None:
    refused: list[Any] = []
    spans = [a_call(1, number) for number in range(1, 41)]
    spans[17]["name"] = "bad"
    with compressed.engine.begin() as connection:
        check = "ALTER TABLE trace_spans ADD CONSTRAINT refused CHECK (name <> 'bad')"
        connection.exec_driver_sql(check)
    config = WriterConfig(on_rejected=lambda row, error: refused.append(row))
    with TraceWriter(compressed, config) as writer:
        writer.write_spans(spans)
    assert [row["span_id"] for row in refused] == [spans[17]["span_id"]]
    assert refused[0]["attributes"]["prompt"] == spans[17]["attributes"]["prompt"]
    assert check_payloads(compressed) == 3 * 39


def test_spans_around_midnight_have_frames_of_their_days(compressed: StoragePool) -> None:
    midnight = datetime(2026, 3, 15, tzinfo=UTC)
    for far in (midnight, datetime(1905, 1, 1, tzinfo=UTC), datetime(2950, 1, 1, tzinfo=UTC)):
        spans = [
            a_call(1, number, start_time=far + timedelta(seconds=number - 3), end_time=None)
            for number in range(1, 7)
        ]
        CopyWriter(compressed).write_spans(spans)
    assert check_payloads(compressed) == 3 * 18
    with compressed.engine.connect() as connection:
        twins = connection.execute(
            sa.text(
                # The name of a shard ends in its number.
                "SELECT DISTINCT substring(s.tableoid::regclass::text, '_spans_([^_]+)'),"
                " substring(f.tableoid::regclass::text, '_frames_([^_]+)')"
                " FROM trace_spans s JOIN payload_frames f"
                " ON f.trace_id = s.trace_id AND f.id = s.payload_frame"
            )
        ).all()
    assert all(spans == frames for spans, frames in twins)


def test_rows_read_by_a_repository_are_written_again(compressed: StoragePool) -> None:
    CopyWriter(compressed).write_spans([a_call(1, number) for number in range(1, 4)])
    expected = whole_rows(compressed)
    (trace,) = expected["traces"]
    with compressed.unit_of_work() as uow:
        spans = uow.traces.get_spans(trace["id"])
    for span in spans:
        # As a caller has it who knows the whole values.
        number = int(span.span_id, 16)
        given = {**span, **{k: a_call(1, number)[k] for k in ("attributes", "events")}}
        CopyWriter(compressed).write_spans([given])
    assert whole_rows(compressed) == expected
    assert check_payloads(compressed) == 9
