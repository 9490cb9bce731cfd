"""Whether the database holds a workload: every span once, every trace what its spans say."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from itertools import groupby
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from observatory_storage.models import Base, Trace, TraceEvent, TraceSpan
from observatory_storage.pool import StoragePool
from tests.soak.workload import Workload
from tests.writers.helpers import Row
from tests.writers.trace_model import NOT_OF_SPANS, trace_of

__all__ = ["check"]

_BY_TRACE = ("trace_id", "span_id")


def check(pool: StoragePool, workload: Workload) -> None:
    """Compare all rows with what should be there.

    What a trace must be is computed here from the workload, not from what is stored.

    Raises:
        AssertionError: a row is missing, too many, or another than it should be.
    """
    with (
        closing(stored(pool, Trace, "id")) as traces,
        closing(stored(pool, TraceSpan, *_BY_TRACE)) as spans,
        closing(stored(pool, TraceEvent, *_BY_TRACE, "position")) as events,
    ):
        compare(workload, traces, by_trace(spans), by_trace(events))


def compare(
    workload: Workload,
    traces: Iterator[Row],
    spans: Iterator[tuple[Any, list[Row]]],
    events: Iterator[tuple[Any, list[Row]]],
) -> None:
    """Walk through what should be there and what is, side by side."""
    events_of, of_trace = next(events, (None, []))
    for number in range(workload.traces):
        expected = workload.trace(number)
        trace_id = UUID(expected[0]["trace_id"])
        found_id, found = next(spans)
        assert found_id == trace_id
        assert len(found) == len(expected)
        for got, wanted in zip(found, expected, strict=True):
            given = {**wanted, "trace_id": trace_id}
            del given["events"]
            assert {column: got[column] for column in given} == given
        wanted_events = [
            (span["span_id"], position, event["name"], event["timestamp"])
            for span in expected
            for position, event in enumerate(span["events"])
        ]
        found_events = []
        if events_of == trace_id:
            keys = ("span_id", "position", "name", "timestamp")
            found_events = [tuple(event[key] for key in keys) for event in of_trace]
            events_of, of_trace = next(events, (None, []))
        assert found_events == wanted_events
        trace = next(traces)
        said = {column: value for column, value in trace.items() if column not in NOT_OF_SPANS}
        assert said == trace_of([{**span, "trace_id": trace_id} for span in expected])
        assert trace["trace_id"] == expected[0]["trace_id"]
    assert next(traces, None) is None
    assert next(spans, None) is None
    assert events_of is None


def stored(pool: StoragePool, model: type[Base], *order: str) -> Generator[Row, None, None]:
    """The table's rows in order, not all in memory at once."""
    table = model.__table__
    query = sa.select(table).order_by(*(table.c[column] for column in order))
    with (
        pool.engine.connect() as connection,
        connection.execution_options(yield_per=2000).execute(query) as rows,
    ):
        for row in rows.mappings():
            yield dict(row)


def by_trace(rows: Iterable[Row]) -> Iterator[tuple[Any, list[Row]]]:
    for trace_id, of_trace in groupby(rows, key=lambda row: row["trace_id"]):
        yield trace_id, list(of_trace)
