"""The size of the tables on disk: by table, partition, index and column."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Final

import sqlalchemy as sa

from observatory_storage.distribution import is_sharded
from observatory_storage.errors import StorageError, ValidationError, translated
from observatory_storage.models import Base
from observatory_storage.schema_state import quoted_name
from observatory_storage.serialization import Result
from observatory_storage.storing.transaction import Source

__all__ = [
    "ColumnSize",
    "IndexSize",
    "PartitionSize",
    "StorageSize",
    "TableSize",
    "storage_size",
]

_SAMPLED_ROWS: Final = 2_000
_SAMPLED_PARTITIONS: Final = 5
_ROW_OVERHEAD: Final = 28  # the header of a row, and the pointer to it


@dataclass(frozen=True, slots=True)
class TableSize(Result):
    """The size of a table with all its partitions, in bytes.

    Attributes:
        table: the table.
        bytes: everything together.
        heap_bytes: the rows themselves, with the maps of free space and visibility.
        toast_bytes: values that are stored outside of their rows, with their index.
        index_bytes: the indexes.
        rows: the rows, as the last ANALYZE has counted them; None if it was never analysed.
        partitions: the number of its partitions; 0 for a table that has none.
    """

    table: str
    bytes: int
    heap_bytes: int
    toast_bytes: int
    index_bytes: int
    rows: int | None
    partitions: int


@dataclass(frozen=True, slots=True)
class PartitionSize(Result):
    """The size of a partition in bytes, as that of a `TableSize`."""

    table: str
    partition: str
    bytes: int
    heap_bytes: int
    toast_bytes: int
    index_bytes: int
    rows: int | None


@dataclass(frozen=True, slots=True)
class IndexSize(Result):
    """The size of an index.

    Attributes:
        table: the table.
        index: the index of the table; its parts in all partitions are counted together. An index
            that belongs to single partitions has the name of its kind.
        bytes: its size.
        parts: in how many partitions it is; 1 for a table that has none.
        scans: how often queries have used it since the statistics were reset.
    """

    table: str
    index: str
    bytes: int
    parts: int
    scans: int


@dataclass(frozen=True, slots=True)
class ColumnSize(Result):
    """The estimated size of a column, in bytes.

    Attributes:
        table: the table.
        column: the column.
        bytes: for each partition, the mean size in a sample of rows, compressed as they are stored,
            times the number of rows. That number is the one of the last ANALYZE, adjusted to the
            present size, but never more rows than fit in the partition: so all columns together are
            not larger than the rows and the values outside of them. A partition that was never
            analysed counts as full of rows, unless it is small enough to be counted. It does not
            include the overhead of rows and pages.
        mean_bytes: the mean size of a value, NULL counted as 0.
        sampled_rows: the rows that were looked at.
    """

    table: str
    column: str
    bytes: int
    mean_bytes: float
    sampled_rows: int


@dataclass(frozen=True, slots=True)
class StorageSize(Result):
    """The size of all tables on disk; the biggest come first.

    Attributes:
        bytes: all tables together.
        tables, partitions, indexes: as the file system has them.
        columns: estimates from a sample.
    """

    bytes: int
    tables: tuple[TableSize, ...]
    partitions: tuple[PartitionSize, ...]
    indexes: tuple[IndexSize, ...]
    columns: tuple[ColumnSize, ...]


_RELATIONS: Final = sa.text(
    "SELECT coalesce(t.relname, c.relname) AS table, c.relname AS partition,"
    " t.relname IS NOT NULL AS is_partition, pg_total_relation_size(c.oid) AS bytes,"
    " pg_table_size(c.oid) - coalesce(pg_total_relation_size(nullif(c.reltoastrelid, 0)), 0)"
    " AS heap_bytes,"
    " coalesce(pg_total_relation_size(nullif(c.reltoastrelid, 0)), 0) AS toast_bytes,"
    " pg_indexes_size(c.oid) AS index_bytes,"
    " CASE WHEN c.reltuples >= 0 THEN CAST(c.reltuples AS bigint) END AS rows,"
    # As the planner does: the density of the last ANALYZE, and the pages of now.
    " CASE WHEN c.reltuples > 0 AND c.relpages > 0 THEN c.reltuples / c.relpages"
    " * (pg_relation_size(c.oid) / CAST(current_setting('block_size') AS int)) END AS rows_now"
    " FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
    " LEFT JOIN pg_catalog.pg_inherits h ON h.inhrelid = c.oid"
    " LEFT JOIN pg_catalog.pg_class t ON t.oid = h.inhparent"
    " WHERE n.nspname = :schema AND c.relkind = 'r'"
    " AND coalesce(t.relname, c.relname) = ANY(:tables)"
    " ORDER BY bytes DESC NULLS LAST, c.relname"
)
# An index of one partition alone has the partition's name in its own.
_INDEXES: Final = sa.text(
    "SELECT coalesce(t.relname, c.relname) AS table,"
    " coalesce(p.relname, replace(i.relname, c.relname, coalesce(t.relname, c.relname))) AS name,"
    " CAST(sum(pg_table_size(i.oid)) AS bigint) AS bytes, count(*) AS parts,"
    " CAST(coalesce(sum(pg_stat_get_numscans(i.oid)), 0) AS bigint) AS scans"
    " FROM pg_catalog.pg_index x JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid"
    " JOIN pg_catalog.pg_class c ON c.oid = x.indrelid AND c.relkind = 'r'"
    " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
    " LEFT JOIN pg_catalog.pg_inherits h ON h.inhrelid = c.oid"
    " LEFT JOIN pg_catalog.pg_class t ON t.oid = h.inhparent"
    " LEFT JOIN pg_catalog.pg_inherits ih ON ih.inhrelid = i.oid"
    " LEFT JOIN pg_catalog.pg_class p ON p.oid = ih.inhparent"
    " WHERE n.nspname = :schema AND coalesce(t.relname, c.relname) = ANY(:tables)"
    " GROUP BY 1, 2 ORDER BY bytes DESC NULLS LAST, 2"
)


def storage_size(
    source: Source, *, table: str | None = None, sampled_rows: int = _SAMPLED_ROWS
) -> StorageSize:
    """Measure the tables on disk.

    Sizes of tables, partitions and indexes are those of the files. Sizes of columns are estimates:
    in each of a table's five biggest partitions some pages are read, chosen by chance.

    Args:
        source: the pool.
        table: only this table. The default is all of them.
        sampled_rows: about how many rows of a partition are read; 0 leaves out the columns.

    Raises:
        ValidationError: there is no such table, or the number of rows is negative.
        StorageError: PostgreSQL cannot be reached, or Citus distributes the tables.
    """
    known = sorted(Base.metadata.tables)
    if table is not None and table not in known:
        raise ValidationError("table", table, f"must be one of {', '.join(known)}")
    if isinstance(sampled_rows, bool) or sampled_rows < 0:
        raise ValidationError("sampled_rows", sampled_rows, "must be an integer, at least 0")
    if is_sharded(source.engine):
        raise StorageError(
            "sizes are not measured where Citus distributes the tables: see its views citus_tables"
            " and citus_shards"
        )
    given = {"schema": source.schema, "tables": known if table is None else [table]}
    with translated(), source.engine.connect() as connection:
        relations = [row for row in connection.execute(_RELATIONS, given) if row.bytes is not None]
        indexes = connection.execute(_INDEXES, given).all()
        columns = _columns(connection, source.schema, relations, sampled_rows)
    tables = _tables(relations, given["tables"])
    return StorageSize(
        bytes=sum(one.bytes for one in tables),
        tables=tables,
        partitions=tuple(
            PartitionSize(
                one.table,
                one.partition,
                one.bytes,
                one.heap_bytes,
                one.toast_bytes,
                one.index_bytes,
                one.rows,
            )
            for one in relations
            if one.is_partition
        ),
        indexes=tuple(
            IndexSize(one.table, one.name, one.bytes or 0, one.parts, one.scans) for one in indexes
        ),
        columns=columns,
    )


def _tables(relations: Iterable[Any], names: Iterable[str]) -> tuple[TableSize, ...]:
    by_table: dict[str, list[Any]] = {name: [] for name in names}
    for one in relations:
        by_table[one.table].append(one)
    found = []
    for name, parts in by_table.items():
        rows = [part.rows for part in parts if part.rows is not None]
        found.append(
            TableSize(
                name,
                sum(part.bytes for part in parts),
                sum(part.heap_bytes for part in parts),
                sum(part.toast_bytes for part in parts),
                sum(part.index_bytes for part in parts),
                sum(rows) if rows or not parts else None,
                sum(part.is_partition for part in parts),
            )
        )
    return tuple(sorted(found, key=lambda one: (-one.bytes, one.table)))


def _columns(
    connection: sa.Connection, schema: str, relations: Iterable[Any], sampled_rows: int
) -> tuple[ColumnSize, ...]:
    by_table: dict[str, list[Any]] = {}
    for one in relations:  # the biggest first
        by_table.setdefault(one.table, []).append(one)
    found: list[ColumnSize] = []
    for table, parts in by_table.items() if sampled_rows else ():
        names = [column.name for column in Base.metadata.tables[table].columns]
        samples = [
            connection.execute(_sampling(schema, part, names, sampled_rows)).one()
            for part in parts[:_SAMPLED_PARTITIONS]
        ]
        sampled, *totals = (sum(each or 0 for each in one) for one in zip(*samples, strict=True))
        if not sampled:
            continue
        sizes = [0.0] * len(names)
        for part, sample in zip_longest(parts, samples):
            # What was not looked at is taken to be like what was.
            count, *sums = sample if sample and sample[0] else (sampled, *totals)
            rows = _rows_of(part, sample, sampled_rows, sum(each or 0 for each in sums) / count)
            for place, total in enumerate(sums):
                sizes[place] += (total or 0) / count * rows
        found += [
            ColumnSize(table, name, int(size), total / sampled, sampled)
            for name, size, total in zip(names, sizes, totals, strict=True)
        ]
    return tuple(sorted(found, key=lambda one: (-one.bytes, one.table, one.column)))


def _sampling(schema: str, part: Any, names: Iterable[str], rows: int) -> sa.TextClause:
    """Some pages of a partition by chance, of which a limited number of rows is looked at."""
    listed = ", ".join(map(quoted_name, names))
    sums = ", ".join(f"sum(pg_column_size({quoted_name(name)}))" for name in names)
    share = 100.0 if not part.rows else min(100.0, max(0.001, 200.0 * rows / part.rows))
    return sa.text(
        f"SELECT count(*), {sums} FROM (SELECT {listed}"  # noqa: S608 - quoted
        f" FROM {quoted_name(schema)}.{quoted_name(part.partition)}"
        f" TABLESAMPLE SYSTEM ({share}) LIMIT {rows}) AS sample"
    )


def _rows_of(part: Any, sample: Any, sampled_rows: int, mean_bytes: float) -> float:
    """The rows of a partition: those that are counted or known, but never more than fit in it.

    The planner is not asked. Without an ANALYZE it supposes values of 32 bytes, and takes a table
    of large values outside of their rows for one of very many rows.
    """
    most: float = (part.heap_bytes + part.toast_bytes) / (mean_bytes + _ROW_OVERHEAD)
    if not part.rows and sample is not None and sample[0] < sampled_rows:
        return min(float(sample[0]), most)  # the sample is the whole partition
    return most if part.rows_now is None else min(float(part.rows_now), most)
