"""Arrow has the values that entities have: of every column, however awkward they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa

from observatory_storage import CopyWriter, ResultStream, StoragePool, UnitOfWork
from observatory_storage.models import (
    Base,
    LogRecord,
    Metric,
    MetricDataPoint,
    Trace,
    TraceEvent,
    TraceSpan,
)
from tests import citus
from tests.arrow.columns import as_in_arrow, read_back
from tests.writers import awkward
from tests.writers.helpers import START, a_metric, a_point, a_span, trace_id

TRACE = trace_id(7)  # of the awkward spans

STREAMS: dict[str, tuple[type[Base], Callable[[UnitOfWork], ResultStream[Any]]]] = {
    "traces": (Trace, lambda uow: uow.traces.iterate()),
    "traces of a search": (Trace, lambda uow: uow.traces.iterate(service_name="shop")),
    "spans": (TraceSpan, lambda uow: uow.traces.iterate_spans()),
    "spans with payload": (TraceSpan, lambda uow: uow.traces.iterate_spans(payload=True)),
    "spans of a trace": (
        TraceSpan,
        lambda uow: uow.traces.iterate_spans(trace_id=TRACE, payload=True),
    ),
    "spans by text": (
        TraceSpan,
        lambda uow: uow.traces.iterate_spans(attributes={"a": 1}, payload=True),
    ),
    "metrics": (Metric, lambda uow: uow.metrics.iterate()),
    "points": (MetricDataPoint, lambda uow: uow.metrics.iterate_data_points(awkward.METRIC)),
    "logs": (LogRecord, lambda uow: uow.logs.iterate()),
    "logs with payload": (LogRecord, lambda uow: uow.logs.iterate(payload=True)),
    "logs by text": (LogRecord, lambda uow: uow.logs.iterate(text="word", payload=True)),
}


@pytest.fixture(scope="module")
def filled(shared_pool: StoragePool) -> StoragePool:
    """A pool with awkward rows in all tables."""
    for _, rows, write, _ in awkward.CASES.values():
        getattr(CopyWriter(shared_pool), write)(rows())
    return shared_pool


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("batch_size", [7, 20_000])
def test_a_stream_has_the_rows_of_its_entities(
    filled: StoragePool, name: str, batch_size: int
) -> None:
    model, stream_of = STREAMS[name]
    with filled.unit_of_work() as uow:
        stream = stream_of(uow)
        table = stream.to_arrow(batch_size).read_all()
        entities = list(stream)
    assert entities
    assert read_back(table, model) == as_in_arrow(entities)


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_of_nothing_has_the_same_schema(
    filled: StoragePool, pool: StoragePool, name: str
) -> None:
    _, stream_of = STREAMS[name]
    with filled.unit_of_work() as full, pool.unit_of_work() as blank:
        expected = stream_of(full).to_arrow().schema
        table = stream_of(blank).to_arrow().read_all()
    assert table.num_rows == 0
    assert table.schema == expected


def _pages(uow: UnitOfWork) -> Iterator[tuple[type[Base], Any]]:
    yield Trace, uow.traces.list(limit=1000)
    yield TraceSpan, uow.traces.list_spans(limit=1000)
    yield TraceSpan, uow.traces.list_spans(limit=1000, payload=True)
    yield TraceSpan, uow.traces.get_spans(TRACE, with_events=True)
    yield TraceEvent, uow.traces.get_events(TRACE)
    yield Metric, uow.metrics.list(limit=1000)
    yield Metric, uow.metrics.get_by_name("metric 1")
    yield MetricDataPoint, uow.metrics.get_data_points(awkward.METRIC)
    yield LogRecord, uow.logs.list(limit=1000)
    yield LogRecord, uow.logs.search_text("word", order="rank", payload=True)
    yield LogRecord, uow.logs.tail()
    yield LogRecord, uow.logs.get_by_trace("any text")


def test_pages_and_lists_have_the_rows_of_their_entities(filled: StoragePool) -> None:
    with filled.unit_of_work() as uow:
        for model, rows in _pages(uow):
            assert len(rows)
            assert read_back(rows.to_arrow(), model) == as_in_arrow(rows)


def test_pages_and_streams_have_one_schema(filled: StoragePool) -> None:
    with filled.unit_of_work() as uow:
        for payload in (True, False):
            page = uow.traces.list_spans(payload=payload).to_arrow()
            assert page.schema == uow.traces.iterate_spans(payload=payload).to_arrow().schema


def test_events_have_all_columns(filled: StoragePool) -> None:
    names = [column.name for column in TraceEvent.__table__.columns]
    with filled.unit_of_work() as uow:
        assert uow.traces.get_events(TRACE).to_arrow().column_names == names


def test_numbers_that_no_writer_takes_are_read(pool: StoragePool) -> None:
    CopyWriter(pool).write_metrics([a_metric("m")])
    with pool.unit_of_work() as uow:
        metric = uow.metrics.get_by_name("m")[0].id
        CopyWriter(uow).write_data_points([a_point(metric, second) for second in range(3)])
        for second, value in enumerate(("NaN", "Infinity", "-Infinity")):
            uow.session.execute(
                sa.update(MetricDataPoint)
                .where(MetricDataPoint.timestamp == a_point(metric, second)["timestamp"])
                .values(value=sa.cast(value, sa.Double))
            )
        values = uow.metrics.iterate_data_points(metric).to_arrow().read_all()["value"].to_pylist()
    assert math.isnan(values[0])
    assert values[1:] == [math.inf, -math.inf]


@pytest.mark.parametrize(
    "setting",
    [
        "datestyle TO 'German, DMY'",
        "timezone TO 'Asia/Kolkata'",
        pytest.param(
            "client_encoding TO LATIN1",
            marks=citus.not_there("reads what workers send as if it were in this encoding"),
        ),
    ],
)
def test_settings_of_the_session_change_nothing(pool: StoragePool, setting: str) -> None:
    CopyWriter(pool).write_spans([a_span(1, 1, start_time=START, name="naïve")])
    with pool.unit_of_work() as uow:
        expected = uow.traces.iterate_spans().to_arrow().read_all()
        uow.session.execute(sa.text(f"SET LOCAL {setting}"))
        assert uow.traces.iterate_spans().to_arrow().read_all() == expected
        assert expected["start_time"].to_pylist() == [START]
        assert expected.schema.field("start_time").type == pa.timestamp("us", "UTC")
