"""pandas, polars and DuckDB take results and streams as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from observatory_storage import CopyWriter, Page, StorageError, StoragePool, UnitOfWork
from tests.repositories.samples import SECOND, START, a_span, statements

SPANS = 40
DATA: dict[str, Callable[[UnitOfWork], Any]] = {
    "a stream": lambda uow: uow.traces.iterate_spans(oldest_first=True),
    "a page": lambda uow: uow.traces.list_spans(order_by="duration_us", limit=100, **DAY),
    "a table of a list": lambda uow: uow.traces.get_spans(f"{1:032x}").to_arrow(),
}
DAY: dict[str, Any] = {"start_time": START, "end_time": START + 100 * SECOND}
each = pytest.mark.parametrize("data_of", DATA.values(), ids=DATA)


@pytest.fixture(scope="module")
def filled(shared_pool: StoragePool) -> StoragePool:
    models = ("model 0", "model 1")
    rows = [
        a_span(1, n + 1, START + n * SECOND, model=models[n % 2], total_tokens=n or None)
        for n in range(SPANS)
    ]
    CopyWriter(shared_pool).write_spans(rows)
    return shared_pool


@pytest.fixture
def uow(filled: StoragePool) -> Iterator[UnitOfWork]:
    with filled.unit_of_work() as uow:
        yield uow


@each
def test_pandas_takes_it(uow: UnitOfWork, data_of: Callable[[UnitOfWork], Any]) -> None:
    frame = pd.DataFrame.from_arrow(data_of(uow))
    assert len(frame) == SPANS
    assert frame["total_tokens"].sum() == sum(range(SPANS))
    assert frame["start_time"][1].to_pydatetime() == START + SECOND
    assert frame["total_tokens"].isna().sum() == 1
    assert frame.groupby("model")["total_tokens"].sum().to_dict() == {
        "model 0": sum(range(0, SPANS, 2)),
        "model 1": sum(range(1, SPANS, 2)),
    }


@each
def test_polars_takes_it(uow: UnitOfWork, data_of: Callable[[UnitOfWork], Any]) -> None:
    # polars reads a page as a sequence of rows.
    data = data_of(uow)
    frame = pl.DataFrame(data.to_arrow() if isinstance(data, Page) else data)
    assert frame.height == SPANS
    assert frame["total_tokens"].null_count() == 1
    assert frame["start_time"].dtype == pl.Datetime("us", "UTC")
    assert frame["start_time"].to_list()[1].astimezone(UTC) == START + SECOND


@each
def test_duckdb_takes_it(uow: UnitOfWork, data_of: Callable[[UnitOfWork], Any]) -> None:
    spans = data_of(uow)  # DuckDB finds it by the name of the variable
    assert spans is not None
    with duckdb.connect() as connection:
        connection.execute("SET threads = 2")
        by_name = connection.sql(
            "SELECT model, sum(total_tokens)::int FROM spans GROUP BY model ORDER BY model"
        ).fetchall()
        joined = connection.sql("SELECT count(*) FROM spans a JOIN spans b USING (span_id)")
        assert joined.fetchall() == [(SPANS,)]
    assert by_name == [("model 0", sum(range(0, SPANS, 2))), ("model 1", sum(range(1, SPANS, 2)))]


@each
def test_pyarrow_takes_it(uow: UnitOfWork, data_of: Callable[[UnitOfWork], Any]) -> None:
    table = pa.table(data_of(uow))
    assert table.num_rows == SPANS
    payload = "attributes" in table.column_names
    assert table.schema == uow.traces.iterate_spans(payload=payload).to_arrow().schema


def test_consumers_read_page_by_page(filled: StoragePool) -> None:
    with filled.unit_of_work() as uow:
        stream = uow.traces.iterate_spans()
        reader = pa.RecordBatchReader.from_stream(stream.to_arrow(10))
        with statements(filled.engine) as seen:
            reader.read_next_batch()
            assert len(seen) == 2  # one page is read ahead
            reader.read_all()
            assert len(seen) == SPANS // 10 + 1


def test_a_consumer_is_told_that_the_unit_of_work_has_ended(filled: StoragePool) -> None:
    with filled.unit_of_work() as uow:
        spans = uow.traces.iterate_spans()
    with pytest.raises(StorageError, match="the unit of work has ended"):
        pl.DataFrame(spans)
