"""Splits partitions that are too wide and have filled up, beside readers and writers.

The rows are copied into new tables that nobody knows of. Then the table is locked for a moment, in
which what has changed since is copied too, and the new tables take the partition's place.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import sqlalchemy as sa

from observatory_storage import layout
from observatory_storage.distribution import is_sharded
from observatory_storage.errors import (
    Conflict,
    PoolError,
    StorageError,
    Timeout,
    sqlstate_of,
    translated,
)
from observatory_storage.lifecycle.run import Run
from observatory_storage.lifecycle.short_locks import with_short_locks
from observatory_storage.lifecycle.split_copy import SplitCopy
from observatory_storage.lifecycle.split_plan import Split, planned_splits
from observatory_storage.lifecycle.split_state import (
    CHECK_NAME,
    SplitState,
    begin,
    discard,
    is_valid,
    save,
    stored,
)
from observatory_storage.partition_catalog import attach
from observatory_storage.serialization import Result
from observatory_storage.storing.transaction import Source
from observatory_storage.time_ranges import Range, named_gap
from observatory_storage.wording import counted

__all__ = [
    "PartitionSplitFailure",
    "SplitPartition",
    "SplitPartitions",
    "copy_anew",
    "split_partitions",
]

# While the table is locked, the partition is looked through once. Readers wait for it.
_SCAN_TIMEOUT: Final = "600ms"
# Changes that are copied while the table is locked.
_MOST_CHANGES: Final = 2000
_ROUNDS: Final = 12
_NO_SUCH_TABLE: Final = "42P01"


@dataclass(frozen=True, slots=True)
class SplitPartition(Result):
    """A partition that was split.

    Attributes:
        partition: the partition that was, such as ``logs_p202601``.
        into: the partitions that took its place.
        rows: how many rows they have.
    """

    partition: str
    into: tuple[str, ...]
    rows: int


@dataclass(frozen=True, slots=True)
class PartitionSplitFailure(Result):
    """A partition that could not be split now. The next run goes on with it.

    Attributes:
        partition: the name of the partition.
        error: why it could not be split.
    """

    partition: str
    error: StorageError


@dataclass(frozen=True, slots=True)
class SplitPartitions(Result):
    """The result of `split_partitions`.

    Attributes:
        split: the partitions that this run split.
        failed: the partitions that could not be split now.
        is_complete: whether nothing is left to do.
    """

    split: tuple[SplitPartition, ...] = ()
    failed: tuple[PartitionSplitFailure, ...] = ()
    is_complete: bool = True


class _Behind(Exception):
    """The new tables lack more than can be copied while the table is locked."""


class _Unequal(Exception):
    """The new tables have rows that the partition has not, or lack some."""


class _Invalid(Exception):
    """The partition or the definition of the table has changed since the split began."""


def split_partitions(run: Run) -> SplitPartitions:
    """Split the partitions that are too wide and have more rows than ``partitions.split_rows``.

    These are months, years, catch-alls and gaps, where rows of their time would have narrower
    partitions now. Rows are copied in transactions of about half a second; a run that ends in
    between goes on later. Readers and writers wait less than a second, while the new partitions
    take the place of the old one. It uses two connections of the pool. Where Citus distributes the
    tables, no partition is split.

    Raises:
        PoolError: the pool has only one connection.
        StorageError: the role does not own the tables, or PostgreSQL cannot be reached.
    """
    split: list[SplitPartition] = []
    failed: list[PartitionSplitFailure] = []
    if is_sharded(run.source.engine):
        return (
            SplitPartitions()
        )  # the copy finds its rows by their places and versions in one table
    with translated(), _alone(run.source) as is_alone:
        if not is_alone:
            run.progress("split no partition: another process is splitting")
            return SplitPartitions(is_complete=False)
        for state in _states(run):
            try:
                with translated():
                    done = _split(run, state)
            except (Conflict, Timeout) as error:
                failed.append(PartitionSplitFailure(state.partition_name, error))
                run.progress(f"could not split {state.partition_name} yet: {error}")
                continue
            except StorageError as error:
                if error.__cause__ is None or sqlstate_of(error.__cause__) != _NO_SUCH_TABLE:
                    raise
                _discard(run, state)  # the partition was dropped meanwhile
                continue
            if done is None:
                return SplitPartitions(tuple(split), tuple(failed), is_complete=False)
            split.append(done)
            run.progress(f"split {done.partition} into {counted(len(done.into), 'partition')}")
    return SplitPartitions(tuple(split), tuple(failed), is_complete=not failed)


def copy_anew(run: Run, table: str, partition: str, held: Range) -> bool:
    """Let a copy of a partition take its place, which has none of its free space.

    It works as a split into one range. If something gets in the way, the next call of
    `split_partitions` goes on with it.

    Returns:
        Whether it was done.

    Raises:
        PoolError: the pool has only one connection.
        StorageError: the role does not own the tables, or PostgreSQL cannot be reached.
    """
    same = named_gap(held.lower, held.upper)
    with translated(), _alone(run.source) as is_alone:
        if not is_alone or any(one.partition_name == partition for one in stored(run.source)):
            return False
        state = begin(run.source, Split(table, partition, (same,)))
        try:
            with translated():
                return state is not None and _split(run, state) is not None
        except (Conflict, Timeout) as error:
            run.progress(f"could not copy {partition} anew yet: {error}")
            return False


@contextmanager
def _alone(source: Source) -> Iterator[bool]:
    """Hold the lock of splitting, in a transaction that does nothing else."""
    if layout.is_of_one(source.engine.pool):
        raise PoolError(
            "splitting partitions needs two connections, but the pool has only one",
            retryable=False,
        )
    with source.engine.connect() as connection:
        key = layout.advisory_key("splitting", source.schema)
        is_alone = connection.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(key)))
        # It has no snapshot after this, which would keep dead rows.
        connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
        yield bool(is_alone)


def _states(run: Run) -> Iterator[SplitState]:
    """The splits to go on with, then those to begin."""
    for state in stored(run.source):
        with run.source.engine.begin() as connection:
            goes_on = not state.is_replaced and is_valid(connection, run.source, state)
        if goes_on:
            yield state
        else:
            _discard(run, state)
    if run.deadline.is_over:
        return
    for split in planned_splits(run):
        if not any(state.partition_name == split.partition for state in stored(run.source)):
            begun = begin(run.source, split)
            if begun is not None:
                yield begun


def _discard(run: Run, state: SplitState) -> None:
    try:
        discard(run.source, state)
    except sa.exc.OperationalError as error:  # somebody holds a lock; the next run does it
        run.progress(f"could not drop what is left of {state.partition_name} yet: {error.orig}")


def _split(run: Run, state: SplitState) -> SplitPartition | None:
    """Split a partition; None if the deadline came first."""
    copy = SplitCopy(run, state)
    copy.copy_rows()
    for round_ in range(_ROUNDS):
        if run.deadline.is_over:
            return None
        if round_ == 0:
            copy.copy_changes()
            copy.analyze()
            copy.count()
        _check_size(run, copy)
        # Last, so that little is left for the time in which the table is locked.
        copy.copy_changes()
        try:
            rows = with_short_locks(run.source, partial(_replace, run.source, copy))
        except _Behind:
            continue
        except _Unequal:
            copy.compare()
            copy.count()
            continue
        except _Invalid:
            _discard(run, copy.state)
            raise Conflict(f"{state.partition_name} has been changed", retryable=True) from None
        run.source.partitions.forget()
        into = tuple(one.name for one in state.new_tables)
        _discard(run, replace(copy.state, is_replaced=True))
        return SplitPartition(state.partition_name, into, rows)
    raise Conflict(
        f"{state.partition_name} changes too fast, or by too long transactions, to be split now",
        retryable=True,
    )


def _check_size(run: Run, copy: SplitCopy) -> None:
    """Make sure that the partition is looked through in time, before the table is locked."""
    try:
        with translated(), run.source.engine.begin() as connection:
            copy.scan(connection, _SCAN_TIMEOUT)
    except Timeout as error:
        raise Timeout(
            f"{copy.state.partition_name} cannot be looked through within {_SCAN_TIMEOUT},"
            " during which readers and writers would wait",
            retryable=False,
        ) from error.__cause__


def _replace(source: Source, copy: SplitCopy, connection: sa.Connection) -> int:
    """Copy the last changes, and let the new tables take the partition's place; their rows."""
    state = copy.state
    quote = connection.dialect.identifier_preparer.quote
    parent, old = (
        f"{quote(source.schema)}.{quote(name)}" for name in (state.table_name, state.partition_name)
    )
    _check_snapshots(connection)
    # VACUUM is waited for before anybody else has to wait.
    connection.exec_driver_sql(f"LOCK TABLE ONLY {old} IN SHARE UPDATE EXCLUSIVE MODE")
    connection.exec_driver_sql(f"LOCK TABLE ONLY {parent} IN ACCESS EXCLUSIVE MODE")
    connection.exec_driver_sql(f"LOCK TABLE ONLY {old} IN ACCESS EXCLUSIVE MODE")
    if not is_valid(connection, source, state):
        raise _Invalid
    _check_snapshots(connection)
    found = copy.scan(connection, _SCAN_TIMEOUT)
    if found.changes > _MOST_CHANGES:
        raise _Behind
    fresh = copy.copy_listed(connection, found.listed) if found.changes else 0
    if copy.rows + fresh != found.rows:
        raise _Unequal
    connection.exec_driver_sql(f"ALTER TABLE {parent} DETACH PARTITION {old}")
    for new in state.new_tables:
        attach(connection, source.schema, state.table_name, new.name, new.held)
        child = f"{quote(source.schema)}.{quote(new.name)}"
        connection.exec_driver_sql(f"ALTER TABLE {child} DROP CONSTRAINT {CHECK_NAME}")
    save(connection, replace(state, is_replaced=True))
    return found.rows


def _check_snapshots(connection: sa.Connection) -> None:
    if connection.scalar(_HAS_OLD_SNAPSHOTS):
        raise Conflict(
            "a transaction of another session has kept a snapshot for over a second, in which the"
            " new partitions would be empty",
            retryable=False,
        )


# READ COMMITTED takes another snapshot before it reads on. An idle transaction does not tell its
# isolation level, so one that is that idle counts as REPEATABLE READ.
_HAS_OLD_SNAPSHOTS: Final = sa.text(
    "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()"
    " AND pid <> pg_backend_pid() AND backend_xmin IS NOT NULL"
    " AND state LIKE 'idle in transaction%' AND state_change < now() - interval '1 second')"
)
