"""Closes partitions whose time is over: packs, indexes, analyses and freezes their rows.

What would slow down writing is done once the writing is over. A partition that gets many late
rows after that is analysed and frozen again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import Any, Final, cast

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from observatory_storage.errors import (
    ConfigError,
    Conflict,
    ConnectionLost,
    StorageError,
    sqlstate_of,
    translate,
    translated,
)
from observatory_storage.index_builder import IndexBuilder
from observatory_storage.index_kinds import CLOSED
from observatory_storage.layout import PARTITIONED
from observatory_storage.lifecycle.frame_packing import give_back_space, pack_partition
from observatory_storage.lifecycle.run import Run
from observatory_storage.models import PartitionState
from observatory_storage.partition_catalog import partitions_of
from observatory_storage.payloads import FRAME_SETS
from observatory_storage.serialization import Result
from observatory_storage.storing.transaction import Source
from observatory_storage.time_ranges import MAX, MIN, Range

__all__ = ["ClosedPartitions", "ClosingFailure", "close_partitions"]

# A build or a VACUUM that waits for a lock delays no reader and no writer, but the run.
_LOCK_TIMEOUT: Final = "20s"
_NO_SUCH_TABLE: Final = "42P01"
# The part of a closed partition that may change before it is analysed and frozen again.
_LATE_PART: Final = 0.1
_STATES: Final = cast(sa.Table, PartitionState.__table__)
_FRAME_SETS: Final = {of.definition.name: of for of in FRAME_SETS}


@dataclass(frozen=True, slots=True)
class ClosingFailure(Result):
    """A partition that could not be closed. The next run tries again.

    Attributes:
        partition: the name of the partition.
        error: why it could not be closed.
    """

    partition: str
    error: StorageError


@dataclass(frozen=True, slots=True)
class ClosedPartitions(Result):
    """The result of `close_partitions`.

    Attributes:
        closed: the partitions that this run closed.
        renewed: closed partitions that this run analysed and froze again after many late rows, or
            whose indexes it replaced because their definitions had changed.
        failed: the partitions that could not be closed.
        is_complete: whether nothing is left to do: the deadline left time, no other process was
            building indexes, and nothing failed.
    """

    closed: tuple[str, ...] = ()
    renewed: tuple[str, ...] = ()
    failed: tuple[ClosingFailure, ...] = ()
    is_complete: bool = True


@dataclass(frozen=True, slots=True)
class _Due:
    """A partition to close, or to attend to again."""

    table: str
    name: str
    held: Range
    oid: int
    is_owned: bool
    was_closed: bool


def close_partitions(run: Run) -> ClosedPartitions:
    """Close the partitions whose range has been over for ``partitions.close_after``.

    A partition gets the indexes of closed partitions (see `build_partition_indexes`), is analysed
    and frozen (``VACUUM (FREEZE, ANALYZE)``), and is marked in the table ``partition_states``.
    Readers and writers do not wait meanwhile, and late rows still go in. The newest partition comes
    first. Indexes of tables that a migration has changed are built for all partitions. It uses two
    connections of the pool.

    Raises:
        PoolError: the pool has only one connection.
        StorageError: the role may not write what it did, or PostgreSQL cannot be reached.
    """
    digest = _digest(run.source)
    with translated():
        _forget_dropped(run.source)
        unpacked = _pack_frames(run, _due(run, digest))
        due = _due(run, digest)
        builder = IndexBuilder(run.source, _LOCK_TIMEOUT)
        try:
            with builder.opened():
                return _close(run, builder, due, digest, unpacked)
        except Conflict:
            run.progress("closed no partition: another process is building indexes")
            return ClosedPartitions(is_complete=False)


def _pack_frames(run: Run, due: list[_Due]) -> dict[str, StorageError]:
    """Pack the payload frames of partitions that are to be closed; the errors by partition."""
    failed: dict[str, StorageError] = {}
    for one in due:
        of = _FRAME_SETS.get(one.table)
        if of is not None and one.is_owned and not run.deadline.is_over:
            try:
                if pack_partition(run, one.name, of):
                    give_back_space(run, one.name, one.held, of)
            except (ConfigError, Conflict) as error:
                failed[one.name] = error
    return failed


def _close(
    run: Run,
    builder: IndexBuilder,
    due: list[_Due],
    digest: str,
    unpacked: Mapping[str, StorageError],
) -> ClosedPartitions:
    closed: list[str] = []
    renewed: list[str] = []
    failed: list[ClosingFailure] = []
    builder.attach_changed(is_over=lambda: run.deadline.is_over)
    for one in due:
        if run.deadline.is_over:
            break
        error = unpacked.get(one.name) or _close_one(run, builder, one, digest)
        if error is not None:
            failed.append(ClosingFailure(one.name, error))
            run.progress(f"could not close {one.name}: {error}")
        elif one.was_closed:
            renewed.append(one.name)
            run.progress(f"analysed and froze {one.name} again")
        else:
            closed.append(one.name)
            run.progress(f"closed {one.name}")
    return ClosedPartitions(
        tuple(closed),
        tuple(renewed),
        tuple(failed),
        is_complete=not failed and not run.deadline.is_over,
    )


def _close_one(run: Run, builder: IndexBuilder, due: _Due, digest: str) -> StorageError | None:
    """Close a partition; the error if it cannot be closed now."""
    connection = builder.connection
    if not due.is_owned:
        # VACUUM would only warn, and skip the partition.
        role = connection.scalar(sa.text("SELECT current_user"))
        return StorageError(f"{role} does not own {due.name}: only its owner can close it")
    if not builder.complete(due.table, due.name):
        return builder.done.failed[-1].error
    quote = connection.dialect.identifier_preparer.quote
    partition = f"{quote(run.source.schema)}.{quote(due.name)}"
    try:
        connection.exec_driver_sql(f"VACUUM (FREEZE, ANALYZE) {partition}")
    except sa.exc.DBAPIError as raised:
        error = translate(raised)
        if error is None or isinstance(error, ConnectionLost):
            raise
        return None if sqlstate_of(raised) == _NO_SUCH_TABLE else error
    _mark(run, due, digest)
    return None


def _mark(run: Run, due: _Due, digest: str) -> None:
    values: dict[str, Any] = {
        "partition_name": due.name,
        "table_name": due.table,
        "relation_oid": due.oid,
        "lower_bound": None if due.held.lower == MIN else due.held.lower,
        "upper_bound": None if due.held.upper == MAX else due.held.upper,
        "closed_at": run.now,
        "frozen_at": run.now,
        "index_definitions": digest,
    }
    count = sa.text("SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = :oid")
    with run.source.engine.begin() as connection:
        row_count = connection.scalar(count, {"oid": due.oid})
        if row_count is None:  # dropped meanwhile
            return
        values["row_count"] = row_count
        marked = insert(_STATES).values(values)
        kept = {"partition_name", *(("closed_at",) if due.was_closed else ())}
        changes: dict[str, sa.ColumnElement[Any]] = {
            name: marked.excluded[name] for name in values if name not in kept
        }
        if due.was_closed:
            # Late rows may have to be moved, unless what has changed are the rows that were moved.
            was_moved = _STATES.c.payloads_moved_at > _STATES.c.frozen_at
            for name in ("payload_rule", "payload_after"):
                changes[name] = sa.case((was_moved, _STATES.c[name]))
        key = ["partition_name"]
        connection.execute(marked.on_conflict_do_update(index_elements=key, set_=changes))


def _forget_dropped(source: Source) -> None:
    """Remove the marks of partitions that are no longer there."""
    is_gone = sa.text(
        "NOT EXISTS (SELECT FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
        " WHERE c.oid = relation_oid AND c.relname = partition_name)"
    )
    with source.engine.begin() as connection:
        connection.execute(sa.delete(_STATES).where(is_gone))


def _due(run: Run, digest: str) -> list[_Due]:
    """What is to be closed, or closed again, the newest first."""
    closing: datetime = max(MIN, run.now - run.source.config.partitions.close_after)
    due = []
    with run.source.engine.begin() as connection:
        states = {row.partition_name: row for row in connection.execute(sa.select(_STATES))}
        for table in PARTITIONED:
            names = {"schema": run.source.schema, "table": table}
            facts = {row.relname: row for row in connection.execute(_FACTS, names)}
            for name, held, is_leaving in partitions_of(connection, run.source.schema, table):
                fact = facts.get(name)
                if held.upper > closing or is_leaving or fact is None:
                    continue
                state = states.get(name)
                if state is not None:
                    bound = _LATE_PART * state.row_count
                    growth = abs(max(fact.reltuples, 0) - state.row_count)
                    is_settled = fact.changes <= bound and growth <= bound
                    if is_settled and state.index_definitions == digest:
                        continue
                due.append(_Due(table, name, held, fact.oid, fact.owned, state is not None))
    return sorted(due, key=lambda one: (one.held.upper, one.table), reverse=True)


_FACTS: Final = sa.text(
    "SELECT c.oid::bigint AS oid, c.relname, c.reltuples,"
    " pg_has_role(c.relowner, 'USAGE') AS owned,"
    " coalesce(pg_stat_get_mod_since_analyze(c.oid), 0) AS changes"
    " FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
    " JOIN pg_class p ON p.oid = i.inhparent"
    " JOIN pg_namespace n ON n.oid = p.relnamespace"
    " WHERE n.nspname = :schema AND p.relname = :table"
)


def _digest(source: Source) -> str:
    """A digest of the definitions of the indexes of closed partitions."""
    dialect = source.engine.dialect
    names = [kind.name(dialect, source.schema, kind.table) for kind in CLOSED]
    return blake2b(" ".join(names).encode(), digest_size=8).hexdigest()
