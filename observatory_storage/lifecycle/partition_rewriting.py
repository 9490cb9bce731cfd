"""Replaces an expired partition by one that has only the rows of spared traces.

The rows are copied while others read and write. Then, in one short transaction, writers of this
partition are held up while the traces that changed meanwhile are copied again, and the new
partition takes the place of the old one.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final
from uuid import UUID

import sqlalchemy as sa

from observatory_storage.distribution import is_sharded, wait_for_commits
from observatory_storage.errors import Conflict, translated
from observatory_storage.layout import PARTITIONED
from observatory_storage.lifecycle import partition_marks
from observatory_storage.lifecycle.partition_marks import Versions
from observatory_storage.lifecycle.partition_removal import columns_of
from observatory_storage.lifecycle.run import Run
from observatory_storage.lifecycle.segment_merging import forget_expired
from observatory_storage.lifecycle.short_locks import with_short_locks
from observatory_storage.lifecycle.spared_rows import (
    SparedRows,
    correct_totals,
    frames_with_expired_values,
    prune_expired_values,
    spared_traces,
    with_wrong_totals,
)
from observatory_storage.lifecycle.stored_partitions import StoredPartition, bound
from observatory_storage.payloads import FrameKey
from observatory_storage.schema_state import quoted_name
from observatory_storage.storing.transaction import Source, retrying
from observatory_storage.tables import PAYLOAD_FRAMES, SPANS
from observatory_storage.wording import counted

__all__ = ["rewrite"]

_RANGE: Final = "expired_range"
_PRUNED_AT_A_TIME: Final = 100
_PATIENCE_SECS: Final = 0.3
_MIN: Final = datetime.min.replace(tzinfo=UTC)
_OID: Final = sa.text(
    "SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n"
    " ON n.oid = c.relnamespace WHERE n.nspname = :schema AND c.relname = :name"
)


def rewrite(run: Run, partition: StoredPartition) -> int | None:
    """Replace a partition by one with the rows of spared traces.

    Returns:
        How many rows were kept; None if others did not let go of the partition in time.
    """
    if partition.table == PAYLOAD_FRAMES.name:
        _prune_expired(run.source, partition)
    rewriting = _Rewriting(run.source, partition)
    rewriting.fill()
    try:
        kept = with_short_locks(run.source, rewriting.swap)
    except Conflict:
        rewriting.give_up()
        return None
    if partition.table == PAYLOAD_FRAMES.name:
        with translated(), run.source.engine.begin() as connection:
            forget_expired(connection, partition.lower, partition.upper)
    run.progress(f"kept {counted(kept, 'row')} of {partition.name}")
    return kept


def _prune_expired(source: Source, partition: StoredPartition) -> None:
    """Remove the values of expired spans from the frames that stay."""
    with translated(), source.engine.connect() as connection:
        keys = frames_with_expired_values(connection, source.schema, partition.name)

    def prune(some: Sequence[FrameKey]) -> None:
        with translated(), source.engine.begin() as connection:
            prune_expired_values(connection, some)

    for first in range(0, len(keys), _PRUNED_AT_A_TIME):
        some = keys[first : first + _PRUNED_AT_A_TIME]
        retrying(source.config, partial(prune, some))


class _Rewriting:
    def __init__(self, source: Source, partition: StoredPartition) -> None:
        self._source = source
        self._partition = partition
        schema = quoted_name(source.schema)
        self._new_name = f"{partition.name}_kept"
        self._parent = f"{schema}.{quoted_name(partition.table)}"
        self._old = f"{schema}.{quoted_name(partition.name)}"
        self._new = f"{schema}.{quoted_name(self._new_name)}"
        self._rows = SparedRows(source.schema, partition.table, partition.name)
        self._copied: dict[UUID, Versions] = {}
        self._wrong: set[UUID] = set()
        self._new_oid = 0

    def fill(self) -> None:
        """Make the new table, and copy the rows as one snapshot has them."""
        with translated(), self._source.engine.connect() as any_connection:
            connection = any_connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
                connection.execute(
                    sa.text(f"CREATE TABLE {self._new} (LIKE {self._parent} INCLUDING ALL)")
                )
                # With it PostgreSQL attaches the table without reading its rows.
                connection.execute(
                    sa.text(f"ALTER TABLE {self._new} ADD CONSTRAINT {_RANGE} {self._check()}")
                )
                self._new_oid = connection.scalar(
                    _OID, {"schema": self._source.schema, "name": self._new_name}
                )
                partition_marks.note(connection, self._noted(self._new_name), "filled")
                spared = spared_traces(connection, self._partition.lower, self._partition.upper)
                self._copied = self._rows.versions(connection, spared)
                if self._partition.table == SPANS.name:
                    self._wrong = with_wrong_totals(connection, self._copied)
                self._rows.copy_to(connection, self._new, spared, self._columns(connection))

    def swap(self, connection: sa.Connection) -> int:
        """Copy what has changed, and let the new table take the place of the old one."""
        # From here on nobody writes to the old partition, while everybody reads it.
        if is_sharded(connection):
            # COPY to shards locks the parent alone.
            connection.execute(sa.text(f"LOCK TABLE ONLY {self._parent} IN SHARE MODE"))
            wait_for_commits(connection, _PATIENCE_SECS)
        else:
            connection.execute(sa.text(f"LOCK TABLE {self._old} IN SHARE MODE"))
        spared = spared_traces(connection, self._partition.lower, self._partition.upper)
        present = self._rows.versions(connection, spared)
        changed = {
            key
            for key in self._copied.keys() | present.keys()
            if self._copied.get(key) != present.get(key)
        }
        if changed:
            connection.execute(
                sa.text(f"DELETE FROM {self._new} WHERE trace_id = ANY(:ids)"),  # noqa: S608 - quoted
                {"ids": list(changed)},
            )
            again = [trace for trace in spared if trace.id in changed]
            self._rows.copy_to(connection, self._new, again, self._columns(connection))
        if self._partition.table == SPANS.name:
            # The totals of the others were right when their rows were copied.
            correct_totals(connection, changed | self._wrong)
        # From here on everybody waits for this transaction, which takes a few milliseconds more.
        self._execute(connection, f"ALTER TABLE {self._parent} DETACH PARTITION {self._old}")
        self._execute(connection, f"DROP TABLE {self._old}")
        partition_marks.forget(connection, self._partition.oid, self._new_oid)
        if not present:
            self._execute(connection, f"DROP TABLE {self._new}")
            return 0
        name = quoted_name(self._partition.name)
        self._execute(connection, f"ALTER TABLE {self._new} RENAME TO {name}")
        self._execute(
            connection,
            f"ALTER TABLE {self._parent} ATTACH PARTITION {self._old}"
            f" FOR VALUES FROM ({self._lower()}) TO ({self._upper()})",
        )
        self._execute(connection, f"ALTER TABLE {self._old} DROP CONSTRAINT {_RANGE}")
        partition_marks.note(connection, self._noted(self._partition.name), "kept")
        return sum(versions.rows for versions in present.values())

    def give_up(self) -> None:
        """Drop the new table."""
        with translated(), self._source.engine.begin() as connection:
            self._execute(connection, f"DROP TABLE {self._new}")
            partition_marks.forget(connection, self._new_oid)

    def _noted(self, name: str) -> StoredPartition:
        return self._partition._replace(name=name, oid=self._new_oid)

    def _columns(self, connection: sa.Connection) -> str:
        return columns_of(connection, self._source.schema, self._partition.table)

    def _check(self) -> str:
        start = PARTITIONED[self._partition.table]
        bounds = []
        if self._partition.lower != _MIN:
            bounds.append(f"{start} >= {self._lower()}")
        if bound(self._partition.upper) is not None:
            bounds.append(f"{start} < {self._upper()}")
        return f"CHECK ({' AND '.join(bounds) or 'true'})"

    def _lower(self) -> str:
        lower = bound(self._partition.lower)
        return "MINVALUE" if lower is None else _literal(lower)

    def _upper(self) -> str:
        upper = bound(self._partition.upper)
        return "MAXVALUE" if upper is None else _literal(upper)

    @staticmethod
    def _execute(connection: sa.Connection, statement: str) -> None:
        connection.execute(sa.text(statement))


def _literal(moment: datetime) -> str:
    return "'" + moment.isoformat().replace(":", "\\:") + "'"
