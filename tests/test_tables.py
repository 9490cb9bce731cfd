"""The registry of tables: whatever is listed there is written, spooled and read back."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any, Literal

import pytest

from observatory_storage import ValidationError
from observatory_storage.layout import PARTITIONED
from observatory_storage.models import Base
from observatory_storage.pool import StoragePool
from observatory_storage.rows import Row, prepare, prepare_all
from observatory_storage.storing import store
from observatory_storage.tables import (
    KEPT_BY_MAINTENANCE,
    LOGS,
    OWN_TABLES,
    TABLES,
    TableDefinition,
    table_named,
)
from observatory_storage.writers.batch_queue import Batch
from observatory_storage.writers.spool import line_format
from observatory_storage.writers.spool.files import Spool
from tests.rows.samples import LEAST
from tests.writers.helpers import contents, count

every_table = pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
UNKNOWN = Row("nosuch_table", ())


def test_every_model_is_in_the_registry() -> None:
    kept = OWN_TABLES | KEPT_BY_MAINTENANCE
    own = {m for m in Base.registry.mappers if m.class_.__tablename__ in kept}
    assert {table.model for table in TABLES.values()} == {
        mapper.class_ for mapper in set(Base.registry.mappers) - own
    }
    assert TABLES.keys() | kept == Base.metadata.tables.keys()


def test_partition_columns_come_from_the_models() -> None:
    of_events = {"trace_spans": "start_time", "trace_events": "span_start_time"}
    of_times = {"metric_data_points": "timestamp", "logs": "timestamp"}
    assert PARTITIONED.items() >= {**of_events, **of_times}.items()
    assert not PARTITIONED.keys() & {"traces", "metrics"}


@every_table
@pytest.mark.parametrize("method", ["insert", "copy"])
def test_a_row_is_written_once_by_either_method(
    pool: StoragePool, table: TableDefinition, method: Literal["insert", "copy"]
) -> None:
    row = prepare(table, LEAST[table.name])
    assert store(pool, [row], method).committed == 1
    first = contents(pool)
    assert len(first[table.name]) == 1
    # The second time the row meets its own key, and is merged.
    assert store(pool, [row], method).committed == 1
    assert contents(pool) == first


@every_table
def test_rows_of_any_table_come_back_from_the_spool(
    pool: StoragePool, tmp_path: Path, table: TableDefinition
) -> None:
    rows = prepare_all(table, [LEAST[table.name]] * 10)
    spool = Spool(tmp_path, "target", 2**20)
    spool.prepare()
    assert spool.append(rows) == 0
    chunk = spool.read(100)
    assert chunk is not None
    assert (chunk.rows, chunk.damaged) == (rows, 0)
    assert store(pool, chunk.rows).committed == 10


@every_table
def test_versions_of_a_row_share_its_version_key(table: TableDefinition) -> None:
    row = prepare(table, LEAST[table.name])
    batches = Batch(1), Batch(2), Batch(3)
    batches[0].rows.append(row)
    batches[1].rows.append(row._replace(events=()))
    assert batches[0].shares_rows_with(batches[1:2])
    assert not batches[0].shares_rows_with(batches[2:])


def test_an_unknown_table_is_refused_and_nothing_is_written(pool: StoragePool) -> None:
    good = prepare(LOGS, LEAST["logs"])
    for rows in ([UNKNOWN], [good, UNKNOWN]):
        with pytest.raises(ValidationError, match=r"table='nosuch_table': must be one of traces, "):
            store(pool, rows)
    assert count(pool, "logs") == 0


def test_an_unknown_table_is_named_wherever_a_row_is_used() -> None:
    batch = Batch(0)
    batch.rows.append(UNKNOWN)
    uses: list[Any] = [
        lambda: table_named(UNKNOWN.table),
        UNKNOWN.as_dict,
        lambda: line_format.encode(UNKNOWN),
        lambda: batch.shares_rows_with([batch]),
    ]
    for use in uses:
        with pytest.raises(ValidationError, match="nosuch_table"):
            use()


def test_a_spooled_row_of_an_unknown_table_says_so() -> None:
    line, _ = line_format.encode(prepare(LOGS, LEAST["logs"]))
    text = line[line.index(b"{") :].replace(b'"table":"logs"', b'"table":"nosuch_table"')
    changed = b"%08x %d %b" % (zlib.crc32(text[:-1]), len(text) - 1, text)
    (record,) = line_format.read(changed)
    assert record.row is None
    assert "table='nosuch_table': must be one of traces" in record.problem
