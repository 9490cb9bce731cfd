"""Merges spans, some of which exist already.

The traces are locked before stored spans are read and replaced. Only spans that are new or differ
from the stored ones are added to their traces.

All writers take their locks in one order, so that they never deadlock: first the keys of new spans,
then the rows of traces, both sorted, then stored spans and events.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, and_, bindparam, select
from sqlalchemy.dialects.postgresql import insert

from observatory_storage.changed_spans import mark_changes
from observatory_storage.errors import Conflict
from observatory_storage.payloads import FrameKey, hour_of, prune_frames
from observatory_storage.rows import Row
from observatory_storage.storing import trace_upsert as traces
from observatory_storage.storing.conflict_rules import WITH_PAYLOADS, target_of
from observatory_storage.storing.event_merge import Key, replace_events
from observatory_storage.storing.frame_builder import FrameBuilder, load_frames, span_owner
from observatory_storage.storing.stored_usage import decide_traces
from observatory_storage.storing.trace_locks import lock_on_shards
from observatory_storage.storing.trace_recompute import recompute_traces, reports_usage
from observatory_storage.storing.trace_totals import SpanFacts, facts_of, totals_of
from observatory_storage.storing.upsert import Loader
from observatory_storage.tables import SPANS, TRACES, Values

__all__ = ["ORDER", "Key", "merge_spans", "place_of"]

# Stored spans may have their values in frames whatever the mode is.
_SPANS, _TRACES = WITH_PAYLOADS[SPANS.name], target_of(TRACES)
# All writers lock spans in this order. Spans mostly arrive in it, and it is the cheapest order for
# indexes that begin with or contain a time.
ORDER: Final = ("start_time", "start_ns", "trace_id", "span_id")
_START, _START_NS, _TRACE_ID, _SPAN_ID, _END = SPANS.positions(*ORDER, "end_time")
_ID: Final = TRACES.position["id"]
_MAX_MERGES: Final = 5


def place_of(span: Row) -> tuple[Any, ...]:
    """The sort key of a span in `ORDER`."""
    values = span.values
    # UUID compares in Python code; its integer, which has the same order, does not.
    return values[_START], values[_START_NS], values[_TRACE_ID].int, values[_SPAN_ID]


class _Deleted(Conflict):
    """Spans were deleted while they were replaced."""

    retryable = True


def merge_spans(
    loader: Loader,
    spans: dict[Key, Row],
    trace_rows: Sequence[Values] = (),
    lone_events: Sequence[Values] = (),
) -> None:
    """Write spans and their events, and add the spans to the totals of their traces.

    If another transaction deletes spans meanwhile, the merge is repeated from a savepoint.

    Args:
        loader: a loader on a connection in a transaction.
        spans: the last version of each span, in `ORDER`.
        trace_rows: see `span_copy.write_spans`.
        lone_events: see `span_copy.write_spans`.

    Raises:
        Conflict: spans were deleted at every attempt. A later call may succeed.
    """
    for merges_left in reversed(range(_MAX_MERGES)):
        try:
            with loader.connection.begin_nested():
                _merge(loader, spans, trace_rows, lone_events)
            return
        except _Deleted:
            if not merges_left:
                raise


def _merge(
    loader: Loader,
    spans: dict[Key, Row],
    trace_rows: Sequence[Values],
    lone_events: Sequence[Values],
) -> None:
    """Merge once.

    A transaction that replaces or deletes spans locks the row of their trace. So stored spans that
    are read after locking the traces do not change until the commit.

    Raises:
        _Deleted: another transaction deleted some of them between the two reads.
    """
    connection = loader.connection
    lock_on_shards(connection, {key[0] for key in spans} | {row[_ID] for row in trace_rows})
    builder = FrameBuilder(loader.payload_threshold)
    loader.stage(_SPANS, builder.spans(spans.values()))
    inserted = {tuple(key) for key in connection.execute(_INSERT_NEW)}
    loader.upsert(_TRACES, [*trace_rows])
    new_traces = traces.lock_traces(loader, traces.rows_of_totals(totals_of(spans.values())))
    starts = [span.values[_START] for span in spans.values()]
    bounds = {"earliest": min(starts), "latest": max(starts)}  # they prune partitions
    stored = _stored_versions(connection, bounds)
    for key in inserted:
        del stored[key]
    if len(inserted) + len(stored) < len(spans):
        raise _Deleted
    loader.existing += len(stored)
    # An ended span is never replaced by an unended one, nor are its events.
    written = {
        key: row
        for key, row in spans.items()
        if (old := stored.get(key)) is None
        or old.facts.end_time is None
        or row.values[_END] is not None
    }
    if stored:
        connection.execute(_SPANS.merge)
    loader.unstage(_SPANS)
    differing = {key for key in written if key not in stored or stored[key].differs}
    owners = {span_owner(written[key].values) for key in differing} if builder.has_values else set()
    events, frames = replace_events(
        loader, builder, written, stored.keys(), lone_events=lone_events, bounds=bounds
    )
    frames |= {frame for key in differing & stored.keys() if (frame := stored[key].frame)}
    load_frames(loader, builder, owners | events)
    prune_frames(connection, frames)
    counted = {key: row for key, row in written.items() if key[0] not in new_traces}
    replaced = {key: stored[key].facts for key in counted if key in stored}
    changed = [row for key, row in counted.items() if key in differing]
    subtracted = [(key[0], facts) for key, facts in replaced.items() if key in differing]
    reported = {trace_id for trace_id, facts in subtracted if facts.reports_usage}
    rows = traces.rows_of_totals(totals_of(changed, subtracted), undecided=reported)
    undecided = traces.add_totals(loader, rows, optimistic=False)
    recompute_traces(
        connection,
        {
            key[0]
            for key, facts in replaced.items()
            if facts.outranks(facts_of(counted[key].values))
        },
    )
    mark_changes(connection, [written[key].values[_START] for key in differing])
    decide_traces(connection, undecided)


def _inserting_new() -> Any:
    staged = _SPANS.stage.c
    ordered = select(*(staged[column] for column in _SPANS.columns)).order_by(
        *(staged[column] for column in ORDER)
    )
    return (
        insert(_SPANS.table)
        .from_select(list(_SPANS.columns), ordered)
        .on_conflict_do_nothing(index_elements=list(_SPANS.key))
        .returning(*(_SPANS.table.c[column] for column in _SPANS.key))
    )


_INSERT_NEW: Final = _inserting_new()


def _reading_stored() -> Any:
    old, new = _SPANS.table.c, _SPANS.stage.c
    return (
        select(
            *(old[column] for column in _SPANS.key),
            old.end_time,
            old.status,
            old.total_tokens,
            old.total_cost_usd,
            reports_usage(old).label("reports_usage"),
            old.response_id,
            old.parent_span_id.is_not(None).label("has_parent"),
            old.name,
            old.service_name,
            old.sample_weight,
            old.payload_frame,
            _SPANS.distinct(old, new).label("differs"),
        )
        .join_from(
            _SPANS.table, _SPANS.stage, and_(*(old[column] == new[column] for column in _SPANS.key))
        )
        .where(old.start_time.between(bindparam("earliest"), bindparam("latest")))
    )


_STORED: Final = _reading_stored()


class _Stored(NamedTuple):
    """The stored version of a span.

    Attributes:
        facts: what totals need of it.
        differs: whether it differs from the staged version.
        frame: the frame that has its large values, if one has.
    """

    facts: SpanFacts
    differs: bool
    frame: FrameKey | None


def _stored_versions(connection: Connection, bounds: dict[str, Any]) -> dict[Key, _Stored]:
    found: dict[Key, _Stored] = {}
    for old in connection.execute(_STORED, bounds):
        facts = SpanFacts(
            old.end_time,
            old.status,
            old.total_tokens,
            old.total_cost_usd,
            old.reports_usage,
            old.response_id,
            (old.has_parent, old.start_time, old.start_ns, old.span_id),
            old.name,
            old.service_name,
            old.sample_weight,
        )
        key = old.trace_id, old.span_id, old.start_time, old.start_ns
        frame = None
        if old.payload_frame is not None:
            frame = FrameKey(old.trace_id, hour_of(old.start_time), old.payload_frame)
        found[key] = _Stored(facts, old.differs, frame)
    return found
