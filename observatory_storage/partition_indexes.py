"""Indexes of closed partitions, which would slow down inserts into the open one.

While rows arrive, a partition has only the indexes of its table. When its time is over it gets
GIN indexes on attributes and on the words of prompts and completions, and a btree index that
includes tokens and costs. They are built CONCURRENTLY, so readers and writers do not wait. Rows
that arrive later are indexed too.

These indexes belong to the partitions, not to the tables, so migrations do not contain them.
If a migration changes an index of a table, existing partitions get the new index here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

import sqlalchemy as sa
from sqlalchemy.schema import DropIndex

from observatory_storage import layout
from observatory_storage.errors import (
    Conflict,
    ConnectionLost,
    PoolError,
    StorageError,
    ValidationError,
    sqlstate_of,
    translate,
    translated,
)
from observatory_storage.index_kinds import CLOSED, OF_TABLES, IndexKind
from observatory_storage.serialization import Result

__all__ = ["IndexBuild", "IndexFailure", "PartitionIndex", "build_partition_indexes"]

logger = logging.getLogger(__name__)

GRACE: Final = timedelta(hours=1)

# While a build waits for its lock, it blocks other DDL on the partition, but no reader or writer.
_LOCK_TIMEOUT: Final = "5min"
# While an index waits to be attached, queries of the table wait behind it.
_ATTACH_TIMEOUT: Final = "5s"
_NO_SUCH_TABLE: Final = "42P01"
_NO_PRIVILEGE: Final = "42501"


class Source(Protocol):
    """The attributes of a pool that building indexes needs."""

    @property
    def engine(self) -> sa.Engine: ...
    @property
    def schema(self) -> str: ...


@dataclass(frozen=True, slots=True)
class PartitionIndex(Result):
    """An index of a partition.

    Attributes:
        table: the partitioned table, such as ``trace_spans``.
        partition: the partition, such as ``trace_spans_p20260131``.
        name: the name of the index.
    """

    table: str
    partition: str
    name: str


@dataclass(frozen=True, slots=True)
class IndexFailure(Result):
    """An index that could not be built. The next run tries again.

    Attributes:
        index: the index.
        error: why it could not be built.
    """

    index: PartitionIndex
    error: StorageError


@dataclass(frozen=True, slots=True)
class IndexBuild(Result):
    """The result of `build_partition_indexes`.

    Attributes:
        built: the indexes that this run built.
        existing: the indexes that existed before.
        dropped: the indexes that this run dropped: those of an older version of this package, and
            those that an interrupted build left invalid.
        failed: the indexes that could not be built.
    """

    built: tuple[PartitionIndex, ...] = ()
    existing: tuple[PartitionIndex, ...] = ()
    dropped: tuple[PartitionIndex, ...] = ()
    failed: tuple[IndexFailure, ...] = ()


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


class IndexBuilder:
    """Builds indexes of partitions, and notes what it did.

    Attributes:
        connection: the connection that builds, in autocommit, while `opened`.
    """

    connection: sa.Connection

    def __init__(self, pool: Source, lock_timeout: str | None = None) -> None:
        self._engine = pool.engine
        self._schema = pool.schema
        self._lock_timeout = _LOCK_TIMEOUT if lock_timeout is None else lock_timeout
        self._kinds: tuple[IndexKind, ...] = tuple(CLOSED)
        self._built: list[PartitionIndex] = []
        self._existing: list[PartitionIndex] = []
        self._dropped: list[PartitionIndex] = []
        self._failed: list[IndexFailure] = []

    @property
    def done(self) -> IndexBuild:
        """What was done so far."""
        return IndexBuild(
            tuple(self._built), tuple(self._existing), tuple(self._dropped), tuple(self._failed)
        )

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Hold the lock of building indexes, and a connection that builds."""
        if layout.is_of_one(self._engine.pool):
            raise PoolError(
                "building indexes needs two connections, but the pool has only one",
                retryable=False,
            )
        with self._lock(), self._engine.connect() as connection:
            # CREATE INDEX CONCURRENTLY cannot run in a transaction, so its settings are those of
            # the session. The connection is therefore not returned to the pool.
            self.connection = connection.execution_options(isolation_level="AUTOCOMMIT")
            self.connection.detach()
            self.connection.exec_driver_sql(f"SET lock_timeout = '{self._lock_timeout}'")
            self.connection.exec_driver_sql("SET statement_timeout = 0")
            if self.connection.scalar(sa.text("SHOW server_encoding")) != "UTF8":
                # In another encoding, the index would refuse rows whose JSON escapes a letter that
                # the encoding does not have.
                self._kinds = tuple(kind for kind in self._kinds if kind.purpose != "content")
            yield

    def attach_changed(
        self, table: str | None = None, is_over: Callable[[], bool] = lambda: False
    ) -> None:
        """Build the indexes of tables that a migration has changed, where partitions lack them."""
        for kind in OF_TABLES:
            if table in (None, kind.table):
                for partition in self._lacking(kind):
                    if is_over():
                        return
                    self._attach(kind, partition)

    def complete(self, table: str, partition: str) -> bool:
        """Build the indexes that a closed partition lacks, and drop those of older definitions.

        It returns whether the partition has all of them now.
        """
        failures = len(self._failed)
        valid = self._indexes(partition)
        for kind in self._kinds:
            if kind.table != table:
                continue
            name = kind.name(self.connection.dialect, self._schema, partition)
            index = PartitionIndex(kind.table, partition, name)
            if valid.get(name):
                self._existing.append(index)
            elif not self._build(kind, index, is_invalid=name in valid):
                continue
            for older in valid:
                if older != name and kind.is_older(older, partition):
                    self._drop(PartitionIndex(kind.table, partition, older))
        return len(self._failed) == failures

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Hold the advisory lock of a transaction that does nothing else.

        Behind pgbouncer, an advisory lock of the session could outlive this process.
        """
        with self._engine.connect() as connection:
            guard = connection.execution_options(isolation_level="READ COMMITTED")
            key = layout.advisory_key("indexes", self._schema)
            if not guard.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(key))):
                raise Conflict("another process is building indexes", retryable=True)
            # CREATE INDEX CONCURRENTLY waits for all older snapshots, those of this transaction
            # included. READ COMMITTED keeps a query's snapshot until the next statement; this one
            # needs no snapshot itself.
            guard.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
            yield

    def _lacking(self, kind: IndexKind) -> list[str]:
        """The partitions without an index of this kind, the newest first."""
        names = {"schema": self._schema, "table": kind.table, "parent": kind.parent}
        return list(self.connection.scalars(_LACKING, names))

    def _attach(self, kind: IndexKind, partition: str) -> None:
        """Build an index, unless it is there, and make it a part of the table's."""
        name = kind.name(self.connection.dialect, self._schema, partition)
        index = PartitionIndex(kind.table, partition, name)
        valid = self._indexes(partition)
        if not valid.get(name) and not self._build(kind, index, is_invalid=name in valid):
            return
        quote = self.connection.dialect.identifier_preparer.quote
        parent, child = (f"{quote(self._schema)}.{quote(str(one))}" for one in (kind.parent, name))
        self.connection.exec_driver_sql(f"SET lock_timeout = '{_ATTACH_TIMEOUT}'")
        try:
            self.connection.exec_driver_sql(f"ALTER INDEX {parent} ATTACH PARTITION {child}")
        except sa.exc.OperationalError as error:
            self._failed.append(IndexFailure(index, translate(error) or StorageError(str(error))))
        finally:
            self.connection.exec_driver_sql(f"SET lock_timeout = '{self._lock_timeout}'")

    def _build(self, kind: IndexKind, index: PartitionIndex, *, is_invalid: bool) -> bool:
        logger.info("building index %s on %s", index.name, index.partition)
        try:
            if is_invalid:  # left by an interrupted build: updated by every write, but never used
                self._drop(index)
            self.connection.execute(kind.statement(self._schema, index.partition, index.name))
        except sa.exc.DBAPIError as error:
            translated_error = translate(error)
            state = sqlstate_of(error)
            if translated_error is None or state == _NO_PRIVILEGE:
                raise
            if isinstance(translated_error, ConnectionLost):
                raise
            if state != _NO_SUCH_TABLE:  # else the partition has been dropped
                logger.warning("index %s was not built: %s", index.name, translated_error)
                self._failed.append(IndexFailure(index, translated_error))
            return False
        self._built.append(index)
        return True

    def _drop(self, index: PartitionIndex) -> None:
        table = sa.Table(
            index.partition, sa.MetaData(), sa.Column("attributes"), schema=self._schema
        )
        old = sa.Index(index.name, table.c.attributes, postgresql_concurrently=True)
        self.connection.execute(DropIndex(old, if_exists=True))
        self._dropped.append(index)

    def _indexes(self, partition: str) -> dict[str, bool]:
        """The indexes of the partition: name -> whether it is valid."""
        rows = self.connection.execute(_INDEXES, {"schema": self._schema, "table": partition})
        return {row.relname: row.indisvalid for row in rows}


_INDEXES: Final = sa.text(
    "SELECT i.relname, x.indisvalid FROM pg_catalog.pg_index x"
    " JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid"
    " JOIN pg_catalog.pg_class t ON t.oid = x.indrelid"
    " JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace"
    " WHERE n.nspname = :schema AND t.relname = :table"
)

_LACKING: Final = sa.text(
    "SELECT p.relname FROM pg_catalog.pg_inherits h"
    " JOIN pg_catalog.pg_class p ON p.oid = h.inhrelid"
    " JOIN pg_catalog.pg_class t ON t.oid = h.inhparent"
    " JOIN pg_catalog.pg_class i ON i.relname = :parent AND i.relnamespace = t.relnamespace"
    " JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace"
    " WHERE n.nspname = :schema AND t.relname = :table AND NOT EXISTS ("
    "SELECT FROM pg_catalog.pg_index x JOIN pg_catalog.pg_inherits j ON j.inhrelid = x.indexrelid"
    " WHERE x.indrelid = p.oid AND j.inhparent = i.oid)"
    " ORDER BY p.relname DESC"
)


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
