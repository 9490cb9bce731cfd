"""Writes events, some of which may exist already, and merges those of replaced spans.

The values of replaced events leave their payload frames in the same transaction, while the rows of
their traces are locked.
"""

from __future__ import annotations

from collections.abc import Iterable, KeysView, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final

from sqlalchemy import ARRAY, and_, bindparam, delete, func, select

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
        load_frames(loader, builder.frames())

    if loader.attempt(_EVENTS, load):
        return
    locked_traces(loader.connection, {event[_TRACE_ID] for event in unique})
    starts = [event[_START] for event in unique]
    builder = FrameBuilder(loader.payload_threshold)
    loader.stage(_EVENTS, builder.events(unique))
    replaced = _frames_of(loader, _REPLACED, {"earliest": min(starts), "latest": max(starts)})
    written = _merge_staged(loader, builder)
    load_frames(loader, builder.frames(written))
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
    loader.stage(_EVENTS, builder.events(_INLINE.unique(events)))
    replaced: set[FrameKey] = set()
    if of_stored := with_events.keys() & stored:
        keys = dict(zip(SPAN_KEY_OF_EVENT, map(list, zip(*of_stored, strict=True)), strict=True))
        replaced |= _frames_of(loader, _DELETE_EVENTS, {**keys, **bounds})
    if len(of_stored) < len(with_events):
        replaced |= _frames_of(loader, _REPLACED, bounds)
    return _merge_staged(loader, builder), replaced


def _merge_staged(loader: Loader, builder: FrameBuilder) -> set[OwnerKey]:
    """Merge the staged events; return those that were written, if any value was moved."""
    if builder.has_values:
        rows = loader.connection.execute(_MERGE_RETURNING)
        written = {
            (row.trace_id, owner_of(row.span_id, row.start, row.start_ns, row.position))
            for row in rows
        }
    else:
        loader.connection.execute(_EVENTS.merge)
        written = set()
    loader.unstage(_EVENTS)
    return written


def _frames_of(loader: Loader, statement: Any, parameters: Mapping[str, Any]) -> set[FrameKey]:
    rows = loader.connection.execute(statement, parameters)
    return {FrameKey(row.trace_id, hour_of(row.start), row.payload_frame) for row in _framed(rows)}


def _framed(rows: Iterable[Any]) -> Iterable[Any]:
    return (row for row in rows if row.payload_frame is not None)


_OLD: Final = EVENTS.table.c
_FRAME_COLUMNS: Final = (_OLD.trace_id, _OLD.span_start_time.label("start"), _OLD.payload_frame)
_WITHIN_BOUNDS: Final = _OLD.span_start_time.between(bindparam("earliest"), bindparam("latest"))


def _same_event() -> Any:
    staged = _EVENTS.stage.c
    return and_(*(staged[column] == _OLD[column] for column in _EVENTS.key))


def _deleting_events() -> Any:
    keys = [bindparam(name, type_=ARRAY(_OLD[name].type)) for name in SPAN_KEY_OF_EVENT]
    given = func.unnest(*keys).table_valued(*SPAN_KEY_OF_EVENT).render_derived(name="given")
    same = (
        select(1)
        .select_from(_EVENTS.stage)
        .where(_same_event())
        .where(~_EVENTS.distinct(_OLD, _EVENTS.stage.c))
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
_DELETE_EVENTS: Final = _deleting_events()
_MERGE_RETURNING: Final = _EVENTS.merge.returning(
    *(_OLD.trace_id, _OLD.span_id, _OLD.span_start_time.label("start")),
    *(_OLD.span_start_ns.label("start_ns"), _OLD.position),
)
