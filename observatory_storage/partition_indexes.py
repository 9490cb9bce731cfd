"""Indexes of closed partitions, which would slow down inserts into the open one.

While rows arrive, a partition has only the indexes of its table. When its time is over it gets
GIN indexes on attributes and on the words of prompts and completions, and a btree index that
includes tokens and costs. They are built CONCURRENTLY, so readers and writers do not wait. Rows
that arrive later are indexed too.

These indexes belong to the partitions, not to the tables, so migrations do not contain them.
If a migration changes an index of a table, existing partitions get the new index here.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from observatory_storage import layout
from observatory_storage.errors import ValidationError, translated
from observatory_storage.index_builder import (
    IndexBuild,
    IndexBuilder,
    IndexFailure,
    PartitionIndex,
    Source,
)
from observatory_storage.index_kinds import CLOSED

__all__ = ["IndexBuild", "IndexFailure", "PartitionIndex", "build_partition_indexes"]

GRACE: Final = timedelta(hours=1)

_TABLES: Final = tuple(dict.fromkeys(kind.table for kind in CLOSED))


def build_partition_indexes(
    pool: Source,
    *,
    table: str | None = None,
    now: datetime | None = None,
    grace: timedelta = GRACE,
) -> IndexBuild:
    """Build the indexes that closed partitions lack, the newest partition first.

    Searches by attributes, or by words of prompts and completions, also work without these
    indexes; they then read all rows of the partition. Call this regularly, for example once an
    hour: existing indexes cost only a look into the system catalog. A day of millions of spans
    takes minutes. Readers and writers do not wait meanwhile. The build uses two connections of
    the pool. It waits for transactions that are open when it begins, so do not call it within a
    unit of work that has read something.

    If a migration has changed an index of a table, existing partitions get the new index too,
    whether they are closed or not.

    Args:
        pool: the pool whose schema is indexed.
        table: ``"trace_spans"``, ``"trace_events"`` or ``"logs"``. The default is all of them.
        now: the current time, with a time zone. The default is that of the clock.
        grace: how long the time range of a partition must have been over. The default is an hour.

    Raises:
        Conflict: another process is building indexes (retryable).
        ValidationError: the table is unknown, or a time has no time zone.
        PoolError: the pool has only one connection.
        StorageError: the role does not own the tables, or PostgreSQL cannot be reached.
    """
    if table is not None and table not in _TABLES:
        raise ValidationError("table", table, f"must be one of {', '.join(_TABLES)}")
    closed = _closing_time(now, grace)
    builder = IndexBuilder(pool)
    with translated():
        partitions = _partitions(pool, _TABLES if table is None else (table,), closed)
        with builder.opened():
            builder.attach_changed(table)
            for of_table, partition in partitions:
                builder.complete(of_table, partition)
    return builder.done


def _partitions(pool: Source, tables: Sequence[str], closed: datetime) -> list[tuple[str, str]]:
    """The closed partitions as (table, partition), the newest first."""
    with pool.engine.begin() as connection:
        found = [
            (ranged.upper, table, partition)
            for table in tables
            for partition, ranged in layout.named(connection, pool.schema, table).items()
            if ranged.upper <= closed
        ]
    return [(table, partition) for _, table, partition in sorted(found, reverse=True)]


def _closing_time(now: Any, grace: Any) -> datetime:
    if now is None:
        now = datetime.now(UTC)
    if not isinstance(now, datetime) or now.utcoffset() is None:
        raise ValidationError("now", now, "must be a datetime with a time zone")
    if not isinstance(grace, timedelta) or grace < timedelta(0):
        raise ValidationError("grace", grace, "must be a timedelta that is not negative")
    try:
        closing: datetime = now - grace
    except OverflowError:
        raise ValidationError("grace", grace, "must leave a time after the year 1") from None
    return closing
