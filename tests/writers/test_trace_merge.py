"""A trace is what its spans say, exactly, whatever comes in which order and how often."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from typing import Any, Literal

import pytest

from observatory_storage import ids
from observatory_storage.models import Trace, TraceEvent, TraceSpan
from observatory_storage.pool import StoragePool
from observatory_storage.rows import prepare_span, prepare_trace
from observatory_storage.writers import CopyWriter, TraceWriter, WriterConfig, store
from tests.writers.helpers import (
    ONCE,
    START,
    Row,
    a_span,
    a_trace,
    an_event,
    contents,
    fetch,
    quick_pool,
    span_id,
    trace_id,
)
from tests.writers.trace_model import check_traces

Method = Literal["auto", "insert", "copy"]
METHODS: tuple[Method, ...] = ("insert", "copy")
LATER = START + timedelta(minutes=1)


def pair(**columns: Any) -> tuple[Row, Row]:
    """A span that will be replaced, and another of its trace that stays."""
    return (
        a_span(1, 1, **{"parent_span_id": "00000000000000aa", **columns}),
        a_span(1, 2, parent_span_id="00000000000000aa", total_tokens=1, total_cost_usd=1),
    )


REPLACEMENTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a greater end": ({}, {"end_time": LATER}),
    "a smaller end": ({"end_time": LATER}, {"end_time": START + timedelta(seconds=2)}),
    "an end at last": ({"end_time": None}, {"end_time": LATER}),
    "a weaker status": ({"status": "error"}, {"status": "unset"}),
    "a stronger status": ({"status": "unset"}, {"status": "error"}),
    "no parent": ({}, {"parent_span_id": None, "name": "root", "service_name": "web"}),
    "a parent": ({"parent_span_id": None, "name": "root"}, {"parent_span_id": "0" * 15 + "b"}),
    "another name": ({"name": "before"}, {"name": "after"}),
    "another service": ({"service_name": "before"}, {"service_name": "after"}),
    "tokens at last": ({}, {"total_tokens": 5, "total_cost_usd": "0.5"}),
    "other tokens": (
        {"total_tokens": 5, "total_cost_usd": "0.5"},
        {"total_tokens": 2, "total_cost_usd": "0.1"},
    ),
    "no tokens any more": ({"total_tokens": 5, "total_cost_usd": "0.5"}, {}),
    "zero tokens": ({"total_tokens": 5}, {"total_tokens": 0}),
    "nothing that a trace knows": ({}, {"attributes": {"a": 1}}),
}


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "beside another"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("change", REPLACEMENTS)
def test_a_span_sent_again_replaces_the_stored_one(
    pool: StoragePool, change: str, method: Method, alone: bool
) -> None:
    before, after = REPLACEMENTS[change]
    span, other = pair(**before)
    writer = CopyWriter(pool, method=method)
    writer.write_spans([span] if alone else [span, other])
    check_traces(pool)
    writer.write_spans([{**a_span(1, 1, parent_span_id="00000000000000aa"), **after}])
    check_traces(pool)
    stored = {row["span_id"]: row for row in fetch(pool, TraceSpan)}
    assert len(stored) == 2 - alone
    for column, value in after.items():
        got = stored[span_id(1)][column]
        assert got == (Decimal(value) if isinstance(got, Decimal) else value)


@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "one by one"])
@pytest.mark.parametrize("method", METHODS)
def test_an_ended_span_is_never_replaced_by_an_unended_one(
    pool: StoragePool, method: Method, together: bool
) -> None:
    ended = a_span(name="ended", events=[{"name": "kept", "timestamp": START}])
    unended = a_span(name="unended", end_time=None, status="error", events=[])
    for batch in [[ended, unended]] if together else [[ended], [unended]]:
        CopyWriter(pool, method=method).write_spans(batch)
    (span,) = fetch(pool, TraceSpan)
    assert span["name"] == "ended"
    assert [event["name"] for event in fetch(pool, TraceEvent)] == ["kept"]
    check_traces(pool)


@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "one by one"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("ended", [True, False], ids=["ended first", "ended last"])
def test_events_stay_where_their_span_comes_again_without_any_said(
    pool: StoragePool, method: Method, together: bool, ended: bool
) -> None:
    spans = [
        a_span(end_time=START + timedelta(minutes=5) if ended else None, events=[event("kept")]),
        a_span(name="again"),
    ]
    for batch in [spans] if together else [[span] for span in spans]:
        CopyWriter(pool, method=method).write_spans(batch)
    assert [row["name"] for row in fetch(pool, TraceEvent)] == ["kept"]
    assert [row["name"] for row in fetch(pool, TraceSpan)] == ["again"]


def event(name: str, **columns: Any) -> Row:
    return {"name": name, "timestamp": START, **columns}


@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "one by one"])
@pytest.mark.parametrize("method", METHODS)
def test_events_are_replaced_with_their_span(
    pool: StoragePool, method: Method, together: bool
) -> None:
    other = a_span(1, 2, events=[event("of another span")])
    versions = [
        a_span(events=[event("a"), event("b"), event("c")]),
        a_span(events=[event("a"), event("changed")]),
        a_span(events=[event("a"), event("changed"), event("new")]),
    ]
    writer = CopyWriter(pool, method=method)
    batches = [[other, *versions]] if together else [[other, versions[0]], *zip(versions[1:])]
    for batch in batches:
        writer.write_spans(batch)
    names = [row["name"] for row in fetch(pool, TraceEvent)]
    assert names == ["a", "changed", "new", "of another span"]
    writer.write_spans([a_span(events=[])])
    assert [row["name"] for row in fetch(pool, TraceEvent)] == ["of another span"]


def test_events_that_stay_as_they_are_are_not_touched(pool: StoragePool) -> None:
    writer = CopyWriter(pool)
    writer.write_spans([a_span(events=[event("a", attributes={"n": 1}), event("b"), event("c")])])
    before = {row["position"]: row for row in fetch(pool, TraceEvent)}
    physical = _places(pool)
    writer.write_spans(
        [a_span(name="x", events=[event("a", attributes={"n": 1}), event("b2"), event("c")])]
    )
    after = {row["position"]: row for row in fetch(pool, TraceEvent)}
    assert {at for at in before if before[at] != after[at]} == {1}
    places = _places(pool)
    assert (places[0], places[2]) == (physical[0], physical[2])
    assert places[1] != physical[1]


def _places(pool: StoragePool) -> dict[int, str]:
    """Where the rows of events stand: another place is another version of the row."""
    with pool.engine.connect() as connection:
        return {
            position: place
            for position, place in connection.exec_driver_sql(
                "SELECT position, ctid::text FROM trace_events"
            )
        }


def test_one_span_id_with_two_starts_is_two_spans(pool: StoragePool) -> None:
    """Of another service, or corrected: also where only nanoseconds tell them apart."""
    first = a_span(total_tokens=1)
    spans = [
        first,
        {**first, "start_ns": 1, "service_name": "other"},
        {**first, "start_time": START, "end_time": LATER},
    ]
    for batch in (spans[:1], spans[1:], spans):
        CopyWriter(pool).write_spans(batch)
    assert len(fetch(pool, TraceSpan)) == 3
    assert check_traces(pool) == 1
    assert fetch(pool, Trace)[0]["total_tokens"] == 3


def test_costs_of_many_digits_add_up_exactly(pool: StoragePool) -> None:
    costs = ["123456789012345678901234567890.1", "0.0000000000000000000000000000000000001", "1E-60"]
    for batch in ([0, 1], [2], [1, 2]):
        CopyWriter(pool).write_spans(
            [a_span(1, 1 + at, total_cost_usd=costs[at], name=str(batch)) for at in batch]
        )
        check_traces(pool)
    (trace,) = fetch(pool, Trace)
    assert trace["total_cost_usd"] == Decimal(
        "123456789012345678901234567890.100000000000000000000000000000000000100000000000000000000001"
    )


def test_absurd_numbers_of_tokens_do_not_cost_their_spans(pool: StoragePool) -> None:
    most = 2**63 - 1
    for numbers in ((1, 2), (3,), (1, 4)):
        CopyWriter(pool).write_spans(
            [a_span(1, number, total_tokens=most, name=str(numbers)) for number in numbers]
        )
    assert len(fetch(pool, TraceSpan)) == 4
    (trace,) = fetch(pool, Trace)
    assert (trace["span_count"], trace["total_tokens"]) == (4, most)


@pytest.mark.parametrize("method", METHODS)
def test_write_trace_fills_only_what_no_span_says(pool: StoragePool, method: Method) -> None:
    said = a_trace(
        service_name="of the trace",
        start_time=LATER,
        end_time=LATER + timedelta(hours=1),
        status="error",
        root_span_name="of the trace",
        span_count=99,
        error_count=99,
        total_tokens=99,
        total_cost_usd=99,
        status_message="said",
        attributes={"said": True},
        resource_attributes={"said": 1},
    )
    writer = CopyWriter(pool, method=method)
    orders: dict[int, tuple[Callable[[int], Any], ...]] = {
        1: (lambda n: writer.write_traces([{**said, "trace_id": trace_id(n)}]), write_pair(writer)),
        2: (write_pair(writer), lambda n: writer.write_traces([{**said, "trace_id": trace_id(n)}])),
    }
    for number, steps in orders.items():
        for step in steps:
            step(number)
    check_traces(pool)
    for trace in fetch(pool, Trace):
        assert trace["span_count"] == 2
        assert trace["status_message"] == "said"
        assert trace["attributes"] == {"said": True}
        assert trace["resource_attributes"] == {"said": 1}


def write_pair(writer: CopyWriter) -> Callable[[int], Any]:
    return lambda number: writer.write_spans([a_span(number, 1), a_span(number, 2)])


@pytest.mark.parametrize("given", ["my trace", "a\x00b", "lone \udc00", "Ω" * 300])
def test_a_trace_id_of_any_text(pool: StoragePool, given: str) -> None:
    span = {**a_span(), "trace_id": given}
    CopyWriter(pool).write_spans([span])
    CopyWriter(pool).write_spans([{**span, "name": "again"}])
    CopyWriter(pool).write_traces([{**a_trace(), "trace_id": given}])
    (trace,) = fetch(pool, Trace)
    assert trace["id"] == ids.trace_uuid(given)
    assert trace["trace_id"] == given.replace("\x00", "\ufffd").replace("\udc00", "\ufffd")
    check_traces(pool)


def test_the_text_of_a_trace_id_does_not_depend_on_who_came_first(pool: StoragePool) -> None:
    for number, texts in enumerate((("a", None), (None, "a")), start=1):
        for text in texts:
            given = f"{text} {number}" if text else ids.trace_uuid(f"a {number}")
            CopyWriter(pool).write_spans([{**a_span(1, 1), "trace_id": given, "name": str(text)}])
    texts_found = [row["trace_id"] for row in fetch(pool, Trace)]
    assert sorted(texts_found) == sorted(
        min(f"a {number}", ids.trace_uuid(f"a {number}").hex) for number in (1, 2)
    )


def random_span(source: random.Random, traces: int, spans: int) -> Row:
    """Any version of one of the spans, of which there are few: most replace another."""
    trace, number = source.randint(1, traces), source.randint(1, spans)
    start = START + timedelta(seconds=(trace * 7 + number * 3) % 11)
    tokens = source.choice((None, 0, source.randint(1, 1000)))
    events = source.choice((None, [], [event(f"e{source.randint(0, 3)}")] * source.randint(1, 3)))
    return {
        "trace_id": trace_id(trace),
        "span_id": span_id(number),
        "parent_span_id": source.choice((None, span_id(99), span_id(98), span_id(98))),
        "name": source.choice(("a", "b", "ünï", "z")),
        "service_name": source.choice(("x", "y")),
        "start_time": start,
        # A few spans share their id with another that starts at another nanosecond.
        "start_ns": source.choice((0, 0, 0, 7)),
        "end_time": source.choice((None, start + timedelta(milliseconds=source.randint(1, 20_000)))),
        "end_ns": 999,
        "status": source.choice(("unset", "unset", "ok", "error")),
        "total_tokens": tokens,
        "total_cost_usd": source.choice((None, Decimal(source.randint(0, 10**20)) / 10**15)),
        "events": events,
    }


def batches(seed: int, number: int, traces: int = 6, spans: int = 9) -> Iterator[list[Row]]:
    source = random.Random(seed)
    for _ in range(number):
        yield [random_span(source, traces, spans) for _ in range(source.randint(1, 30))]


class Stored:
    """The spans and events that should be stored: decision after decision, in plain Python."""

    def __init__(self) -> None:
        self.spans: dict[tuple[Any, ...], Row] = {}
        self.events: dict[tuple[Any, ...], list[str]] = {}

    def write(self, span: Row) -> None:
        key = (span["trace_id"], span["span_id"], span["start_time"], span["start_ns"])
        old = self.spans.get(key)
        if old is not None and old["end_time"] is not None and span["end_time"] is None:
            return
        self.spans[key] = span
        if span["events"] is not None:
            self.events[key] = [each["name"] for each in span["events"]]

    def check(self, pool: StoragePool) -> None:
        found = {
            (row["trace_id"].hex, row["span_id"], row["start_time"], row["start_ns"]): row
            for row in fetch(pool, TraceSpan)
        }
        assert found.keys() == self.spans.keys()
        for key, span in self.spans.items():
            for column in span.keys() - {"events", "trace_id"}:
                assert found[key][column] == span[column], column
        events: dict[tuple[Any, ...], list[str]] = {key: [] for key in self.events}
        for row in fetch(pool, TraceEvent):
            key = (row["trace_id"].hex, row["span_id"], row["span_start_time"], row["span_start_ns"])
            events[key].append(row["name"])
        assert events == self.events


@pytest.mark.parametrize("seed", range(6))
def test_random_batches_leave_what_the_last_versions_say(pool: StoragePool, seed: int) -> None:
    model = Stored()
    source = random.Random(seed)
    for batch in batches(seed, 25):
        if source.random() < 0.2:
            CopyWriter(pool).write_traces(
                [a_trace(source.randint(1, 6), status="error", total_tokens=77)]
            )
        CopyWriter(pool, method=source.choice(METHODS)).write_spans(batch)
        for span in batch:
            model.write(span)
        if source.random() < 0.1:
            gone = trace_id(source.randint(1, 6))
            with pool.unit_of_work() as uow:
                if uow.session.get(Trace, ids.trace_uuid(gone)) is not None:
                    uow.traces.delete(gone)
                uow.commit()
            for kept in (model.spans, model.events):
                for key in [key for key in kept if key[0] == gone]:
                    del kept[key]
        if source.random() < 0.3:
            check_traces(pool)
    model.check(pool)
    check_traces(pool)


def test_versions_written_at_once_by_four_threads(pool: StoragePool) -> None:
    """Whichever version of a span remains, its trace is what the remaining ones say."""
    threads, seen = 4, threading.Barrier(4)

    def write(seed: int) -> int:
        writer = CopyWriter(pool, method=METHODS[seed % 3 == 0])
        written = 0
        seen.wait()
        for number, batch in enumerate(batches(seed, 60, traces=30, spans=5)):
            if number % 10 == 5:
                traces = [a_trace(1 + (seed + at * 7) % 30, attributes={"n": at}) for at in range(4)]
                rows = [*map(prepare_trace, traces), *map(prepare_span, batch)]
                written += store(pool, rows).committed - len(traces)
            else:
                written += writer.write_spans(batch)
        return written

    with ThreadPoolExecutor(threads) as executor:
        written = sum(executor.map(write, range(threads)))
    assert written == sum(len(b) for s in range(threads) for b in batches(s, 60, 30, 5))
    assert check_traces(pool) == 30


def test_a_buffered_writer_with_many_connections_keeps_traces_right(pool: StoragePool) -> None:
    config = WriterConfig(batch_size=25, max_concurrency=4, flush_interval_secs=0.01)
    with TraceWriter(pool, config) as writer:
        written = 0
        for batch in batches(42, 40, traces=20, spans=6):
            writer.write_spans(batch)
            written += len(batch)
        assert writer.flush().committed == written
        assert writer.write_stats().rows == written
    check_traces(pool)


def test_traces_and_spans_of_two_batches_do_not_deadlock(database_url: str) -> None:
    """Each batch has a trace whose spans are in the other: one order of locks for all."""
    with quick_pool(database_url, ONCE) as pool:
        both = threading.Barrier(2)

        def write(traces: list[int], spans: list[int]) -> None:
            for number in range(60):
                rows = [
                    *(prepare_trace(a_trace(n, attributes={"n": number})) for n in traces),
                    *(prepare_span(a_span(n, traces[0] * 1000 + number)) for n in spans),
                ]
                both.wait()
                assert store(pool, rows).retries == 0

        with ThreadPoolExecutor(2) as executor:
            one = executor.submit(write, [1, 3], [2, 4])
            two = executor.submit(write, [2, 4], [1, 3])
            one.result()
            two.result()
        assert check_traces(pool) == 4


def test_deleting_traces_while_they_are_written(pool: StoragePool) -> None:
    done = threading.Event()

    def delete() -> None:
        source = random.Random(1)
        while not done.is_set():
            with pool.unit_of_work() as uow:
                gone = ids.trace_uuid(trace_id(source.randint(1, 5)))
                if uow.session.get(Trace, gone) is not None:
                    uow.traces.delete(gone)
                uow.commit()

    with ThreadPoolExecutor(3) as executor:
        deleting = executor.submit(delete)
        writing = [
            executor.submit(lambda s=seed: [
                CopyWriter(pool).write_spans(batch) for batch in batches(s, 20, traces=5, spans=5)
            ])
            for seed in (1, 2)
        ]
        try:
            for each in writing:
                each.result()
        finally:
            done.set()
        deleting.result()
    check_traces(pool)


def test_an_unchanged_trace_is_not_touched_by_others_of_its_batch(pool: StoragePool) -> None:
    CopyWriter(pool).write_spans([a_span(1, 1), a_span(2, 1)])
    before = contents(pool)["traces"]
    CopyWriter(pool).write_spans([a_span(1, 1), a_span(2, 1, name="changed")])
    assert len(set(before) & set(contents(pool)["traces"])) == 1


def test_an_event_before_its_span_stays(pool: StoragePool) -> None:
    """Also where the span brings one of the same position, which replaces that one alone."""
    CopyWriter(pool).write_events([an_event(1, 1, 0, name="early"), an_event(1, 1, 7, name="late")])
    CopyWriter(pool).write_spans([a_span(1, 1, events=[event("of the span")])])
    assert [row["name"] for row in fetch(pool, TraceEvent)] == ["of the span", "late"]
