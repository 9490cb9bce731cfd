"""Which partitions are older than they are kept, by age and by the size of all tables."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from observatory_storage.config import RetentionConfig
from observatory_storage.distribution import is_sharded
from observatory_storage.errors import translated
from observatory_storage.lifecycle import partition_marks
from observatory_storage.lifecycle.run import Run
from observatory_storage.lifecycle.spared_rows import LOG_TABLES, TRACE_TABLES
from observatory_storage.lifecycle.stored_partitions import (
    StoredPartition,
    aligned,
    before,
    partitions_of,
)
from observatory_storage.models import Base
from observatory_storage.storing.transaction import Source
from observatory_storage.tables import DATA_POINTS

__all__ = [
    "TABLES_OF_SIGNAL",
    "by_age",
    "by_size",
    "cutoff_of",
    "expired",
    "rollup_cutoffs",
    "total_bytes",
]

TABLES_OF_SIGNAL: Final = {
    "traces": TRACE_TABLES,
    "metrics": (DATA_POINTS.name,),
    "logs": LOG_TABLES,
}
"""The partitioned tables of each signal, in the order in which their rows go."""

_SIZE_OF_TABLES: Final = (
    "SELECT coalesce(sum({size}), 0) FROM pg_catalog.pg_class c"
    " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
    " LEFT JOIN pg_catalog.pg_inherits h ON h.inhrelid = c.oid"
    " LEFT JOIN pg_catalog.pg_class t ON t.oid = h.inhparent{more}"
    " WHERE n.nspname = :schema AND c.relkind = 'r'"
    " AND coalesce(t.relname, c.relname) = ANY(:tables)"
)
_TOTAL: Final = sa.text(_SIZE_OF_TABLES.format(size="pg_total_relation_size(c.oid)", more=""))
# The view asks each server once, whatever the number of partitions.
_TOTAL_WITH_SHARDS: Final = sa.text(
    _SIZE_OF_TABLES.format(
        size="coalesce(s.bytes, pg_total_relation_size(c.oid))",
        more=" LEFT JOIN (SELECT table_name, sum(shard_size) AS bytes"
        " FROM pg_catalog.citus_shards GROUP BY table_name) s ON s.table_name = c.oid",
    )
)


def by_age(run: Run, config: RetentionConfig) -> dict[str, datetime]:
    """For each signal that is not kept forever: the time before which its rows are too old."""
    ages = {"traces": config.traces, "metrics": config.metrics, "logs": config.logs}
    return {signal: before(run.now, age) for signal, age in ages.items() if age is not None}


def rollup_cutoffs(run: Run, config: RetentionConfig) -> dict[str, datetime]:
    """For each width of rollups that is not kept forever: the time before which they are too old.

    The widths are ``minute``, ``hour`` and ``day``.
    """
    ages = {width: getattr(config.rollups, width) for width in ("minute", "hour", "day")}
    return {width: before(run.now, age) for width, age in ages.items() if age is not None}


def by_size(run: Run) -> Iterator[tuple[str, datetime]]:
    """Each signal with an end of one of its partitions, the oldest first; no present partition."""
    source = run.source
    kept = _kept(source)
    ends = {
        (partition.upper, signal)
        for signal, tables in TABLES_OF_SIGNAL.items()
        for partition in partitions_of(source, tables)
        if partition.upper <= run.now and partition.oid not in kept
    }
    for upper, signal in sorted(ends):
        yield signal, upper


def cutoff_of(partitions: list[StoredPartition], signal: str, moment: datetime) -> datetime:
    """The time before which rows go, so that they go with whole partitions."""
    return aligned(partitions, moment) if signal == "traces" else moment


def expired(source: Source, signal: str, moment: datetime) -> list[StoredPartition]:
    """The partitions whose rows are all too old, those that have only spared rows left out.

    They are in the order in which they go: spans before events, whose spans decide what is spared,
    and log records before their frames.
    """
    tables = TABLES_OF_SIGNAL[signal]
    partitions = partitions_of(source, tables)
    cutoff = cutoff_of(partitions, signal, moment)
    kept = _kept(source)
    found = [one for one in partitions if one.upper <= cutoff and one.oid not in kept]
    return sorted(found, key=lambda one: (tables.index(one.table), one.upper))


def total_bytes(source: Source) -> int:
    """The size of all tables on disk, with TOAST and indexes."""
    given = {"schema": source.schema, "tables": list(Base.metadata.tables)}
    with translated(), source.engine.connect() as connection:
        total = _TOTAL_WITH_SHARDS if is_sharded(connection) else _TOTAL
        return int(connection.scalar(total, given) or 0)


def _kept(source: Source) -> set[int]:
    with translated(), source.engine.connect() as connection:
        marks = partition_marks.marks(connection)
    return {mark.partition.oid for mark in marks if mark.state == "kept" and mark.exists}
