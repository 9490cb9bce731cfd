"""`size`: what takes up space."""

from __future__ import annotations

import psycopg
import pytest

from observatory_storage import StoragePool, ValidationError
from observatory_storage.lifecycle.sizes import PartitionSize, TableSize, storage_size
from observatory_storage.writers import CopyWriter
from tests.commands import Run
from tests.lifecycle.days import noon
from tests.payloads.framed import turns, write
from tests.writers.helpers import a_log, a_span


@pytest.fixture(autouse=True)
def _rows(pool: StoragePool) -> None:
    bodies = [f"{number} " * 200 for number in range(1000, 1500)]
    for day in (1, 2):
        CopyWriter(pool).write_logs([a_log(timestamp=noon(day), body=body) for body in bodies])
    CopyWriter(pool).write_spans([a_span()])


def test_sizes_are_those_of_the_files(pool: StoragePool, database_url: str) -> None:
    found = storage_size(pool)
    with psycopg.connect(database_url) as connection:
        total, indexes = connection.execute(
            "SELECT sum(pg_total_relation_size(oid)), sum(pg_indexes_size(oid)) FROM pg_class"
            " WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
            " AND relname <> 'observatory_version'"
        ).fetchone() or (0, 0)
    assert found.bytes == total == sum(table.bytes for table in found.tables)
    assert sum(table.index_bytes for table in found.tables) == indexes
    assert sum(index.bytes for index in found.indexes) == indexes
    sized: list[TableSize | PartitionSize] = [*found.tables, *found.partitions]
    for one in sized:
        assert one.bytes == one.heap_bytes + one.toast_bytes + one.index_bytes
    assert [table.bytes for table in found.tables] == sorted(
        (table.bytes for table in found.tables), reverse=True
    )
    biggest = found.tables[0]
    assert (biggest.table, biggest.partitions) == ("logs", 2)
    assert {one.partition for one in found.partitions[:2]} == {
        f"logs_p{noon(day):%Y%m%d}" for day in (1, 2)
    }
    assert next(one for one in found.indexes if one.table == "logs").parts == 2


def test_sizes_of_columns_are_estimated(pool: StoragePool, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("ANALYZE")
        bodies = connection.execute("SELECT sum(pg_column_size(body)) FROM logs").fetchone()
    assert bodies is not None
    columns = storage_size(pool, table="logs").columns
    assert {one.table for one in columns} == {"logs"}
    body = next(one for one in columns if one.column == "body")
    assert bodies[0] * 0.8 < body.bytes < bodies[0] * 1.25
    assert body.sampled_rows == 1000
    assert next(one for one in columns if one.column == "severity_text").bytes == 0
    assert storage_size(pool, sampled_rows=0).columns == ()


@pytest.mark.parametrize("sampled_rows", [5, 2_000])
def test_columns_fit_in_tables_that_were_never_analysed(
    pool: StoragePool, database_url: str, sampled_rows: int
) -> None:
    write(pool, *turns(range(1, 41), 3))
    found = storage_size(pool, sampled_rows=sampled_rows)
    for table in found.tables:
        columns = [one.bytes for one in found.columns if one.table == table.table]
        assert sum(columns) <= table.heap_bytes + table.toast_bytes
    with psycopg.connect(database_url) as connection:
        frames = connection.execute("SELECT sum(pg_column_size(data)) FROM payload_frames")
        stored = (frames.fetchone() or (0,))[0]
    data = next(
        one for one in found.columns if (one.table, one.column) == ("payload_frames", "data")
    )
    assert stored * 0.6 < data.bytes < stored * 1.7


def test_an_unknown_table_is_refused(pool: StoragePool, run: Run, database_url: str) -> None:
    with pytest.raises(ValidationError, match="table='spans': must be one of error_rollups_day"):
        storage_size(pool, table="spans")
    with pytest.raises(ValidationError, match="sampled_rows=-1: must be"):
        storage_size(pool, sampled_rows=-1)
    result = run("size", "--table", "spans", DATABASE_URL=database_url)
    assert result.code == 2
    assert "must be one of" in result.err


def test_the_biggest_are_shown(run: Run, database_url: str) -> None:
    out = run("size", "--limit", "1", DATABASE_URL=database_url).out
    titles = [line.split()[0] for line in out.splitlines() if line and line.split()[0].isupper()]
    assert titles == ["TABLE", "PARTITION", "INDEX", "COLUMN"]
    assert "logs.body" in out
    assert out.splitlines()[-1].endswith("together; sizes of columns are estimates")
    document = run("size", "--json", DATABASE_URL=database_url).document
    assert document["tables"][0]["table"] == "logs"
    assert len(document["partitions"]) > 2
