"""Any rows at all: each is stored and read back by the rules, or refused by its field's name."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

import pytest
from hypothesis import given

from observatory_storage.errors import BatchError, Rejected, ValidationError
from observatory_storage.pool import StoragePool
from observatory_storage.writers import (
    CopyWriter,
    FlushResult,
    LogWriter,
    MetricWriter,
    TraceWriter,
    WriterConfig,
)
from tests.soak.arbitrary import KINDS_OF, Case, rows_of
from tests.soak.scale import examples, scaled
from tests.writers.awkward import CASES
from tests.writers.helpers import Row, fetch
from tests.writers.trace_model import check_traces

# Of an example that fails: it is large indeed.
pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")

Writer = TraceWriter | MetricWriter | LogWriter
Method = Literal["insert", "copy"]
METHODS: tuple[Method, ...] = ("insert", "copy")
MOST_ROWS = scaled(8, 24)

BUFFERED: dict[str, type[Writer]] = {
    "traces": TraceWriter,
    "trace_spans": TraceWriter,
    "trace_events": TraceWriter,
    "metrics": MetricWriter,
    "metric_data_points": MetricWriter,
    "logs": LogWriter,
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("table", KINDS_OF)
def test_buffered_rows_are_stored_by_the_rules_or_refused_alone(
    pool: StoragePool, table: str, method: Method
) -> None:
    @examples(12, 150)
    @given(rows_of(table, MOST_ROWS))
    def check(cases: list[Case]) -> None:
        clear(pool)
        good = [case for case in cases if case.expected is not None]
        config = WriterConfig(flush_interval_secs=None, method=method)
        with BUFFERED[table](pool, config) as writer:
            refused = write_many(writer, table, [case.row for case in cases])
            found = {each.index: field_of(each) for each in refused}
            wanted = {at: case.refused for at, case in enumerate(cases) if case.expected is None}
            assert found.keys() == wanted.keys(), (found, wanted)
            assert all(field in wanted[at] for at, field in found.items()), (found, wanted)
            assert writer.flush() == FlushResult(committed=len(good))
            stats = writer.write_stats()
            assert (stats.rows, stats.rejected, stats.dropped) == (len(good), 0, 0)
            assert (stats.repaired > 0) == any(case.repaired for case in good)
        assert_stored(pool, table, good)

    check()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("table", KINDS_OF)
def test_copied_rows_are_stored_all_by_the_rules_or_none(
    pool: StoragePool, table: str, method: Method
) -> None:
    write_name = CASES[table][2]

    @examples(8, 100)
    @given(rows_of(table, MOST_ROWS))
    def check(cases: list[Case]) -> None:
        clear(pool)
        write: Callable[[list[Row]], int] = getattr(CopyWriter(pool, method=method), write_name)
        good = [case for case in cases if case.expected is not None]
        if len(good) < len(cases):
            with pytest.raises(ValidationError) as caught:
                write([case.row for case in cases])
            at = caught.value.index
            assert at is not None
            assert column_of(caught.value) in cases[at].refused
            assert_stored(pool, table, [])
        assert write([case.row for case in good]) == len(good)
        assert_stored(pool, table, good)

    check()


def write_many(writer: Writer, table: str, rows: Sequence[Row]) -> list[Rejected]:
    """Give the rows to the writer; those that it refuses at once."""
    single = {"traces": "write_trace", "trace_events": "write_event"}
    refused: list[Rejected] = []
    if table in single:
        for index, row in enumerate(rows):
            try:
                getattr(writer, single[table])(row)
            except ValidationError as error:
                refused.append(Rejected(index, row, error))
        return refused
    try:
        getattr(writer, CASES[table][2])(rows)
    except BatchError as error:
        refused = error.rejected
    return refused


def field_of(refused: Rejected) -> str:
    assert isinstance(refused.error, ValidationError)
    return column_of(refused.error)


def column_of(error: ValidationError) -> str:
    """The column of the field, which may name a place within a value of JSON."""
    return re.split(r"[.\[]", error.field)[0]


def assert_stored(pool: StoragePool, table: str, cases: Sequence[Case]) -> None:
    """There are these rows and no others, and each column that was given is as it should be."""
    found = fetch(pool, CASES[table][0])
    assert len(found) == len(cases)
    for case in cases:
        assert case.expected is not None
        identity = case.identity
        (row,) = (row for row in found if {key: row[key] for key in identity} == identity)
        for column, expected in case.expected.items():
            assert same(row[column], expected), (column, row[column], expected)
    if table == "trace_spans":
        check_traces(pool)


def same(one: Any, other: Any) -> bool:
    """Equal, where 1, 1.0 and True are three values, in JSON too."""
    if isinstance(one, (dict, list)):
        return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    return type(one) is type(other) and bool(one == other)


def clear(pool: StoragePool) -> None:
    with pool.engine.begin() as connection:
        for table in KINDS_OF:
            connection.exec_driver_sql(f"DELETE FROM {table}")
