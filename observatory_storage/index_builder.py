"""Builds and drops the indexes of single partitions, CONCURRENTLY."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

import sqlalchemy as sa
from sqlalchemy.schema import DropIndex

from observatory_storage import layout
from observatory_storage.errors import (
    Conflict,
    ConnectionLost,
    PoolError,
    StorageError,
    sqlstate_of,
    translate,
)
from observatory_storage.index_kinds import CLOSED, OF_OPEN, OF_SLICES, OF_TABLES, IndexKind
from observatory_storage.serialization import Result

__all__ = ["IndexBuild", "IndexBuilder", "IndexFailure", "PartitionIndex", "Source"]

logger = logging.getLogger(__name__)

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
        """Build the indexes that a closed partition lacks, and drop those it no longer needs.

        These are indexes of older definitions, and those that it had while it was open. It returns
        whether the partition has all of them now.
        """
        failures = len(self._failed)
        valid = self._indexes(partition)
        for kind in self._kinds:
            if kind.table != table:
                continue
            name = kind.name(self.connection.dialect, self._schema, partition)
            if not self.build(kind, partition):
                continue
            for older in valid:
                if older != name and kind.is_older(older, partition):
                    self.drop(table, partition, older)
        if len(self._failed) > failures:
            return False
        self.drop_slices(table, partition)
        return len(self._failed) == failures

    def kinds_of_slices(self, table: str, partition: str) -> list[IndexKind]:
        """The indexes that slices of an open partition get: those that the whole of it lacks."""
        valid = self._indexes(partition)
        purposes = {kind.purpose for kind in self._kinds}
        dialect = self.connection.dialect
        return [
            kind
            for kind in OF_SLICES
            if kind.table == table
            and kind.purpose in purposes
            and not valid.get(kind.name(dialect, self._schema, partition))
        ]

    def drop_slices(self, table: str, partition: str) -> None:
        """Drop the indexes that a partition has only while it is open."""
        for name in self._indexes(partition):
            of_slice = any(kind.is_of_slice(name, partition) for kind in OF_SLICES)
            if of_slice or any(kind.is_older(name, partition) for kind in OF_OPEN):
                self.drop(table, partition, name)

    def build(self, kind: IndexKind, partition: str) -> bool:
        """Build an index unless the partition has it; whether it is there now."""
        name = kind.name(self.connection.dialect, self._schema, partition)
        index = PartitionIndex(kind.table, partition, name)
        valid = self._indexes(partition)
        if valid.get(name):
            self._existing.append(index)
            return True
        if name in valid and not self.drop(kind.table, partition, name):
            return False
        logger.info("building index %s on %s", name, partition)
        statement = kind.statement(self._schema, partition, name)
        return self._run(index, statement, self._built)

    def drop(self, table: str, partition: str, name: str) -> bool:
        """Drop an index; whether that was possible.

        One that an interrupted build has left is updated by every write, but never used.
        """
        of_partition = sa.Table(
            partition, sa.MetaData(), sa.Column("attributes"), schema=self._schema
        )
        old = sa.Index(name, of_partition.c.attributes, postgresql_concurrently=True)
        index = PartitionIndex(table, partition, name)
        return self._run(index, DropIndex(old, if_exists=True), self._dropped)

    def summarize(self, kind: IndexKind, partition: str) -> bool:
        """Have a BRIN index cover the pages that were added; whether that was possible.

        Until then every search reads them, as it reads pages with a match.
        """
        name = kind.name(self.connection.dialect, self._schema, partition)
        quote = self.connection.dialect.identifier_preparer.quote
        qualified = f"{quote(self._schema)}.{quote(name)}"
        index = PartitionIndex(kind.table, partition, name)
        return self._run(index, sa.select(sa.func.brin_summarize_new_values(qualified)), [])

    def _run(
        self, index: PartitionIndex, statement: sa.Executable, done: list[PartitionIndex]
    ) -> bool:
        """Build or drop an index, and note it as done or as failed."""
        try:
            self.connection.execute(statement)
        except sa.exc.DBAPIError as error:
            translated_error = translate(error)
            state = sqlstate_of(error)
            if translated_error is None or state == _NO_PRIVILEGE:
                raise
            if isinstance(translated_error, ConnectionLost):
                raise
            if state != _NO_SUCH_TABLE:  # else the partition has been dropped
                logger.warning("index %s was not changed: %s", index.name, translated_error)
                self._failed.append(IndexFailure(index, translated_error))
            return False
        done.append(index)
        return True

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
        if not self.build(kind, partition):
            return
        name = kind.name(self.connection.dialect, self._schema, partition)
        quote = self.connection.dialect.identifier_preparer.quote
        parent, child = (f"{quote(self._schema)}.{quote(str(one))}" for one in (kind.parent, name))
        self.connection.exec_driver_sql(f"SET lock_timeout = '{_ATTACH_TIMEOUT}'")
        try:
            self.connection.exec_driver_sql(f"ALTER INDEX {parent} ATTACH PARTITION {child}")
        except sa.exc.OperationalError as error:
            index = PartitionIndex(kind.table, partition, name)
            self._failed.append(IndexFailure(index, translate(error) or StorageError(str(error))))
        finally:
            self.connection.exec_driver_sql(f"SET lock_timeout = '{self._lock_timeout}'")

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
