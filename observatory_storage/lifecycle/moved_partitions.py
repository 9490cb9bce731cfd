"""Notes on which closed partitions maintenance has moved the large values of, or is moving.

They are columns of `partition_states`. When a closed partition is attended to again after many
late rows, `closing` removes its note.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final, NamedTuple, cast
from uuid import UUID

import sqlalchemy as sa

from observatory_storage.errors import translated
from observatory_storage.lifecycle.payload_walk import FIRST
from observatory_storage.models import PartitionState
from observatory_storage.payloads import FRAME_SETS, FrameSet
from observatory_storage.storing.transaction import Source
from observatory_storage.time_ranges import MAX, MIN, Range

__all__ = ["UnmovedPartition", "forget_moves", "note_end", "note_position", "unmoved"]

_STATES: Final = cast(sa.Table, PartitionState.__table__)
_COLUMNS: Final = _STATES.c
_SETS: Final = {owners.definition.name: of for of in FRAME_SETS for owners in of.owners}
_HAS_VALUES: Final = _COLUMNS.table_name.in_(_SETS)


class UnmovedPartition(NamedTuple):
    """A closed partition whose values may have to be moved.

    Attributes:
        name: the name of the partition.
        oid: its OID.
        held: its range.
        after: the last trace that is done.
        of: the frames of its rows.
    """

    name: str
    oid: int
    held: Range
    after: UUID
    of: FrameSet


def unmoved(source: Source, rule: str) -> list[UnmovedPartition]:
    """The closed partitions of rows with values that do not follow the rule, the newest first."""
    is_done = sa.and_(_COLUMNS.payload_rule == rule, _COLUMNS.payload_after.is_(None))
    waiting = (
        sa.select(_STATES)
        .where(_HAS_VALUES, is_done.is_not(sa.true()))
        .order_by(_COLUMNS.upper_bound.desc().nulls_first(), _COLUMNS.table_name.desc())
    )
    with translated(), source.engine.connect() as connection:
        return [
            UnmovedPartition(
                row.partition_name,
                row.relation_oid,
                Range(row.lower_bound or MIN, row.upper_bound or MAX),
                (row.payload_after if row.payload_rule == rule else None) or FIRST,
                _SETS[row.table_name],
            )
            for row in connection.execute(waiting)
        ]


def note_position(
    source: Source, partition: UnmovedPartition, rule: str, after: UUID, moved_at: datetime | None
) -> None:
    """Note the last trace that is done.

    Args:
        moved_at: the present time, if values were moved.
    """
    this = sa.and_(
        _COLUMNS.partition_name == partition.name, _COLUMNS.relation_oid == partition.oid
    )
    _note(source, this, rule, after, moved_at)


def note_end(
    source: Source, partition: UnmovedPartition, rule: str, moved_at: datetime | None
) -> None:
    """Note that all of the range of a partition is done: spans with their events, or log records.

    Args:
        moved_at: the present time, if values were moved.
    """
    names = [owners.definition.name for owners in partition.of.owners]
    these = sa.and_(_COLUMNS.table_name.in_(names), _is_in(partition.held))
    _note(source, these, rule, None, moved_at)


def _is_in(held: Range) -> sa.ColumnElement[bool]:
    bounds = [_COLUMNS.lower_bound >= held.lower] if held.lower > MIN else []
    bounds += [_COLUMNS.upper_bound <= held.upper] if held.upper < MAX else []
    return sa.and_(sa.true(), *bounds)


def _note(
    source: Source,
    where: sa.ColumnElement[bool],
    rule: str,
    after: UUID | None,
    moved_at: datetime | None,
) -> None:
    values = {"payload_rule": rule, "payload_after": after}
    moved = {} if moved_at is None else {"payloads_moved_at": moved_at}
    with translated(), source.engine.begin() as connection:
        connection.execute(sa.update(_STATES).where(where).values({**values, **moved}))


def forget_moves(source: Source, rule: str, ranges: Iterable[Range]) -> None:
    """Remove the notes on partitions that do not follow the rule any more, as values move there."""
    overlap = sa.or_(sa.false(), *map(_overlaps, ranges))
    where = sa.and_(_HAS_VALUES, _COLUMNS.payload_rule != rule, overlap)
    gone = {"payload_rule": None, "payload_after": None}
    with translated(), source.engine.begin() as connection:
        connection.execute(sa.update(_STATES).where(where).values(gone))


def _overlaps(held: Range) -> sa.ColumnElement[bool]:
    lower, upper = _COLUMNS.lower_bound, _COLUMNS.upper_bound
    return sa.and_(
        sa.or_(lower.is_(None), lower < held.upper), sa.or_(upper.is_(None), upper > held.lower)
    )
