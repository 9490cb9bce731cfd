"""A batch written again changes nothing, whichever way it comes: not even a time of writing."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Literal
from uuid import UUID

import pytest

from observatory_storage.models import LogRecord, Metric, MetricDataPoint, Trace, TraceEvent
from observatory_storage.pool import StoragePool
from observatory_storage.rows import prepare_event, prepare_metric, prepare_span, prepare_trace
from observatory_storage.writers import CopyWriter, store
from tests.writers.helpers import (
    START,
    a_log,
    a_metric,
    a_point,
    a_span,
    a_trace,
    an_event,
    contents,
    fetch,
)

Method = Literal["auto", "insert", "copy"]
METHODS: tuple[Method, ...] = ("insert", "copy")
METRIC = UUID("00000000-0000-4000-8000-00000000abcd")


def spans() -> list[Any]:
    return [
        a_span(
            1 + number % 9,
            number,
            parent_span_id=None if number % 4 else "00000000000000aa",
            status=("ok", "error", "unset")[number % 3],
            end_time=None if number % 5 == 0 else START + timedelta(hours=1),
            start_ns=number % 3,
            end_ns=999,
            total_tokens=None if number % 2 else number,
            total_cost_usd=None if number % 7 == 0 else f"0.{number:030d}",
            attributes={"n": number, "float": 1.0},
            events=None
            if number % 3 == 0
            else [
                {"name": f"e{at}", "timestamp": START, "attributes": {"at": at}}
                for at in range(number % 4)
            ],
        )
        for number in range(10, 150)
    ]


BATCHES: dict[str, Callable[[], list[Any]]] = {
    "write_traces": lambda: [
        a_trace(n, attributes={"n": n} if n % 2 else {}, status_message="x" if n % 3 else None)
        for n in range(1, 130)
    ],
    "write_spans": spans,
    "write_events": lambda: [
        an_event(1 + n % 5, n, position=n % 3, attributes={"n": [n, 1.0]}) for n in range(1, 130)
    ],
    "write_metrics": lambda: [a_metric(f"m{n}", description=f"{n}") for n in range(130)],
    "write_data_points": lambda: [
        a_point(METRIC, n, attributes={"n": n}, buckets={"bounds": [1.0], "counts": [n, 1]})
        for n in range(130)
    ],
    "write_logs": lambda: [a_log(n, id=UUID(int=n + 1), body_json=[n, 1.0]) for n in range(130)],
}


@pytest.mark.parametrize("first", METHODS)
@pytest.mark.parametrize("write", BATCHES)
def test_a_batch_written_again_changes_nothing(
    pool: StoragePool, write: str, first: Method
) -> None:
    rows = BATCHES[write]()
    shuffled = random.Random(7).sample(rows, len(rows))

    def send(method: Method, batch: list[Any]) -> None:
        getattr(CopyWriter(pool, method=method), write)(batch)

    send(first, rows)
    before = contents(pool)
    assert sum(map(len, before.values())) >= len(rows)
    for method in METHODS:
        send(method, rows)
        send(method, shuffled)
        for start in range(0, len(rows), 37):
            send(method, shuffled[start : start + 37])
        send(method, [*shuffled[:50], *rows, *shuffled[50:]])
        assert contents(pool) == before


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("write", BATCHES)
def test_duplicates_within_one_batch_are_one_row(
    pool: StoragePool, write: str, method: Method
) -> None:
    rows = BATCHES[write]()
    getattr(CopyWriter(pool, method=method), write)([*rows, *reversed(rows)])
    twice = contents(pool, times_of_writing=False)
    for start in range(0, len(rows), 50):
        getattr(CopyWriter(pool), write)(rows[start : start + 50])
    assert contents(pool, times_of_writing=False) == twice


def test_a_batch_of_traces_spans_and_lone_events_written_again_changes_nothing(
    pool: StoragePool,
) -> None:
    batch = [
        prepare_trace(a_trace(1, attributes={"of": "trace"})),
        prepare_span(a_span(1, 1, events=[{"name": "within", "timestamp": START}])),
        prepare_event(an_event(1, 1, 5, name="alone")),
        prepare_span(a_span(2, 2)),
        prepare_trace(a_trace(3)),
        prepare_event(an_event(2, 2, 0)),
    ]
    store(pool, batch)
    before = contents(pool)
    assert [row["name"] for row in fetch(pool, TraceEvent)] == ["within", "alone", "event"]
    store(pool, batch)
    store(pool, batch, "insert")
    assert contents(pool) == before


@pytest.mark.parametrize("method", METHODS)
def test_a_log_or_point_sent_again_stays_as_it_was(pool: StoragePool, method: Method) -> None:
    writer = CopyWriter(pool, method=method)
    point = a_point(METRIC, attributes={"k": 1})
    log = a_log(id=UUID(int=1))
    writer.write_data_points([point])
    writer.write_logs([log])
    before = contents(pool)
    writer.write_data_points([{**point, "value": 99.0}, a_point(METRIC, 1)])
    writer.write_logs([{**log, "body": "something else"}, a_log(1)])
    after = contents(pool)
    for table, model in (("metric_data_points", MetricDataPoint), ("logs", LogRecord)):
        assert set(before[table]) < set(after[table])
        assert len(fetch(pool, model)) == 2


@pytest.mark.parametrize("method", METHODS)
def test_a_metric_sent_again_is_refreshed(pool: StoragePool, method: Method) -> None:
    writer = CopyWriter(pool, method=method)
    writer.write_metrics([a_metric(description="old", attributes={"a": 1})])
    (old,) = fetch(pool, Metric)
    writer.write_metrics([a_metric(description="new", attributes={"a": 1.0})])
    (new,) = fetch(pool, Metric)
    assert (new["description"], type(new["attributes"]["a"])) == ("new", float)
    assert new["id"] == old["id"] == prepare_metric(a_metric()).values[0]
    assert new["created_at"] == old["created_at"]
    assert new["updated_at"] > old["updated_at"]


@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "one by one"])
@pytest.mark.parametrize("method", METHODS)
def test_write_trace_clears_no_column(pool: StoragePool, method: Method, together: bool) -> None:
    """In one batch as one by one."""
    rows = [
        a_trace(attributes={"a": 1}, status_message="first", end_time=START + timedelta(seconds=9)),
        a_trace(resource_attributes={"b": 1}, root_span_name="root"),
        a_trace(start_time=START + timedelta(seconds=1), status="ok", total_tokens=3),
        a_trace(start_time=START + timedelta(seconds=2), status_message="last"),
    ]
    writer = CopyWriter(pool, method=method)
    for batch in [rows] if together else [[row] for row in rows]:
        writer.write_traces(batch)
    (trace,) = fetch(pool, Trace)
    assert trace["attributes"] == {"a": 1}
    assert trace["resource_attributes"] == {"b": 1}
    assert trace["status_message"] == "last"
    assert trace["root_span_name"] == "root"
    assert trace["total_tokens"] == 3
    assert trace["start_time"] == START + timedelta(seconds=2)
    assert trace["end_time"] == START + timedelta(seconds=9)
    assert trace["duration_us"] == 7_000_000
