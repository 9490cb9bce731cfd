"""Moves the large values of stored rows into payload frames, or back into the rows.

Traces are taken in the order of their ids, partition by partition. The rows of some traces are
locked, as writers lock them, and then those rows are read and rewritten whose values stand in the
other place. So it can run beside writers, be killed and be repeated.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any, Final, NamedTuple, get_args
from uuid import UUID

import sqlalchemy as sa

from observatory_storage.config import PayloadMode
from observatory_storage.errors import ValidationError, translated
from observatory_storage.lifecycle.converted_rows import (
    NewRow,
    StoredRow,
    lockable,
    locked_rows,
    moved_from,
    reading,
    updating,
    whole_of,
)
from observatory_storage.lifecycle.moved_partitions import forget_moves
from observatory_storage.lifecycle.payload_walk import (
    FIRST,
    covered_ranges,
    is_of,
    is_within,
    traces_in,
)
from observatory_storage.lifecycle.run import Deadline
from observatory_storage.payloads import (
    FRAME_SETS,
    FULL_FRAME_BYTES,
    DamagedFrame,
    FrameKey,
    FrameSet,
    Member,
    OwnerTable,
    digest_of,
    hour_of,
    insert_frames,
    new_frame_id,
    prune_frames,
    read_frames,
)
from observatory_storage.serialization import Result
from observatory_storage.storing.trace_upsert import locked_traces
from observatory_storage.storing.transaction import Source, retrying
from observatory_storage.time_ranges import MIN, Range

__all__ = ["ConvertedPayloads", "conversion_to", "convert_payloads", "convert_range"]

_log = logging.getLogger(__name__)
_ROWS_AT_A_TIME: Final = 200


@dataclass(frozen=True, slots=True)
class ConvertedPayloads(Result):
    """The result of `convert_payloads`.

    Attributes:
        rows: the spans, events and log records that were looked at.
        changed_rows: those of them whose values were moved.
        failed_rows: those whose payload frames are damaged or missing. They stay as they are.
        next_start: the start of the next call, which continues there; None at the end.
    """

    rows: int = 0
    changed_rows: int = 0
    failed_rows: int = 0
    next_start: datetime | None = None


def convert_payloads(
    source: Source,
    to: PayloadMode,
    start: datetime | None = None,
    end: datetime | None = None,
    *,
    for_secs: float | None = None,
    progress: Callable[[ConvertedPayloads], object] | None = None,
) -> ConvertedPayloads:
    """Move the large values of stored rows into payload frames, or back into the rows.

    The rows are spans, events and log records. Those that stand as they shall are left alone, so
    the call can be interrupted and repeated. It works beside readers and writers, in transactions
    of at most 200 rows. Nothing but the place of the values changes: neither totals and rollups nor
    times of writing. The space of the former rows is free for new ones after VACUUM; the files do
    not shrink.

    Args:
        source: the pool. Its ``payloads.threshold_bytes`` says which values are large.
        to: "compressed" or "inline".
        start: the first start of a span, or time of a record; None for the oldest.
        end: the first time that is left out; None for no bound.
        for_secs: stop after about this time, in seconds.
        progress: is called after each transaction.

    Raises:
        ConfigError: Zstandard is not installed.
        StorageError: the database could not be used. What was moved before stays moved.
        ValidationError: an argument is not valid.
    """
    if to not in get_args(PayloadMode):
        raise ValidationError("to", to, f"must be one of {', '.join(get_args(PayloadMode))}")
    deadline = Deadline(for_secs)
    conversion = conversion_to(source, to)
    done = ConvertedPayloads()
    ranges = covered_ranges(source, start, end)
    forget_moves(source, conversion.rule, ranges)
    for held in ranges:
        for counts, _ in convert_range(source, conversion, held):
            if not counts.rows:
                continue
            done = ConvertedPayloads(
                done.rows + counts.rows,
                done.changed_rows + counts.changed,
                done.failed_rows + counts.failed,
                held.lower,
            )
            if progress is not None:
                progress(done)
            if deadline.is_over:
                return done
    return replace(done, next_start=None)


def conversion_to(source: Source, to: PayloadMode) -> Conversion:
    """The way of moving values there."""
    return _ToFrames(source) if to == "compressed" else _ToRows(source)


def convert_range(
    source: Source,
    conversion: Conversion,
    held: Range,
    after: UUID = FIRST,
    sets: Sequence[FrameSet] = FRAME_SETS,
) -> Iterator[tuple[PageCounts, UUID]]:
    """Convert the rows that start in a range, of the traces after this one.

    Args:
        sets: convert the rows of these frames.

    Yields:
        After each transaction: what it did, and the last trace that is done with all of its rows.
    """
    owners = [table for of in sets for table in of.owners]
    needs = [(one.table, one.start, conversion.is_needed(one)) for one in owners]
    for traces in traces_in(source, needs, held, after):
        for table in owners:
            for counts in conversion.pages(table, held, traces):
                yield counts, after
        after = traces[-1]
        yield PageCounts(), after


class PageCounts(NamedTuple):
    """The rows that a transaction looked at, those that it changed, and those that it could not."""

    rows: int = 0
    changed: int = 0
    failed: int = 0


class Conversion(ABC):
    """One direction of moving."""

    def __init__(self, source: Source) -> None:
        self._source = source

    @property
    @abstractmethod
    def rule(self) -> str:
        """Where values stand afterwards: `payload_rule` of partitions."""

    @abstractmethod
    def may_be_needed(self, of: FrameSet, held: Range) -> bool:
        """Whether rows that start in the range may have to be converted, as far as it is cheap."""

    @abstractmethod
    def is_needed(self, table: OwnerTable) -> sa.ColumnElement[bool]:
        """Whether the values of a row may stand in the wrong place."""

    @abstractmethod
    def prepare(self, table: OwnerTable, held: Range, traces: Sequence[UUID]) -> None:
        """Make what the rows of these traces need."""

    @abstractmethod
    def convert(
        self, connection: sa.Connection, table: OwnerTable, rows: Sequence[StoredRow]
    ) -> list[NewRow]:
        """What the rows are given. Frames that are new are inserted."""

    def pages(self, table: OwnerTable, held: Range, traces: Sequence[UUID]) -> Iterator[PageCounts]:
        """Convert the rows of these traces, some in a transaction."""
        self.prepare(table, held, traces)
        for some in lockable(self._source, table, traces):
            after: tuple[Any, ...] | None = None
            while True:
                once = partial(self._convert_once, table, held, some, after)
                counts, after = retrying(self._source.config, once)
                if after is None:
                    break
                yield counts

    def _convert_once(
        self, table: OwnerTable, held: Range, traces: Sequence[UUID], after: tuple[Any, ...] | None
    ) -> tuple[PageCounts, tuple[Any, ...] | None]:
        """Convert a page of rows; return the key of its last one, which is None at the end."""
        with translated(), self._source.engine.begin() as connection:
            present = traces
            if table.of.has_locked_traces:
                present = [trace.id for trace in locked_traces(connection, traces)]
            if not present:
                return PageCounts(), None
            rows, last = locked_rows(connection, table, self._page(table, held, present, after))
            if last is None:
                return PageCounts(), None
            new = self.convert(connection, table, rows)
            if new:
                connection.execute(updating(table, new))
            prune_frames(connection, {row.frame for row in rows if row.frame is not None}, table.of)
        changed = {one.key for one in new}
        failed = sum(row.frame is not None and row.key not in changed for row in rows)
        return PageCounts(len(rows), len(new), failed), last

    def _page(
        self, table: OwnerTable, held: Range, traces: Sequence[UUID], after: tuple[Any, ...] | None
    ) -> sa.Select[Any]:
        columns = table.table.c
        key = [columns[name] for name in table.definition.key]
        page = (
            reading(table)
            .where(
                is_of(table.table, traces),
                is_within(columns[table.start], held),
                self.is_needed(table),
            )
            .order_by(*key)
            .limit(_ROWS_AT_A_TIME)
        )
        return page if after is None else page.where(sa.tuple_(*key) > after)


class _ToFrames(Conversion):
    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self._threshold = source.config.payloads.threshold_bytes

    @property
    def rule(self) -> str:
        return f"compressed {self._threshold}"

    def may_be_needed(self, of: FrameSet, held: Range) -> bool:
        return True  # Only the rows themselves tell.

    def is_needed(self, table: OwnerTable) -> sa.ColumnElement[bool]:
        columns = table.table.c
        sizes = (sa.func.octet_length(sa.cast(columns[name], sa.Text)) for name in table.moving)
        is_large = sa.or_(*(size > self._threshold for size in sizes))
        return sa.and_(columns.payload_frame.is_(None), is_large)

    def prepare(self, table: OwnerTable, held: Range, traces: Sequence[UUID]) -> None:
        start = table.table.c[table.start]
        hours = (
            sa.select(sa.func.date_trunc("hour", start, "UTC"))
            .distinct()
            .where(is_of(table.table, traces), is_within(start, held))
        )
        with translated(), self._source.engine.connect() as connection:
            moments = connection.scalars(hours).all()
        self._source.partitions.ensure(table.of.definition.name, moments)

    def convert(
        self, connection: sa.Connection, table: OwnerTable, rows: Sequence[StoredRow]
    ) -> list[NewRow]:
        new: list[NewRow] = []
        frames: dict[FrameKey, list[Member]] = {}
        sizes: Counter[FrameKey] = Counter()
        open_frames: dict[FrameKey, FrameKey] = {}
        for row in rows:
            moved = moved_from(table, row, self._threshold)
            if moved is None:
                continue
            key = open_frames.get(row.hour)
            if key is None or sizes[key] >= FULL_FRAME_BYTES:
                key = open_frames[row.hour] = row.hour._replace(id=new_frame_id())
            frames.setdefault(key, []).append(Member(row.owner, moved.values))
            sizes[key] += sum(map(len, moved.values.values()))
            # Without the version of jsonb's binary format.
            texts = tuple(column and column[1:] for column in moved.columns)
            new.append(NewRow(row.key, texts, key.id, moved.digests[1:]))
        insert_frames(connection, frames, table.of)
        return new


class _ToRows(Conversion):
    rule = "inline"

    def may_be_needed(self, of: FrameSet, held: Range) -> bool:
        start = of.table.c.start_time
        since = held if held.lower == MIN else held._replace(lower=hour_of(held.lower))
        with translated(), self._source.engine.connect() as connection:
            return bool(connection.scalar(sa.select(sa.exists().where(is_within(start, since)))))

    def prepare(self, table: OwnerTable, held: Range, traces: Sequence[UUID]) -> None: ...

    def is_needed(self, table: OwnerTable) -> sa.ColumnElement[bool]:
        return table.table.c.payload_frame.is_not(None)

    def convert(
        self, connection: sa.Connection, table: OwnerTable, rows: Sequence[StoredRow]
    ) -> list[NewRow]:
        keys = (row.frame for row in rows if row.frame is not None)
        frames = read_frames(connection, keys, table.of)
        new = []
        for row in rows:
            assert row.frame is not None
            frame = frames[row.frame]
            if isinstance(frame, DamagedFrame):
                _log.error("%s", frame)
                continue
            values = frame.get(row.owner, {})
            if {key: digest_of(value) for key, value in values.items()} != row.digests:
                _log.error("%s has not the values of %s", row.frame, row.owner)
                continue
            new.append(NewRow(row.key, whole_of(table, row, values)))
        return new
