"""Histories of spans, random and at once: a trace is what remains of them."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from typing import Any, Literal

import pytest

from observatory_storage import Conflict, RetryConfig, ids
from observatory_storage.models import Trace, TraceEvent, TraceSpan
from observatory_storage.pool import StoragePool
from observatory_storage.rows import prepare_span, prepare_trace
from observatory_storage.writers import CopyWriter, TraceWriter, WriterConfig, store
from tests import citus
from tests.writers.helpers import (
    ONCE,
    START,
    Row,
    a_span,
    a_trace,
    event,
    fetch,
    quick_pool,
    span_id,
    trace_id,
)
from tests.writers.trace_model import check_traces

Method = Literal["auto", "insert", "copy"]
METHODS: tuple[Method, ...] = ("insert", "copy")


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
        "end_time": source.choice(
            (None, start + timedelta(milliseconds=source.randint(1, 20_000)))
        ),
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
            key = (
                row["trace_id"].hex,
                row["span_id"],
                row["span_start_time"],
                row["span_start_ns"],
            )
            events[key].append(row["name"])
        assert events == self.events


@pytest.mark.parametrize("seed", range(6))
def test_random_batches_leave_the_last_versions(pool: StoragePool, seed: int) -> None:
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


def test_four_threads_write_versions_at_once(database_url: str) -> None:
    """Whichever version of a span remains, its trace is what the remaining ones say.

    Not one attempt fails: the writers wait for each other, never in a circle.
    """
    threads, ready = 4, threading.Barrier(4)

    def write(seed: int) -> int:
        writer = CopyWriter(pool, method=METHODS[seed % 3 != 0])
        written = 0
        ready.wait()
        for number, batch in enumerate(batches(seed, 50, traces=30, spans=5)):
            if number % 10 == 5:
                traces = [
                    a_trace(1 + (seed + at * 7) % 30, attributes={"n": at}) for at in range(4)
                ]
                rows = [*map(prepare_trace, traces), *map(prepare_span, batch)]
                written += store(pool, rows).committed - len(traces)
            else:
                written += writer.write_spans(batch)
        return written

    # Workers of Citus insert new traces at the same time, in no order.
    retry = RetryConfig(max_attempts=10) if citus.URL else ONCE
    with quick_pool(database_url, retry) as pool, ThreadPoolExecutor(threads) as executor:
        pool.partitions.ensure("trace_spans", [START])
        pool.partitions.ensure("trace_events", [START])
        written = sum(executor.map(write, range(threads)))
        assert written == sum(len(b) for s in range(threads) for b in batches(s, 50, 30, 5))
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
            gone = ids.trace_uuid(trace_id(source.randint(1, 5)))
            try:
                with pool.unit_of_work() as uow:
                    if uow.session.get(Trace, gone) is not None:
                        uow.traces.delete(gone)
                    uow.commit()
            except Conflict as error:
                # Workers of Citus insert new traces at the same time, in no order.
                if not (citus.URL and error.retryable):
                    raise

    def write(seed: int) -> None:
        for batch in batches(seed, 10, traces=5, spans=5):
            CopyWriter(pool).write_spans(batch)

    with ThreadPoolExecutor(3) as executor:
        deleting = executor.submit(delete)
        writing = [executor.submit(write, seed) for seed in (1, 2)]
        try:
            for each in writing:
                each.result()
        finally:
            done.set()
        deleting.result()
    check_traces(pool)
