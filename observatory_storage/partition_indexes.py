"""Indexes that a partition gets when it has closed, because they would slow its ingest down.

While rows come in, a partition has the indexes of its table alone. Once its time is over it gets
GIN indexes for attributes and for the words of prompts and completions, and one that holds tokens
and costs, built CONCURRENTLY: nobody who reads or writes waits for them, and rows that come late
are found by them too.

They belong to the partition, not to the table: a migration knows nothing of them.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any, Final, Protocol

import sqlalchemy as sa
from sqlalchemy.schema import CreateIndex, DropIndex

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
from observatory_storage.llm.content_search import content_vector
from observatory_storage.llm.dialects import USAGE_COLUMNS
from observatory_storage.models import Base
from observatory_storage.serialization import Result

__all__ = ["IndexBuild", "IndexFailure", "PartitionIndex", "build_partition_indexes"]

logger = logging.getLogger(__name__)

GRACE: Final = timedelta(hours=1)

# A build that waits keeps nobody from reading or writing, only other changes of the partition.
_LOCK_TIMEOUT: Final = "5min"
_LONGEST_NAME: Final = 63
_NO_SUCH_TABLE: Final = "42P01"
_NO_PRIVILEGE: Final = "42501"


class Source(Protocol):
    """What building needs of a pool."""

    @property
    def engine(self) -> sa.Engine: ...
    @property
    def schema(self) -> str: ...


@dataclass(frozen=True, slots=True)
class PartitionIndex(Result):
    """An index of a closed partition.

    Attributes:
        table: the partitioned table, ``trace_spans`` say.
        partition: the partition, ``trace_spans_p20260131`` say.
        name: the index.
    """

    table: str
    partition: str
    name: str


@dataclass(frozen=True, slots=True)
class IndexFailure(Result):
    """An index that could not be built this time, and why. The next run tries again."""

    index: PartitionIndex
    error: StorageError


@dataclass(frozen=True, slots=True)
class IndexBuild(Result):
    """What `build_partition_indexes` did.

    Attributes:
        built: indexes that are there now and were not before.
        existing: those that were there.
        dropped: those that nothing uses any more: an older version's, or what an interrupted build
            left behind.
        failed: those that could not be built.
    """

    built: tuple[PartitionIndex, ...] = ()
    existing: tuple[PartitionIndex, ...] = ()
    dropped: tuple[PartitionIndex, ...] = ()
    failed: tuple[IndexFailure, ...] = ()


@dataclass(frozen=True, slots=True)
class _Kind:
    """One index that every closed partition of a table gets."""

    table: str
    purpose: str
    expressions: Callable[[Any], list[Any]]
    operators: str | None = None
    using: str = "gin"
    where: Callable[[Any], sa.ColumnElement[bool]] | None = None
    include: tuple[str, ...] = ()

    def statement(self, schema: str, partition: str, name: str) -> CreateIndex:
        columns = (sa.Column(each.name, each.type) for each in Base.metadata.tables[self.table].c)
        table = sa.Table(partition, sa.MetaData(), *columns, schema=schema)
        operators = dict.fromkeys(table.c.keys(), self.operators) if self.operators else {}
        index = sa.Index(
            name,
            *self.expressions(table.c),
            postgresql_using=self.using,
            postgresql_ops=operators,
            postgresql_where=None if self.where is None else self.where(table.c),
            postgresql_include=self.include or None,
            postgresql_concurrently=True,
        )
        return CreateIndex(index)

    def name(self, dialect: sa.Dialect, schema: str, partition: str) -> str:
        """The index's name: another one where the definition is another one."""
        definition = str(self.statement(schema, partition, "index").compile(dialect=dialect))
        digest = blake2b(definition.encode(), digest_size=4).hexdigest()
        return f"{self._beginning(partition)}{digest}"

    def is_older(self, name: str, partition: str) -> bool:
        """Whether an index of the partition is one of this kind, by an older definition."""
        return re.fullmatch(re.escape(self._beginning(partition)) + "[0-9a-f]{8}", name) is not None

    def _beginning(self, partition: str) -> str:
        room = _LONGEST_NAME - len(f"ix__{self.purpose}_12345678")
        return f"ix_{partition.encode()[:room].decode(errors='ignore')}_{self.purpose}_"


_KINDS: Final = (
    _Kind(
        "trace_spans",
        "attributes",
        lambda c: [c.attributes, c.resource_attributes, c.scope_attributes, c.links],
        "jsonb_path_ops",
    ),
    _Kind("trace_spans", "content", lambda c: [content_vector(c.attributes)]),
    # What a sum of tokens and costs reads, without the prompts that lie beside it in the table.
    _Kind(
        "trace_spans",
        "usage",
        lambda c: [c.start_time],
        using="btree",
        where=lambda c: sa.or_(c.total_tokens.is_not(None), c.total_cost_usd.is_not(None)),
        include=("service_name", "provider", "model", "environment", *USAGE_COLUMNS),
    ),
    _Kind("trace_events", "attributes", lambda c: [c.attributes], "jsonb_path_ops"),
    _Kind("trace_events", "content", lambda c: [content_vector(c.attributes)]),
    _Kind(
        "logs",
        "attributes",
        lambda c: [c.attributes, c.resource_attributes, c.scope_attributes],
        "jsonb_path_ops",
    ),
)
_TABLES: Final = tuple(dict.fromkeys(kind.table for kind in _KINDS))


def build_partition_indexes(
    pool: Source,
    *,
    table: str | None = None,
    now: datetime | None = None,
    grace: timedelta = GRACE,
) -> IndexBuild:
    """Give each closed partition the indexes that it lacks, the newest partition first.

    A search by attributes, or by the words of prompts and completions, works without them: it
    reads the partition's rows. May be called at any time and again and again, say once an hour:
    what is there already costs a look into the catalog. It takes two connections of the pool, and
    minutes for a day of millions of spans; nobody who reads or writes waits for it.

    Args:
        table: ``trace_spans``, ``trace_events`` or ``logs``; all of them by default.
        now: the time that it is; the clock's by default.
        grace: a partition is closed when its time has been over for so long.

    Raises:
        Conflict: another process is at it (retryable).
        ValidationError: there is no such table, or a time has no zone.
        PoolError: the pool has but one connection.
        StorageError: the role does not own the tables, or the server cannot be reached.
    """
    if table is not None and table not in _TABLES:
        raise ValidationError("table", table, f"must be one of {', '.join(_TABLES)}")
    closed = _closing_time(now, grace)
    if layout.is_of_one(pool.engine.pool):
        raise PoolError("building indexes takes two connections: the pool has one", retryable=False)
    with translated():
        return _Build(pool.engine, pool.schema).run(table, closed)


class _Build:
    """One run: the connection that builds, and what has been done."""

    _connection: sa.Connection

    def __init__(self, engine: sa.Engine, schema: str) -> None:
        self._engine = engine
        self._schema = schema
        self._built: list[PartitionIndex] = []
        self._existing: list[PartitionIndex] = []
        self._dropped: list[PartitionIndex] = []
        self._failed: list[IndexFailure] = []

    def run(self, table: str | None, closed: datetime) -> IndexBuild:
        kinds = [kind for kind in _KINDS if table in (None, kind.table)]
        partitions = self._partitions({kind.table for kind in kinds}, closed)
        with self._lock(), self._engine.connect() as connection:
            # CREATE INDEX CONCURRENTLY stands in no transaction, so that its settings are the
            # session's: the connection is not given back to the pool.
            self._connection = connection.execution_options(isolation_level="AUTOCOMMIT")
            self._connection.detach()
            self._connection.exec_driver_sql(f"SET lock_timeout = '{_LOCK_TIMEOUT}'")
            self._connection.exec_driver_sql("SET statement_timeout = 0")
            if self._connection.scalar(sa.text("SHOW server_encoding")) != "UTF8":
                # Escapes for letters that the server has not would make it refuse rows.
                kinds = [kind for kind in kinds if kind.purpose != "content"]
            for of_table, partition in partitions:
                self._complete(partition, [kind for kind in kinds if kind.table == of_table])
        return IndexBuild(
            tuple(self._built), tuple(self._existing), tuple(self._dropped), tuple(self._failed)
        )

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Hold the advisory lock of a transaction that does nothing else.

        One of the session could outlive us behind pgbouncer.
        """
        with self._engine.connect() as connection:
            guard = connection.execution_options(isolation_level="READ COMMITTED")
            key = layout.advisory_key("indexes", self._schema)
            if not guard.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(key))):
                raise Conflict("another process is building indexes", retryable=True)
            # A build waits for all snapshots that are older, ours too: READ COMMITTED keeps none
            # between statements, but a query's until the next statement, which here needs none.
            guard.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
            yield

    def _partitions(self, tables: set[str], closed: datetime) -> list[tuple[str, str]]:
        """The closed partitions with their tables, the newest first."""
        with self._engine.begin() as connection:
            found = [
                (ranged.upper, table, partition)
                for table in tables
                for partition, ranged in layout.named(connection, self._schema, table).items()
                if ranged.upper <= closed
            ]
        return [(table, partition) for _, table, partition in sorted(found, reverse=True)]

    def _complete(self, partition: str, kinds: list[_Kind]) -> None:
        """Build what the partition lacks, and drop what it no longer needs."""
        valid = self._indexes(partition)
        for kind in kinds:
            name = kind.name(self._connection.dialect, self._schema, partition)
            index = PartitionIndex(kind.table, partition, name)
            if valid.get(name):
                self._existing.append(index)
            elif not self._build(kind, index, left_behind=name in valid):
                continue
            for older in valid:
                if older != name and kind.is_older(older, partition):
                    self._drop(PartitionIndex(kind.table, partition, older))

    def _build(self, kind: _Kind, index: PartitionIndex, *, left_behind: bool) -> bool:
        logger.info("building index %s on %s", index.name, index.partition)
        try:
            if left_behind:  # an interrupted build leaves an index that is kept up, but not used
                self._drop(index)
            self._connection.execute(kind.statement(self._schema, index.partition, index.name))
        except sa.exc.DBAPIError as error:
            known = translate(error)
            state = sqlstate_of(error)
            if known is None or isinstance(known, ConnectionLost) or state == _NO_PRIVILEGE:
                raise
            if state != _NO_SUCH_TABLE:  # it was dropped meanwhile: there is nothing to do
                logger.warning("index %s was not built: %s", index.name, known)
                self._failed.append(IndexFailure(index, known))
            return False
        self._built.append(index)
        return True

    def _drop(self, index: PartitionIndex) -> None:
        table = sa.Table(
            index.partition, sa.MetaData(), sa.Column("attributes"), schema=self._schema
        )
        old = sa.Index(index.name, table.c.attributes, postgresql_concurrently=True)
        self._connection.execute(DropIndex(old, if_exists=True))
        self._dropped.append(index)

    def _indexes(self, partition: str) -> dict[str, bool]:
        """The indexes of the partition, and whether each is valid."""
        rows = self._connection.execute(_INDEXES, {"schema": self._schema, "table": partition})
        return {row.relname: row.indisvalid for row in rows}


_INDEXES: Final = sa.text(
    "SELECT i.relname, x.indisvalid FROM pg_catalog.pg_index x"
    " JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid"
    " JOIN pg_catalog.pg_class t ON t.oid = x.indrelid"
    " JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace"
    " WHERE n.nspname = :schema AND t.relname = :table"
)


def _closing_time(given: datetime | None, grace: Any) -> datetime:
    now: Any = datetime.now(UTC) if given is None else given
    if not isinstance(now, datetime) or now.utcoffset() is None:
        raise ValidationError("now", now, "must be a datetime with a time zone")
    if not isinstance(grace, timedelta) or grace < timedelta(0):
        raise ValidationError("grace", grace, "must be a timedelta that is not negative")
    try:
        closing: datetime = now - grace
    except OverflowError:
        raise ValidationError("grace", grace, "must leave a time after the year 1") from None
    return closing
