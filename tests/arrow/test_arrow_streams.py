"""A stream of Arrow reads while it is consumed, and leaves nothing open."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from observatory_storage import (
    ConnectionLost,
    CopyWriter,
    LogRepository,
    PostgresConfig,
    ResultStream,
    SpanFilters,
    StorageConfig,
    StorageError,
    StoragePool,
    Timeout,
    TraceRepository,
    UnitOfWork,
    ValidationError,
)
from observatory_storage.models import TraceSpan
from observatory_storage.repositories.reading import result_streams
from tests.repositories.samples import SECOND, START, a_log, a_span, span_key, statements, trace_key

SPANS = 95
WAYS: dict[str, Callable[[UnitOfWork], ResultStream[Any]]] = {
    "copied": lambda uow: uow.traces.iterate_spans(),
    "of a trace": lambda uow: uow.traces.iterate_spans(SpanFilters(trace_id=trace_key(1))),
    "of a search": lambda uow: uow.traces.iterate_spans(attributes={"k": 1}, payload=True),
}
each_way = pytest.mark.parametrize("stream_of", WAYS.values(), ids=WAYS)
CURSORS = sa.text("SELECT count(*) FROM pg_cursors")


@pytest.fixture
def filled(pool: StoragePool) -> StoragePool:
    rows = [a_span(1, n, START + n * SECOND, attributes={"k": 1}) for n in range(1, SPANS + 1)]
    CopyWriter(pool).write_spans(rows)
    return pool


@each_way
def test_batches_have_at_most_so_many_rows_and_arrive_in_order(
    filled: StoragePool, stream_of: Callable[[UnitOfWork], ResultStream[Any]]
) -> None:
    with filled.unit_of_work() as uow:
        batches = list(stream_of(uow).to_arrow(10))
        starts = [moment for batch in batches for moment in batch["start_time"].to_pylist()]
    assert [len(batch) for batch in batches] == [10] * 9 + [5]
    assert starts == [START + n * SECOND for n in range(SPANS, 0, -1)]


@each_way
def test_nothing_is_read_before_it_is_consumed(
    filled: StoragePool, stream_of: Callable[[UnitOfWork], ResultStream[Any]]
) -> None:
    with filled.unit_of_work() as uow:
        stream = stream_of(uow)
        with statements(filled.engine) as seen:
            reader = stream.to_arrow(10)
            assert seen == []
            assert reader.read_next_batch().num_rows == 10
            assert seen != []


def test_one_page_is_read_ahead(filled: StoragePool) -> None:
    with filled.unit_of_work() as uow:
        reader = uow.traces.iterate_spans().to_arrow(10)
        with statements(filled.engine) as seen:
            for number in range(1, 3):
                reader.read_next_batch()
                assert len(seen) == number + 1
        # The spans of later pages are those that are there when they are read.
        CopyWriter(filled).write_spans([a_span(2, 1, START)])
        assert reader.read_all()["start_time"].to_pylist()[-1] == START


def test_the_spans_of_a_trace_are_read_from_one_cursor(filled: StoragePool) -> None:
    with filled.unit_of_work() as uow:
        before = uow.session.scalar(CURSORS)
        reader = WAYS["of a trace"](uow).to_arrow(10)
        reader.read_next_batch()
        assert uow.session.scalar(CURSORS) == before + 1
        CopyWriter(filled).write_spans([a_span(1, 500, START)])
        assert reader.read_all().num_rows == SPANS - 10
        assert uow.session.scalar(CURSORS) == before


@each_way
def test_other_statements_run_between_batches(
    filled: StoragePool, stream_of: Callable[[UnitOfWork], ResultStream[Any]]
) -> None:
    with filled.unit_of_work() as uow:
        reader = stream_of(uow).to_arrow(10)
        found = 0
        for batch in reader:
            found += len(batch)
            assert uow.traces.get(trace_key(1)).span_count == SPANS
            CopyWriter(uow).write_logs([a_log(found)])
        uow.commit()
    assert found == SPANS
    with filled.unit_of_work() as uow:
        assert len(uow.logs.list()) == 10


@each_way
def test_a_reader_that_is_let_go_leaves_the_unit_of_work_usable(
    filled: StoragePool, stream_of: Callable[[UnitOfWork], ResultStream[Any]]
) -> None:
    with filled.unit_of_work() as uow:
        before = uow.session.scalar(CURSORS)
        for _ in range(3):
            stream_of(uow).to_arrow(10).read_next_batch()
        kept = stream_of(uow).to_arrow(10)
        kept.read_next_batch()
        assert uow.session.scalar(CURSORS) <= before + 1
        assert stream_of(uow).to_arrow().read_all().num_rows == SPANS
        CopyWriter(uow).write_spans([a_span(2, 1)])
        uow.commit()
        assert len(uow.traces.list()) == 2


@each_way
def test_a_stream_can_be_read_more_than_once_and_iterated_over(
    filled: StoragePool, stream_of: Callable[[UnitOfWork], ResultStream[Any]]
) -> None:
    with filled.unit_of_work() as uow:
        stream = stream_of(uow)
        first = next(stream)
        tables = [stream.to_arrow().read_all() for _ in range(2)]
        assert tables[0] == tables[1]
        assert tables[0].num_rows == SPANS
        assert [first, *stream][-1].start_time == START + SECOND


@each_way
def test_reading_on_after_the_unit_of_work_raises(
    filled: StoragePool, stream_of: Callable[[UnitOfWork], ResultStream[Any]]
) -> None:
    with filled.unit_of_work() as uow:
        stream = stream_of(uow)
        reader = stream.to_arrow(10)
        reader.read_next_batch()
    with pytest.raises(StorageError, match="has ended"):
        reader.read_all()
    with pytest.raises(StorageError, match="the unit of work has ended"):
        stream.to_arrow()


@each_way
def test_a_closed_stream_has_no_more_rows(
    filled: StoragePool, stream_of: Callable[[UnitOfWork], ResultStream[Any]]
) -> None:
    with filled.unit_of_work() as uow:
        stream = stream_of(uow)
        assert next(stream).span_id
        stream.close()
        assert list(stream) == []


def test_filters_and_order_hold(filled: StoragePool) -> None:
    bounds: dict[str, Any] = {"start_time": START + 20 * SECOND, "end_time": START + 40 * SECOND}
    with filled.unit_of_work() as uow:
        more: dict[str, Any]
        for more in ({}, {"name": "operation"}, {"trace_id": [trace_key(1), trace_key(2)]}):
            stream = uow.traces.iterate_spans(**bounds, **more, limit=1, oldest_first=True)
            starts = stream.to_arrow(7).read_all()["start_time"].to_pylist()
            assert starts == [START + n * SECOND for n in range(20, 40)]
        assert uow.traces.iterate_spans(name="another").to_arrow().read_all().num_rows == 0


def test_pages_of_large_rows_have_fewer_rows(
    pool: StoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(result_streams, "_PAGE_BYTES", 1_000_000)
    large = {"text": "x" * 50_000}
    CopyWriter(pool).write_spans([a_span(1, n, attributes=large) for n in range(1, 71)])
    with pool.unit_of_work() as uow, statements(pool.engine) as seen:
        assert sum(map(len, uow.traces.iterate_spans(payload=True).to_arrow(30))) == 70
        assert len(seen) == 4  # the pages have 30, 19, 19 and 2 rows
        assert sum(map(len, uow.traces.iterate_spans().to_arrow(30))) == 70
        assert len(seen) == 7  # 30, 30 and 10


def test_an_error_within_a_copy_is_told(filled: StoragePool) -> None:
    # A time that has no number of microseconds.
    endless = sa.cast("infinity", TraceSpan.end_time.type)
    with filled.unit_of_work() as uow:
        uow.session.execute(
            sa.update(TraceSpan).where(TraceSpan.span_id == span_key(5)).values(end_time=endless)
        )
        with pytest.raises(StorageError, match="infinity"):
            uow.traces.iterate_spans().to_arrow(10).read_all()
        uow.rollback()
        assert uow.traces.iterate_spans().to_arrow().read_all().num_rows == SPANS


def test_a_statement_timeout_is_told(filled: StoragePool) -> None:
    with filled.engine.begin() as other, filled.unit_of_work() as uow:
        uow.session.execute(sa.text("SET LOCAL statement_timeout = 200"))
        reader = uow.logs.iterate().to_arrow()
        other.execute(sa.text("LOCK TABLE logs IN ACCESS EXCLUSIVE MODE"))
        with pytest.raises(Timeout):
            reader.read_all()


def test_a_lost_connection_is_told(filled: StoragePool) -> None:
    with filled.unit_of_work() as uow:
        reader = uow.traces.iterate_spans().to_arrow(10)
        reader.read_next_batch()
        pid = uow.session.scalar(sa.select(sa.func.pg_backend_pid()))
        with filled.engine.connect() as other:
            other.execute(sa.select(sa.func.pg_terminate_backend(pid)))
        with pytest.raises(ConnectionLost):
            reader.read_all()


def test_streams_of_a_session_of_your_own(filled: StoragePool) -> None:
    engine = sa.create_engine(filled.engine.url)
    CopyWriter(filled).write_logs([a_log(1)])
    with Session(engine) as session:
        assert TraceRepository(session).iterate_spans().to_arrow().read_all().num_rows == SPANS
        assert LogRepository(session).iterate().to_arrow().read_all().num_rows == 1
        assert session.scalar(sa.text("SELECT 1")) == 1
    engine.dispose()


def test_streams_of_another_schema(empty_database_url: str) -> None:
    config = PostgresConfig.from_url(empty_database_url, schema="50%%")
    with StoragePool(StorageConfig(postgres=config)) as pool:
        pool.run_migrations()
        CopyWriter(pool).write_spans([a_span(1, 1)])
        with pool.unit_of_work() as uow:
            assert uow.traces.iterate_spans().to_arrow().read_all().num_rows == 1


@pytest.mark.parametrize("batch_size", [0, -1, "many"])
def test_a_batch_size_that_is_none_is_refused(filled: StoragePool, batch_size: Any) -> None:
    with filled.unit_of_work() as uow, pytest.raises(ValidationError, match="batch_size"):
        uow.traces.iterate_spans().to_arrow(batch_size)


WITHOUT_PYARROW = """
import sys
sys.modules["pyarrow"] = None
from observatory_storage import ConfigError, StoragePool
with StoragePool.from_env() as pool, pool.unit_of_work() as uow:
    for rows in (uow.traces.list(), uow.traces.iterate(), uow.metrics.get_cost_summary()):
        assert list(rows) == []
        try:
            rows.to_arrow()
        except ConfigError as error:
            print(error)
"""


def test_error_without_pyarrow_names_the_extra(database_url: str) -> None:
    output = subprocess.run(
        [sys.executable, "-c", WITHOUT_PYARROW],
        env={**os.environ, "DATABASE_URL": database_url},
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    expected = "Arrow needs the extra: pip install 'observatory-storage[arrow]'"
    assert output.splitlines() == [expected] * 3
