"""Words are found wherever frames have gone, and are forgotten with the values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from observatory_storage import SpanFilters, StoragePool, TraceFilters
from observatory_storage.lifecycle import retention
from observatory_storage.lifecycle.closing import close_partitions
from observatory_storage.lifecycle.payload_conversion import convert_payloads
from observatory_storage.lifecycle.payload_index import index_payloads
from observatory_storage.lifecycle.run import Run
from observatory_storage.models import (
    PayloadFrame,
    PayloadSegment,
    PayloadUnindexed,
    PayloadWords,
)
from observatory_storage.payloads.word_blocks import keys_of, read_block
from tests.lifecycle.days import DAY, HOUR, noon, retain
from tests.lifecycle.test_late_spans import before
from tests.payloads.framed import START, a_turn, frame_count, turns, write
from tests.payloads.invariants import check_payloads, framed_rows
from tests.writers.helpers import quick_pool, span_id, trace_id


@pytest.fixture
def pool(database_url: str) -> Iterator[StoragePool]:
    with quick_pool(database_url) as pool:
        yield pool


def with_word(word: str, trace: int, number: int, **place: Any) -> dict[str, Any]:
    """A span with a word beyond the previews of its prompt and of its event's answer."""
    text = "the river and the stone " * 30 + f"{word}. " + "and so on " * 300
    row = a_turn(trace, number, **place)
    row["attributes"]["gen_ai.input.messages"] = [{"role": "user", "content": text}]
    row["events"][0] = {**row["events"][0], "attributes": {"gen_ai.completion": f"{text} {word}2"}}
    return row


def found(pool: StoragePool, text: str) -> list[str]:
    """The spans with a word, by every way to ask for them."""
    with pool.unit_of_work() as uow:
        spans = sorted(span.span_id for span in uow.traces.list_spans(SpanFilters(text=text)))
        traces = uow.traces.list(TraceFilters(text=text))
        assert {trace.id for trace in traces} == {
            span.trace_id for span in uow.traces.list_spans(SpanFilters(text=text))
        }
        bounds: dict[str, Any] = {"start_time": START - 30 * DAY, "end_time": START + 30 * DAY}
        questions: tuple[dict[str, Any], ...] = ({"text": text}, {"contains": text})
        for given in questions:
            filters = SpanFilters(**given, **bounds)
            ordered = uow.traces.list_spans(filters, order_by="-total_tokens")
            assert sorted(span.span_id for span in ordered) == spans
            assert uow.traces.list_spans(filters, total="exact").total == len(spans)
    return spans


def index(pool: StoragePool) -> None:
    assert index_payloads(Run(pool)).is_complete
    with pool.engine.connect() as connection:
        assert not connection.scalars(sa.select(PayloadUnindexed.id)).all()
        segments = connection.scalars(sa.select(PayloadSegment.hours)).all()
        frames = sa.select(PayloadFrame.trace_id, PayloadFrame.start_time)
        hours = set(map(tuple, connection.execute(frames)))
    assert {tuple(key) for hours in segments for key in keys_of(hours)} == hours


def words(pool: StoragePool) -> set[str]:
    with pool.engine.connect() as connection:
        blocks = connection.scalars(sa.select(PayloadWords.data)).all()
    return {word for data in blocks for word, _ in read_block(data)}


@pytest.mark.parametrize("first", ["indexed", "noted"])
def test_words_are_found_after_packing(pool: StoragePool, first: str) -> None:
    write(pool, [with_word("zebra", 1, 1)], [with_word("lynx", 1, 2)], [with_word("zebra", 1, 3)])
    if first == "indexed":
        index(pool)
    assert close_partitions(Run(pool)).is_complete
    assert frame_count(pool) == 1
    for _ in range(2):
        assert found(pool, "zebra") == found(pool, "zebra2") == [span_id(1), span_id(3)]
        assert found(pool, "lynx") == [span_id(2)]
        assert found(pool, "lion") == []
        index(pool)
    assert {"zebra", "zebra2", "lynx", "lynx2"} <= words(pool)
    write(pool, [with_word("lion", 1, 2)])
    for _ in range(2):
        assert found(pool, "lynx") == []
        assert found(pool, "lion") == [span_id(2)]
        assert found(pool, "zebra") == [span_id(1), span_id(3)]
        index(pool)
    assert "zebra" in words(pool)
    assert not {"lynx", "lynx2"} & words(pool)
    check_payloads(pool)


def test_words_are_found_in_frames_and_rows_of_one_partition(pool: StoragePool) -> None:
    write(pool, [with_word("zebra", 1, 1)])
    write(pool, [with_word("zebra", 2, 2)], payloads="inline")
    # Where no row has a frame, one statement reads traces and searches the indexes.
    bounds: dict[str, Any] = {"start_time": START - HOUR, "end_time": START + HOUR}
    for _ in range(2):
        with pool.unit_of_work() as uow:
            found = uow.traces.list(TraceFilters(text="zebra", **bounds))
            assert {trace.trace_id for trace in found} == {trace_id(1), trace_id(2)}
            without = TraceFilters(text="river -zebra", **bounds)
            assert not uow.traces.list(without)
        index(pool)


def test_words_are_found_after_conversion(pool: StoragePool) -> None:
    write(pool, [with_word("zebra", 1, 1), with_word("lynx", 2, 2)], payloads="inline")
    assert found(pool, "zebra") == [span_id(1)]
    convert_payloads(pool, "compressed")
    assert framed_rows(pool) == 4
    for _ in range(2):
        assert found(pool, "zebra") == found(pool, "zebra2") == [span_id(1)]
        index(pool)
    assert close_partitions(Run(pool)).is_complete
    convert_payloads(pool, "inline")
    assert framed_rows(pool) == 0
    for _ in range(2):
        assert found(pool, "zebra") == found(pool, "zebra2") == [span_id(1)]
        assert found(pool, "lynx") == [span_id(2)]
        index(pool)
    assert not words(pool)


@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize(
    "erase",
    [
        lambda uow: uow.traces.delete_user("user-1"),
        lambda uow: uow.traces.delete_session("session-1"),
        lambda uow: uow.traces.delete(trace_id(1)),
    ],
    ids=["user", "session", "trace"],
)
def test_words_are_forgotten_after_erasure(
    pool: StoragePool, erase: Callable[[Any], Any], is_packed: bool
) -> None:
    write(pool, [with_word("zebra", 1, 1), with_word("lynx", 2, 2)], [with_word("zebra", 1, 3)])
    index(pool)
    if is_packed:
        assert close_partitions(Run(pool)).is_complete
    with pool.unit_of_work() as uow:
        assert erase(uow).spans == 2
        uow.commit()
    for _ in range(2):
        assert found(pool, "zebra") == found(pool, "zebra2") == []
        assert found(pool, "lynx") == [span_id(2)]
        index(pool)
    assert "lynx" in words(pool)
    assert not {"zebra", "zebra2"} & words(pool)


def test_words_of_one_span_are_forgotten_while_its_hour_stays(pool: StoragePool) -> None:
    write(pool, [with_word("zebra", 1, 1), with_word("lynx", 1, 2)])
    index(pool)
    write(pool, [with_word("lion", 1, 1)], payloads="inline")
    index(pool)
    assert found(pool, "zebra") == []
    assert found(pool, "lion") == [span_id(1)]
    assert found(pool, "lynx") == [span_id(2)]
    assert {"lynx", "lynx2"} <= words(pool)
    assert not {"zebra", "zebra2"} & words(pool)


def test_words_of_spared_traces_stay_and_others_go(pool: StoragePool) -> None:
    write(
        pool,
        [with_word("zebra", 1, 1, start=noon(10)), with_word("lynx", 2, 2, start=noon(10))],
        [with_word("lion", 3, 3, start=noon(1)), with_word("lynx", 2, 4, start=noon(10) + HOUR)],
    )
    with pool.unit_of_work() as uow:
        uow.traces.pin(trace_id(2))
        uow.commit()
    index(pool)
    assert retain(pool, traces="3d").partitions
    for _ in range(2):
        assert found(pool, "zebra") == []
        assert found(pool, "lynx") == [span_id(2), span_id(4)]
        assert found(pool, "lion") == [span_id(3)]
        index(pool)
    assert {"lynx", "lion"} <= words(pool)
    assert "zebra" not in words(pool)


def test_words_of_late_spans_are_found_after_their_frames_were_away(
    pool: StoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(pool, [with_word("zebra", 1, n, start=noon(10)) for n in (1, 2, 3)])
    index(pool)
    again = [with_word("lynx", 1, n, start=noon(10)) for n in (2, 3)]
    with before(monkeypatch, retention, "remove", lambda: write(pool, again)) as called:
        retain(pool, traces="3d")
    assert called
    for _ in range(2):
        assert found(pool, "lynx") == [span_id(2), span_id(3)]
        assert found(pool, "zebra") == []
        index(pool)
    assert "zebra" not in words(pool)
    check_payloads(pool)


def test_rows_are_counted_rather_than_notes_of_flushes(pool: StoragePool) -> None:
    write(pool, *turns([1], 3))
    with pool.engine.connect() as connection:
        assert len(connection.scalars(sa.select(PayloadUnindexed.id)).all()) == 3
    assert index_payloads(Run(pool)).rows == framed_rows(pool) == 6
