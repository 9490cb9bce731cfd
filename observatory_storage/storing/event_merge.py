"""Writes events, some of which may exist already, and merges those of replaced spans.

The values of replaced events leave their payload frames in the same transaction, while the rows of
their traces are locked.
"""

from __future__ import annotations

from collections.abc import Iterable, KeysView, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final

from sqlalchemy import ARRAY, and_, bindparam, delete, func, select
from sqlalchemy.dialects.postgresql import insert

from observatory_storage.payloads import FrameKey, hour_of, owner_of, prune_frames
from observatory_storage.rows import Row
from observatory_storage.storing.conflict_rules import TARGETS, WITH_PAYLOADS
from observatory_storage.storing.frame_builder import FrameBuilder, OwnerKey, load_frames
from observatory_storage.storing.trace_upsert import locked_traces
from observatory_storage.storing.upsert import Loader
from observatory_storage.tables import EVENTS, SPAN_KEY_OF_EVENT, Values

__all__ = ["Key", "replace_events", "write_events"]

Key = tuple[Any, ...]
_INLINE, _EVENTS = TARGETS[EVENTS.name], WITH_PAYLOADS[EVENTS.name]
_TRACE_ID, _START = EVENTS.positions("trace_id", "span_start_time")
_span_key_of = itemgetter(*EVENTS.positions(*SPAN_KEY_OF_EVENT))


def write_events(loader: Loader, events: Sequence[Values]) -> None:
    """Write events that are given without their spans. Stored ones that differ are replaced.

    Then the traces are locked. After spans of other traces, two writers may do so in different
    orders; a deadlock is retried as other transient errors are.

    Args:
        loader: a loader on a connection in a transaction.
        events: prepared events.
    """
    if not events:
        return
    unique = _INLINE.unique([*events])

    def load() -> None:
        if loader.payload_threshold is None:
            loader.load(_INLINE, unique)
            return
        builder = FrameBuilder(loader.payload_threshold)
        loader.load(_EVENTS, builder.events(unique))
        load_frames(loader, builder)

    if loader.attempt(_EVENTS, load):
        return
    locked_traces(loader.connection, {event[_TRACE_ID] for event in unique})
    starts = [event[_START] for event in unique]
    builder = FrameBuilder(loader.payload_threshold)
    bounds = {"earliest": min(starts), "latest": max(starts)}
    written, replaced = _merge(loader, builder, unique, bounds)
    load_frames(loader, builder, written)
    prune_frames(loader.connection, replaced)


def replace_events(
    loader: Loader,
    builder: FrameBuilder,
    written: Mapping[Key, Row],
    stored: KeysView[Key],
    *,
    lone_events: Sequence[Values],
    bounds: Mapping[str, Any],
) -> tuple[set[OwnerKey], set[FrameKey]]:
    """Replace the stored events of these spans by the given ones. Equal events stay.

    A new span removes no events, as on the path without conflicts.

    Args:
        loader: a loader on a connection in a transaction that has locked the spans' traces.
        builder: takes the large values of the events.
        written: the spans, by their keys.
        stored: the keys of spans that were there before.
        lone_events: events of the batch that were given without their spans.
        bounds: the earliest and the latest start of the spans.

    Returns:
        The events whose values shall be in frames, and the frames that may have values of events
        that are gone.
    """
    with_events = {key: row for key, row in written.items() if row.events is not None}
    if not with_events:
        return set(), set()
    events = [event for row in with_events.values() for event in row.events or ()]
    events += [event for event in lone_events if _span_key_of(event) in with_events]
    keys = None
    if of_stored := with_events.keys() & stored:
        keys = dict(zip(SPAN_KEY_OF_EVENT, map(list, zip(*of_stored, strict=True)), strict=True))
    return _merge(loader, builder, _INLINE.unique(events), bounds, keys)


def _merge(
    loader: Loader,
    builder: FrameBuilder,
    events: Sequence[Values],
    bounds: Mapping[str, Any],
    replaced_of: Mapping[str, Any] | None = None,
) -> tuple[set[OwnerKey], set[FrameKey]]:
    """Merge unique events. First, delete others of the spans whose keys `replaced_of` has.

    New events are inserted before stored ones are read. That waits for transactions that are
    inserting the same events without a lock on their trace.
    """
    connection = loader.connection
    loader.stage(_EVENTS, builder.events(events))
    frames: set[FrameKey] = set()
    if replaced_of is not None:
        frames |= _frames_of(connection.execute(_DELETE_OTHERS, {**replaced_of, **bounds}))
    written = [*connection.execute(_INSERT_NEW)]
    if len(written) < len(events):
        frames |= _frames_of(connection.execute(_REPLACED, bounds))
        written += connection.execute(_REPLACE)
    loader.unstage(_EVENTS)
    if not builder.has_values:
        return set(), frames
    owners = (
        (row.trace_id, owner_of(row.span_id, row.start, row.start_ns, row.position))
        for row in written
    )
    return set(owners), frames


def _frames_of(rows: Iterable[Any]) -> set[FrameKey]:
    return {
        FrameKey(row.trace_id, hour_of(row.start), row.payload_frame)
        for row in rows
        if row.payload_frame is not None
    }


_OLD: Final = EVENTS.table.c
_FRAME_COLUMNS: Final = (_OLD.trace_id, _OLD.span_start_time.label("start"), _OLD.payload_frame)
_WITHIN_BOUNDS: Final = _OLD.span_start_time.between(bindparam("earliest"), bindparam("latest"))


def _same_event(staged: Any = _EVENTS.stage) -> Any:
    return and_(*(staged.c[column] == _OLD[column] for column in _EVENTS.key))


def _deleting_others() -> Any:
    keys = [bindparam(name, type_=ARRAY(_OLD[name].type)) for name in SPAN_KEY_OF_EVENT]
    given = func.unnest(*keys).table_valued(*SPAN_KEY_OF_EVENT).render_derived(name="given")
    # Citus looks up a CTE within NOT EXISTS, but no temporary table.
    staged = select(_EVENTS.stage).cte("staged").prefix_with("MATERIALIZED")
    same = (
        select(1)
        .select_from(staged)
        .where(_same_event(staged))
        .where(~_EVENTS.distinct(_OLD, staged.c))
    )
    return (
        delete(EVENTS.table)
        .where(*(_OLD[column] == given.c[column] for column in SPAN_KEY_OF_EVENT))
        .where(_WITHIN_BOUNDS)
        .where(~same.exists())
        .returning(*_FRAME_COLUMNS)
    )


# They are replaced by staged events of which they differ.
_REPLACED: Final = (
    select(*_FRAME_COLUMNS)
    .join_from(EVENTS.table, _EVENTS.stage, _same_event())
    .where(_WITHIN_BOUNDS, _OLD.payload_frame.is_not(None))
    .where(_EVENTS.distinct(_OLD, _EVENTS.stage.c))
)
_DELETE_OTHERS: Final = _deleting_others()
_OWNER_COLUMNS: Final = (
    *(_OLD.trace_id, _OLD.span_id, _OLD.span_start_time.label("start")),
    *(_OLD.span_start_ns.label("start_ns"), _OLD.position),
)
_INSERT_NEW: Final = (
    insert(EVENTS.table)
    .from_select(list(_EVENTS.columns), select(_EVENTS.stage))
    .on_conflict_do_nothing(index_elements=list(_EVENTS.key))
    .returning(*_OWNER_COLUMNS)
)
_REPLACE: Final = _EVENTS.merge.returning(*_OWNER_COLUMNS)
