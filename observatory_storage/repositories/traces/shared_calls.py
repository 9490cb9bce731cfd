"""Finds the traces that have spans of the same calls as others, when these are deleted."""

from __future__ import annotations

from datetime import timedelta
from typing import Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import aliased

from observatory_storage.models import Trace, TraceSpan
from observatory_storage.repositories.reading.reader import Reader

__all__ = ["mark_sharing_calls"]

_DAY: Final = timedelta(days=1)  # spans of one call start within it


def mark_sharing_calls(reader: Reader, deleted: sa.Select[UUID]) -> None:
    """Mark the traces whose usage may count on a span that is deleted: it counts on theirs then.

    The deleted traces are locked, in the order of all writers. Locking others after them may
    deadlock with a writer of both, which is rare and is retried.
    """
    gone, other = aliased(TraceSpan), aliased(TraceSpan)
    if reader.is_sharded:
        found = sa.literal(_sharing_on_shards(reader, deleted), ARRAY(Trace.id.type))
        _mark(reader, Trace.id == sa.func.any(found), deleted)
        return
    sharing = (
        sa.select(other.trace_id)
        .join(gone, gone.response_id == other.response_id)
        .join(Trace, Trace.id == gone.trace_id)
        .where(
            gone.trace_id.in_(deleted),
            gone.start_time.between(Trace.start_time, Trace.last_span_start),
            other.start_time.between(gone.start_time - _DAY, gone.start_time + _DAY),
            other.reported_usage.is_not(None),
        )
    )
    _mark(reader, Trace.id.in_(sharing), deleted)


def _mark(reader: Reader, shares: sa.ColumnElement[bool], deleted: sa.Select[UUID]) -> None:
    reader.run(
        sa.update(Trace)
        .where(shares, Trace.id.not_in(deleted), Trace.unsettled_since.is_(None))
        .values(unsettled_since=sa.func.statement_timestamp())
        .execution_options(synchronize_session=False)
    )


def _sharing_on_shards(reader: Reader, deleted: sa.Select[UUID]) -> list[UUID]:
    """The traces that share a call: their spans are on other shards than those that are deleted."""
    gone, other = aliased(TraceSpan), aliased(TraceSpan)
    calls = reader.rows(
        sa.select(gone.response_id, sa.func.min(gone.start_time), sa.func.max(gone.start_time))
        .where(gone.trace_id.in_(deleted), gone.response_id.is_not(None))
        .group_by(gone.response_id)
    )
    if not calls:
        return []
    types = (gone.response_id.type, gone.start_time.type, gone.start_time.type)
    arrays = (
        sa.literal(list(values), ARRAY(kind))
        for values, kind in zip(zip(*calls, strict=True), types, strict=True)
    )
    call = sa.func.unnest(*arrays).table_valued("id", "first", "last").render_derived(name="call")
    sharing = sa.select(other.trace_id).where(
        other.response_id == call.c.id,
        other.start_time.between(call.c.first - _DAY, call.c.last + _DAY),
        other.reported_usage.is_not(None),
    )
    return [row.trace_id for row in reader.rows(sharing.distinct())]
