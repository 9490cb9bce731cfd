"""Detaches an expired partition concurrently, and drops it.

While a partition is being detached, others read and write the table as before, for which PostgreSQL
waits for the transactions that use it. What came into the partition in the meantime is put back:
when nobody can write to it any more, its rows are looked at once more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from observatory_storage.commits import Change
from observatory_storage.distribution import is_sharded, wait_for_commits
from observatory_storage.errors import Conflict, translated
from observatory_storage.layout import PARTITIONED
from observatory_storage.lifecycle import partition_marks
from observatory_storage.lifecycle.log_frame_expiry import insert_referred, starts_of_referred
from observatory_storage.lifecycle.partition_marks import Mark, Versions
from observatory_storage.lifecycle.run import Run
from observatory_storage.lifecycle.segment_merging import forget_expired
from observatory_storage.lifecycle.spared_rows import (
    TRACE_TABLES,
    SparedRows,
    correct_totals,
    frames_with_expired_values,
    prune_expired_values,
    spared_traces,
)
from observatory_storage.lifecycle.stored_partitions import StoredPartition
from observatory_storage.lifecycle.told_changes import telling_of
from observatory_storage.schema_state import quoted_name
from observatory_storage.storing.transaction import Source
from observatory_storage.tables import LOG_FRAMES, PAYLOAD_FRAMES, SPANS

__all__ = ["columns_of", "recover", "remove", "versions_in"]

# A transaction that holds on to the table for longer makes the next run go on.
_WAIT: Final = "10s"
_WAIT_ON_SHARDS: Final = "500ms"


def remove(run: Run, partition: StoredPartition, archived: Versions | None = None) -> bool:
    """Detach and drop a partition. False if others did not let go of it in time.

    Args:
        run: the run of maintenance.
        partition: the partition.
        archived: its rows as they were archived. If they have changed since, all are put back.
    """
    source = run.source
    with translated(), source.engine.begin() as connection:
        partition_marks.note(connection, partition, "leaving", archived)
    if not _detach(source, partition, "CONCURRENTLY"):
        return False
    _drop_leaving(source, partition, archived)
    run.progress(f"dropped {partition.name}")
    return True


def recover(run: Run) -> None:
    """Complete what a killed run, or one that ran out of time, has left behind."""
    source = run.source
    with translated(), source.engine.connect() as connection:
        left = partition_marks.marks(connection)
    if left:
        tables = sorted({mark.partition.table for mark in left})
        with telling_of(source, *map(Change, tables)):
            _recover(source, left)


def _recover(source: Source, left: Sequence[Mark]) -> None:
    for mark in left:
        if mark.state == "leaving" and mark.exists and mark.is_leaving:
            if _detach(source, mark.partition, "FINALIZE"):
                _drop_leaving(source, mark.partition, mark.archived)
        elif mark.state == "leaving" and mark.exists and not mark.is_attached:
            _drop_leaving(source, mark.partition, mark.archived)
        elif mark.state == "filled" and mark.exists and not mark.is_attached:
            _drop(source, mark.partition)
        elif not (mark.exists and mark.is_attached):
            with translated(), source.engine.begin() as connection:
                partition_marks.forget(connection, mark.partition.oid)


def _drop_leaving(source: Source, partition: StoredPartition, archived: Versions | None) -> None:
    """Put back the rows of a detached partition that must not go, and drop it."""
    source.partitions.forget()
    if partition.table in TRACE_TABLES:
        _put_back_spared(source, partition)
    elif partition.table == LOG_FRAMES.name:
        _put_back_referred(source, partition)
    elif archived is not None:
        _put_back_changed(source, partition, archived)
    else:
        _drop(source, partition)


def _drop(source: Source, partition: StoredPartition) -> None:
    with translated(), source.engine.begin() as connection:
        _drop_in(connection, source, partition)


def _drop_in(connection: sa.Connection, source: Source, partition: StoredPartition) -> None:
    connection.execute(sa.text(f"DROP TABLE {_qualified(source, partition.name)}"))
    partition_marks.forget(connection, partition.oid)


def _put_back_spared(source: Source, partition: StoredPartition) -> None:
    """Put back the rows of traces that are still there: late spans have made them anew."""
    table = partition.table
    rows = SparedRows(source.schema, table, partition.name)
    with translated(), source.engine.connect() as connection:
        spared = spared_traces(connection, partition.lower, partition.upper)
        starts = rows.starts(connection, spared)
    source.partitions.ensure(table, starts)
    with translated(), source.engine.begin() as connection:
        if starts:
            columns = columns_of(connection, source.schema, table)
            rows.copy_to(connection, _qualified(source, table), spared, columns)
            if table == SPANS.name:
                correct_totals(connection, [trace.id for trace in spared])
            if table == PAYLOAD_FRAMES.name:
                keys = frames_with_expired_values(connection, source.schema, partition.name)
                prune_expired_values(connection, keys)
        if table == PAYLOAD_FRAMES.name:
            forget_expired(connection, partition.lower, partition.upper)
        _drop_in(connection, source, partition)


def _put_back_referred(source: Source, partition: StoredPartition) -> None:
    """Put back the frames of log records that are still there."""
    with translated(), source.engine.connect() as connection:
        if is_sharded(connection):
            wait_for_commits(connection)  # of the workers that have the records
        starts = starts_of_referred(connection, source, partition)
    source.partitions.ensure(partition.table, starts)
    with translated(), source.engine.begin() as connection:
        if starts:
            columns = columns_of(connection, source.schema, partition.table)
            insert_referred(connection, source, partition, columns)
        forget_expired(connection, partition.lower, partition.upper)
        _drop_in(connection, source, partition)


def _put_back_changed(source: Source, partition: StoredPartition, archived: Versions) -> None:
    """Put back all rows if they are not those that were archived: they are archived once more."""
    name, table = _qualified(source, partition.name), _qualified(source, partition.table)
    hour = f"date_trunc('hour', {PARTITIONED[partition.table]}, 'UTC')"
    hours: list[datetime] = []
    with translated(), source.engine.connect() as connection:
        if versions_in(connection, source.schema, partition.name) != archived:
            statement = f"SELECT DISTINCT {hour} FROM {name}"  # noqa: S608 - quoted
            hours = list(connection.scalars(sa.text(statement)))
    source.partitions.ensure(partition.table, hours)
    with translated(), source.engine.begin() as connection:
        if hours:
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            columns = columns_of(connection, source.schema, partition.table)
            statement = f"INSERT INTO {table} ({columns}) SELECT {columns} FROM {name}"  # noqa: S608 - quoted
            connection.execute(sa.text(f"{statement} ON CONFLICT DO NOTHING"))
        _drop_in(connection, source, partition)


def versions_in(connection: sa.Connection, schema: str, partition: str) -> Versions:
    """The number of rows of a table, and the sum of their versions."""
    connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
    name = f"{quoted_name(schema)}.{quoted_name(partition)}"
    statement = (
        "SELECT count(*), coalesce(sum(CAST(CAST(xmin AS text) AS bigint)), 0)"  # noqa: S608 - quoted
        f" FROM {name}"
    )
    rows, total = connection.execute(sa.text(statement)).one()
    return Versions(rows, int(total))


def columns_of(connection: sa.Connection, schema: str, table: str) -> str:
    """The quoted names of the columns that the table has, which may be newer than the models."""
    found = connection.scalars(
        sa.text(
            "SELECT a.attname FROM pg_catalog.pg_attribute a"
            " JOIN pg_catalog.pg_class t ON t.oid = a.attrelid"
            " JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace"
            " WHERE n.nspname = :schema AND t.relname = :table AND a.attnum > 0"
            " AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum"
        ),
        {"schema": schema, "table": table},
    )
    return ", ".join(quoted_name(name) for name in found)


def _detach(source: Source, partition: StoredPartition, how: str) -> bool:
    """Detach a partition, which takes two transactions of the server's own."""
    parent, child = _qualified(source, partition.table), _qualified(source, partition.name)
    if is_sharded(source.engine):
        # Citus detaches at once or not at all: readers and writers wait for a moment.
        try:
            with translated(), source.engine.begin() as connection:
                connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_WAIT_ON_SHARDS}'")
                connection.execute(sa.text(f"ALTER TABLE {parent} DETACH PARTITION {child}"))
        except Conflict:
            return False
        return True
    with _outside_a_transaction(source) as connection:
        try:
            with translated():
                connection.execute(sa.text(f"ALTER TABLE {parent} DETACH PARTITION {child} {how}"))
        except Conflict:
            return False
    return True


@contextmanager
def _outside_a_transaction(source: Source) -> Iterator[sa.Connection]:
    with translated(), source.engine.connect() as connection:
        autocommitting = connection.execution_options(isolation_level="AUTOCOMMIT")
        # Its settings are those of the session, so it is not returned to the pool.
        autocommitting.detach()
        autocommitting.exec_driver_sql(f"SET lock_timeout = '{_WAIT}'")
        autocommitting.exec_driver_sql("SET statement_timeout = 0")
        yield autocommitting


def _qualified(source: Source, name: str) -> str:
    return f"{quoted_name(source.schema)}.{quoted_name(name)}"
