"""Deletes the rows of traces that are older than they are kept, in bounded batches.

Their spans, events and payload frames go with the partitions that they are in. A trace is deleted
if its last span starts before the cutoff, which no partition crosses: so all its spans are in
expired partitions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import sqlalchemy as sa

from observatory_storage import layout
from observatory_storage.commits import Change, Commit
from observatory_storage.errors import Conflict, translated
from observatory_storage.lifecycle import partition_marks
from observatory_storage.lifecycle.keep_rules import kept_among
from observatory_storage.lifecycle.partition_marks import Mark
from observatory_storage.lifecycle.run import Run
from observatory_storage.lifecycle.spared_rows import TRACE_TABLES
from observatory_storage.lifecycle.stored_partitions import aligned
from observatory_storage.lifecycle.trace_sweep import Swept, sweep
from observatory_storage.models import PINNED_TRACES, Trace
from observatory_storage.repositories import TraceFilters
from observatory_storage.storing.trace_locks import lock_rows
from observatory_storage.storing.transaction import Source, retrying
from observatory_storage.tables import TRACES
from observatory_storage.wording import counted

__all__ = ["CutoffCrossed", "ExpiredTrace", "TraceExpiry", "Unchanged"]

_BATCH_SIZE: Final = 5_000
# Of a batch that the server deletes by itself, each trace is locked for less.
_SWEPT_AT_A_TIME: Final = 10_000
_FIRST: Final = (datetime.min.replace(tzinfo=UTC), UUID(int=0))

_IDS: Final = sa.bindparam("ids", type_=sa.ARRAY(Trace.id.type))
_LAST: Final = sa.func.coalesce(Trace.last_span_start, Trace.start_time)
_OLD: Final = sa.bindparam("cutoff") > _LAST
_WALK: Final = (
    sa.select(Trace.id, Trace.start_time, _LAST)
    .where(
        Trace.start_time < sa.bindparam("until"),
        _OLD,
        sa.tuple_(Trace.start_time, Trace.id)
        > sa.tuple_(sa.bindparam("start"), sa.bindparam("id")),
    )
    .order_by(Trace.start_time, Trace.id)
    .limit(sa.bindparam("size"))
)
# In the order of all writers. What a writer has changed while we waited is looked at again.
_LOCK: Final = (
    sa.select(Trace.id).where(Trace.id == sa.func.any(_IDS), _OLD).order_by(Trace.id)
).with_for_update()
_PINNED: Final = sa.select(PINNED_TRACES.c.trace_id).where(
    PINNED_TRACES.c.trace_id == sa.func.any(_IDS)
)
_DELETED: Final = Commit(changes=[Change(TRACES.name)])
_DELETE: Final = sa.delete(Trace).where(Trace.id == sa.func.any(_IDS))


class CutoffCrossed(Conflict):
    """A partition that crosses the cutoff was made meanwhile."""


@dataclass(frozen=True, slots=True)
class ExpiredTrace:
    """A trace that is old enough, with the bounds of its spans' starts."""

    id: UUID
    first: datetime
    last: datetime


Unchanged = Callable[[sa.Connection, Sequence[ExpiredTrace]], AbstractSet[UUID]]
"""Selects, among locked traces, those that are as they were archived."""


@dataclass(slots=True)
class TraceExpiry:
    """Deletes traces that are old enough, from the oldest on.

    Args:
        run: the run of maintenance.
        cutoff: their last spans start before it.
        keep: filters that spare traces.
        dry_run: count, and change nothing.

    Attributes:
        deleted: how many were deleted, or would be.
        kept: how many were spared.
    """

    run: Run
    cutoff: datetime
    keep: Sequence[TraceFilters] = ()
    dry_run: bool = False
    deleted: int = 0
    kept: int = 0

    def delete_all(self) -> bool:
        """Delete batch after batch. False if the deadline comes first.

        Raises:
            CutoffCrossed: a partition that crosses the cutoff was made meanwhile.
        """
        if not self.keep and not self.dry_run:
            return self._sweep_all()
        for traces in self.batches(_BATCH_SIZE):
            if self.run.deadline.is_over:
                return False
            self.delete(traces)
        return True

    def _sweep_all(self) -> bool:
        source = self.run.source
        after = _FIRST

        def once() -> Swept | None:
            with (
                translated(),
                source.commits.telling() as telling,
                source.engine.begin() as connection,
            ):
                check_cutoff(connection, source, self.cutoff)
                swept = sweep(connection, self.cutoff, after, _SWEPT_AT_A_TIME)
                if swept is not None and swept.deleted:
                    telling.announce(connection, _DELETED)
                return swept

        while not self.run.deadline.is_over:
            swept = retrying(source.config, once)
            if swept is None:
                return True
            self.deleted += swept.deleted
            self.kept += swept.pinned
            self.run.progress(f"deleted {counted(swept.deleted, 'trace')}")
            after = swept.start, swept.id
        return False

    def batches(self, size: int, until: datetime | None = None) -> Iterator[Sequence[ExpiredTrace]]:
        """The traces that are old enough, by start, each batch read when it is asked for.

        Args:
            size: the number of traces in a batch.
            until: only traces that start before.
        """
        start, key = _FIRST
        while True:
            given = {
                "cutoff": self.cutoff,
                "until": until or self.cutoff,
                "start": start,
                "id": key,
                "size": size,
            }
            with translated(), self.run.source.engine.connect() as connection:
                traces = [ExpiredTrace(*row) for row in connection.execute(_WALK, given)]
            if not traces:
                return
            yield traces
            start, key = traces[-1].first, traces[-1].id

    def delete(self, traces: Sequence[ExpiredTrace], unchanged: Unchanged | None = None) -> None:
        """Delete those of the traces that nothing spares."""
        source = self.run.source
        if self.dry_run:
            with translated(), source.engine.connect() as connection:
                kept = self.spared(connection, [trace.id for trace in traces])
            gone = len(traces) - len(kept)
        else:
            kept, gone = retrying(source.config, lambda: self._delete_once(traces, unchanged))
            self.run.progress(f"deleted {counted(gone, 'trace')}")
        self.kept += len(kept)
        self.deleted += gone

    def spared(self, connection: sa.Connection, ids: list[UUID]) -> set[UUID]:
        """Those of the traces that a pin or a rule spares."""
        pinned = set(connection.scalars(_PINNED, {"ids": ids}))
        return pinned | kept_among(connection, self.keep, [one for one in ids if one not in pinned])

    def _delete_once(
        self, traces: Sequence[ExpiredTrace], unchanged: Unchanged | None
    ) -> tuple[set[UUID], int]:
        source = self.run.source
        with (
            translated(),
            source.commits.telling() as telling,
            source.engine.begin() as connection,
        ):
            check_cutoff(connection, source, self.cutoff)
            ids = [trace.id for trace in traces]
            locked = {row.id for row in lock_rows(connection, _LOCK, ids, cutoff=self.cutoff)}
            kept = self.spared(connection, list(locked)) if locked else set()
            doomed = [trace for trace in traces if trace.id in locked and trace.id not in kept]
            if unchanged is not None:
                same = unchanged(connection, doomed)
                doomed = [trace for trace in doomed if trace.id in same]
            if doomed:
                connection.execute(_DELETE, {"ids": [trace.id for trace in doomed]})
                _note_changes(connection, doomed)
                telling.announce(connection, _DELETED)
            return kept, len(doomed)


def check_cutoff(connection: sa.Connection, source: Source, cutoff: datetime) -> None:
    """Make sure that no partition crosses the cutoff, nor is made until the transaction ends.

    Raises:
        CutoffCrossed: one does. The traces before the cutoff may have spans in it.
    """
    connection.execute(
        sa.select(
            sa.func.pg_advisory_xact_lock_shared(layout.advisory_key("partitions", source.schema))
        )
    )
    ranges = [
        one for table in TRACE_TABLES for one in layout.existing(connection, source.schema, table)
    ]
    if aligned(ranges, cutoff) != cutoff:
        raise CutoffCrossed


def _note_changes(connection: sa.Connection, doomed: Sequence[ExpiredTrace]) -> None:
    """Have the partitions that had only spared rows, and have rows of these traces, rewritten."""
    first = min(trace.first for trace in doomed)
    last = max(trace.last for trace in doomed)
    kept: list[Mark] = [mark for mark in partition_marks.marks(connection) if mark.state == "kept"]
    changed = [
        mark.partition.oid
        for mark in kept
        if first < mark.partition.upper
        and last >= mark.partition.lower
        and any(
            trace.first < mark.partition.upper and trace.last >= mark.partition.lower
            for trace in doomed
        )
    ]
    if changed:
        partition_marks.forget(connection, *changed)
