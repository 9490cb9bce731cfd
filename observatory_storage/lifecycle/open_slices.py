"""Gives finished slices of open partitions the indexes that a whole partition gets when it closes.

An index of all rows would slow down whoever writes the newest ones. So each index has only the rows
of a slice: a range of time that has been over for some minutes. A writer of newer rows does not
touch it, late rows go into it, and searches read only what is newer than the last slice.

`CREATE INDEX` reads the whole partition, however narrow the slice is. So a slice is begun when it
has a part of the partition's rows, and many narrow slices are replaced by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Final, NamedTuple

import sqlalchemy as sa

from observatory_storage.errors import Conflict, StorageError, translated
from observatory_storage.index_builder import IndexBuilder
from observatory_storage.index_kinds import OF_OPEN, OF_SLICES, IndexKind
from observatory_storage.layout import PARTITIONED
from observatory_storage.lifecycle.run import Run
from observatory_storage.lifecycle.split_state import stored as splits
from observatory_storage.lifecycle.stored_partitions import before, estimated_rows
from observatory_storage.partition_catalog import partitions_of
from observatory_storage.serialization import Result
from observatory_storage.slice_catalog import SliceIndex, slice_indexes
from observatory_storage.time_ranges import MAX, MIN, Range

__all__ = ["IndexedSlice", "IndexedSlices", "SliceFailure", "index_open_partitions"]

# A build that waits for a lock delays no reader and no writer, but the run.
_LOCK_TIMEOUT: Final = "20s"
_TABLES: Final = tuple(dict.fromkeys(kind.table for kind in OF_SLICES))
# A build would be in vain, since it waits for these at its end.
_IS_HELD_UP: Final = sa.text(
    "SELECT EXISTS (SELECT FROM pg_catalog.pg_stat_activity"
    " WHERE datname = current_database() AND backend_xmin IS NOT NULL AND pid <> pg_backend_pid()"
    " AND backend_type = 'client backend' AND xact_start < clock_timestamp() - interval '1 min')"
)
# As much as this is read in some ten milliseconds, so an index of less would not help.
_LEAST_BYTES: Final = 8 * 1024**2
# A slice has at least this part of the partition's rows: building it reads all of them.
_LEAST_PART: Final = 0.02
# Each index makes all statements on the partition longer to plan, and searches for words most.
_MOST_SLICES: Final = 4


@dataclass(frozen=True, slots=True)
class IndexedSlice(Result):
    """A slice that has its indexes now.

    Attributes:
        partition: the partition, such as ``trace_spans_p20260131``.
        start: the begin of the slice.
        end: the end of the slice, which is not part of it.
    """

    partition: str
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class SliceFailure(Result):
    """An index of an open partition that could not be built or dropped. The next run tries again.

    Attributes:
        partition: the name of the partition.
        error: why it could not be done.
    """

    partition: str
    error: StorageError


@dataclass(frozen=True, slots=True)
class IndexedSlices(Result):
    """The result of `index_open_partitions`.

    Attributes:
        indexed: the slices that this run indexed.
        failed: the partitions in which an index could not be built or dropped.
        is_complete: whether nothing is left to do: the deadline left time, no other process was
            building indexes, and nothing failed.
    """

    indexed: tuple[IndexedSlice, ...] = ()
    failed: tuple[SliceFailure, ...] = ()
    is_complete: bool = True


class _Slice(NamedTuple):
    lower: datetime
    upper: datetime


@dataclass(frozen=True, slots=True)
class _Open:
    """A partition whose time is not over."""

    table: str
    name: str
    held: Range


def index_open_partitions(run: Run) -> IndexedSlices:
    """Index what started in open partitions at least ``partitions.index_open_after`` ago.

    The indexes are built and dropped CONCURRENTLY, so readers and writers do not wait. It uses two
    connections of the pool.

    Raises:
        PoolError: the pool has only one connection.
        StorageError: PostgreSQL cannot be reached.
    """
    indexed: list[IndexedSlice] = []
    failed: list[SliceFailure] = []
    with translated():
        found = _open_partitions(run)
        builder = IndexBuilder(run.source, _LOCK_TIMEOUT)
        try:
            with builder.opened():
                for partition in found:
                    if run.deadline.is_over:
                        break
                    work = _Work(run, builder, partition)
                    indexed += work.done()
                    if work.error is not None:
                        failed.append(SliceFailure(partition.name, work.error))
                        run.progress(f"could not index {partition.name}: {work.error}")
        except Conflict:
            run.progress("indexed no open partition: another process is building indexes")
            return IndexedSlices(is_complete=False)
    is_complete = not failed and not run.deadline.is_over
    return IndexedSlices(tuple(indexed), tuple(failed), is_complete)


def _open_partitions(run: Run) -> list[_Open]:
    """The partitions with finished rows that are not to be closed yet, and are not being split."""
    config = run.source.config.partitions
    finished, closing = (
        before(run.now, config.index_open_after),
        before(run.now, config.close_after),
    )
    split = {state.partition_name for state in splits(run.source)}
    found = []
    with run.source.engine.begin() as connection:
        for table in _TABLES:
            for name, held, is_leaving in partitions_of(connection, run.source.schema, table):
                is_open = held.lower < finished and held.upper > closing
                is_dated = held.lower != MIN and held.upper != MAX
                if is_open and is_dated and not is_leaving and name not in split:
                    found.append(_Open(table, name, held))
    return found


class _Work:
    """What there is to do in one open partition."""

    def __init__(self, run: Run, builder: IndexBuilder, partition: _Open) -> None:
        self._run = run
        self._builder = builder
        self._connection = builder.connection
        self._partition = partition
        self._failures = len(builder.done.failed)
        finished = before(run.now, run.source.config.partitions.index_open_after)
        self._end = min(partition.held.upper, finished.replace(second=0, microsecond=0))
        self._of_whole = [kind for kind in OF_OPEN if kind.table == partition.table]

    @cached_property
    def _kinds(self) -> list[IndexKind]:
        """The indexes of a slice. Small partitions never ask for them."""
        return self._builder.kinds_of_slices(self._partition.table, self._partition.name)

    @property
    def error(self) -> StorageError | None:
        """Why an index could not be built or dropped."""
        failed = self._builder.done.failed[self._failures :]
        return failed[0].error if failed else None

    def done(self) -> Iterator[IndexedSlice]:
        """Build what is due, and drop what is replaced or was left by an interrupted build."""
        schema, partition = self._run.source.schema, self._partition
        stored = [
            one
            for one in slice_indexes(self._connection, schema, partition.table)
            if one.partition == partition.name
        ]
        # Otherwise builds that fail again and again would leave more and more of them.
        if not all(self._drop(index) for index in stored if not index.is_valid):
            return
        stored = [index for index in stored if index.is_valid]
        slices = self._complete(stored)
        due = self._due(slices, stored)
        if due is not None:
            if not self._build(due):
                return
            slices = [*(one for one in slices if one.lower < due.lower), due]
            self._run.progress(f"indexed {partition.name} until {due.upper.isoformat()}")
            yield IndexedSlice(partition.name, *due)
        kept = {name for one in slices for name in self._names(one)}
        for index in stored:
            if index.name not in kept:
                self._drop(index)

    def _complete(self, stored: Sequence[SliceIndex]) -> list[_Slice]:
        """The slices that have all indexes, one after the other from the partition's begin on."""
        valid = {one.name for one in stored}
        found: list[_Slice] = []
        end = self._partition.held.lower
        while following := [
            one
            for one in {_Slice(index.lower, index.upper) for index in stored}
            if one.lower == end and one.upper > end and valid.issuperset(self._names(one))
        ]:
            found.append(max(following))  # the wider one is to replace the other
            end = found[-1].upper
        return found

    def _due(self, slices: Sequence[_Slice], stored: Sequence[SliceIndex]) -> _Slice | None:
        """The slice to be built now, which may replace the last ones; None if it would not pay."""
        begin = slices[-1].upper if slices else self._partition.held.lower
        if not self._is_worthwhile(begin):
            return None
        if len(slices) < _MOST_SLICES:
            return _Slice(begin, self._end)
        # Narrow slices are replaced first, so that each row is indexed a few times.
        widths = {one: self._bytes(one, stored) for one in slices}
        replaced = [slices[-1]]
        for one in reversed(slices[:-1]):
            if widths[one] > sum(widths[each] for each in replaced):
                break
            replaced.append(one)
        return _Slice(replaced[-1].lower, self._end)

    def _is_worthwhile(self, begin: datetime) -> bool:
        """Whether enough rows since a time are finished, and nothing holds up a build."""
        schema, partition = self._run.source.schema, self._partition
        table = sa.table(partition.name, schema=schema)
        size = sa.text("SELECT pg_table_size(to_regclass(:name))")
        quoted = self._connection.dialect.identifier_preparer.format_table(table)
        whole = self._connection.scalar(size, {"name": quoted}) or 0
        if whole < _LEAST_BYTES or begin >= self._end or not self._kinds:
            return False
        if self._connection.scalar(_IS_HELD_UP):
            return False
        if not all(self._builder.build(kind, partition.name) for kind in self._of_whole):
            return False
        time = sa.column(PARTITIONED[partition.table], sa.DateTime(timezone=True))
        finished = (
            sa.select(sa.func.count()).select_from(table).where(time >= begin, time < self._end)
        )
        rows = self._connection.scalar(finished) or 0
        part = rows / max(estimated_rows(self._connection, schema, partition.name), rows, 1)
        return part * whole >= max(_LEAST_BYTES, _LEAST_PART * whole)

    def _build(self, due: _Slice) -> bool:
        """Build the indexes of a slice; whether it has all of them."""
        for kind in self._kinds:
            if self._run.deadline.is_over:
                return False
            if not self._builder.build(kind.of_slice(*due), self._partition.name):
                return False
        return all(self._builder.summarize(kind, self._partition.name) for kind in self._of_whole)

    def _drop(self, index: SliceIndex) -> bool:
        return self._builder.drop(self._partition.table, index.partition, index.name)

    def _names(self, one: _Slice) -> list[str]:
        """The names of the indexes that a slice has."""
        dialect, schema = self._connection.dialect, self._run.source.schema
        return [
            kind.of_slice(*one).name(dialect, schema, self._partition.name) for kind in self._kinds
        ]

    def _bytes(self, one: _Slice, stored: Sequence[SliceIndex]) -> int:
        return sum(each.bytes for each in stored if (each.lower, each.upper) == one)
