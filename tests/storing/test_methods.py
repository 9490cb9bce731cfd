"""The same rows by INSERT and by COPY read back equal, in all six tables."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest

from observatory_storage.jsonb import clean_text
from observatory_storage.models import (
    LogRecord,
)
from observatory_storage.pool import StoragePool
from observatory_storage.rows import (
    Row,
)
from observatory_storage.storing.conflict_rules import TARGETS
from observatory_storage.storing.upsert_target import UpsertTarget
from observatory_storage.tables import TABLES
from observatory_storage.writers import CopyWriter
from tests.writers.awkward import CASES, metrics
from tests.writers.helpers import (
    a_log,
    contents,
    empty,
    fetch,
)


@pytest.mark.parametrize("table", CASES)
def test_the_same_rows_by_either_method_read_back_equal(pool: StoragePool, table: str) -> None:
    model, make, write, prepare = CASES[table]
    rows = make()
    found = {}
    for method in ("insert", "copy"):
        # Small batches go another way by INSERT than large ones.
        for size in (len(rows), 40):
            for start in range(0, len(rows), size):
                writer = CopyWriter(pool, method=method_named(method))
                batch = rows[start : start + size]
                assert getattr(writer, write)(batch) == len(batch)
            found[method, size] = contents(pool, times_of_writing=False)
            if (method, size) != ("copy", 40):
                empty(pool)
    assert len(found["insert", 40][table]) == len(rows)
    first = found["insert", 40]
    assert all(other == first for other in found.values())
    key = TABLES[table].key
    stored = {tuple(row[column] for column in key): row for row in fetch(pool, model)}
    for row in rows:
        expected = expected_row(table, prepare(row))
        got = stored[tuple(expected[column] for column in key)]
        assert {column: got[column] for column in TABLES[table].columns} == expected


def test_metrics_written_a_few_at_a_time_read_back_as_those_written_together(
    pool: StoragePool,
) -> None:
    rows = metrics()
    writer = CopyWriter(pool)
    found = []
    for size in (len(rows), 3):
        for changed in (rows, [{**row, "description": "again"} for row in rows]):
            for start in range(0, len(rows), size):
                writer.write_metrics(changed[start : start + size])
            found.append(contents(pool, times_of_writing=False))
        empty(pool)
    together, together_again, few, few_again = found
    assert few == together
    assert few_again == together_again != together


def method_named(name: str) -> Literal["insert", "copy"]:
    return "insert" if name == "insert" else "copy"


def expected_row(table: str, prepared: Row) -> dict[str, Any]:
    """What a reader should find: JSON decoded, text repaired."""
    columns = TABLES[table].table.c
    expected = {}
    for column, value in zip(TABLES[table].columns, prepared.values, strict=True):
        if isinstance(value, bytes):
            expected[column] = json.loads(value[1:])
        else:
            expected[column] = clean_text(value) if isinstance(value, str) else value
        assert value is not None or columns[column].nullable
    return expected


@pytest.mark.parametrize("table", CASES)
def test_the_awkward_rows_leave_every_nullable_column_null_and_fill_every_column(
    table: str,
) -> None:
    _, make, _, prepare = CASES[table]
    prepared = [prepare(row).values for row in make()]
    for column, values in zip(TABLES[table].columns, zip(*prepared, strict=True), strict=True):
        # What a span reports is kept apart only when it is written, among the spans of its trace.
        if column not in ("reported_usage", "reported_cost_source"):
            assert any(value is not None for value in values), column
        if TABLES[table].table.c[column].nullable:
            assert any(value is None for value in values), column


@pytest.mark.parametrize("method", ["insert", "copy"])
def test_integers_and_floats_stay_apart(
    pool: StoragePool, method: Literal["insert", "copy"]
) -> None:
    attributes = {"int": 1, "float": 1.0, "big": 2**70, "bool": True}
    CopyWriter(pool, method=method).write_logs([a_log(attributes=attributes)])
    (row,) = fetch(pool, LogRecord)
    assert {key: type(value) for key, value in row["attributes"].items()} == {
        key: type(value) for key, value in attributes.items()
    }


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_types_for_copy_are_those_of_the_catalog(pool: StoragePool, target: UpsertTarget) -> None:
    with pool.engine.connect() as connection:
        catalog = {
            name: (kind, default)
            for name, kind, default in connection.exec_driver_sql(
                "SELECT attname, format_type(atttypid, atttypmod), atthasdef FROM pg_attribute"
                " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
                (f"{pool.schema}.{target.name}",),
            )
        }
    types = dict(zip(target.columns, target.types, strict=True))
    assert len(types) == len(target.types)
    for column, kind in types.items():
        # jsonb goes as the bytes of its binary format.
        assert kind == {"jsonb": "bytea"}.get(catalog[column][0], catalog[column][0]), column
    # What writers do not give has a default, or is NULL.
    missing = catalog.keys() - types.keys()
    own = {*("created_at", "updated_at", "last_span_start", "usage_span_count", "unsettled_since")}
    own |= {"payload_frame", "payload_digests", "sample_weight"}
    own |= {"weighted_span_count", "weighted_error_count", "weighted_tokens", "weighted_cost_usd"}
    assert missing - own <= {"lead_has_parent", "lead_start_time", "lead_start_ns", "lead_span_id"}
    assert {column for column in missing if catalog[column][1]} == missing & {
        "created_at",
        "updated_at",
        "usage_span_count",
    }


@pytest.mark.parametrize("rows", [1, 7, 8, 100, 101])
def test_auto_takes_all_rows_whatever_their_number(pool: StoragePool, rows: int) -> None:
    assert CopyWriter(pool).write_logs([a_log(n) for n in range(rows)]) == rows
    assert len(fetch(pool, LogRecord)) == rows
