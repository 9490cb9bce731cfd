"""Spans of which some are there already: new and different ones are told apart, and counted.

The traces are locked before stored spans are read and replaced, and only what is new or different
is added to them.

All writers take their locks in one order, so that they wait for each other but never in a circle:
first the keys of new spans, then the rows of traces, both sorted, then stored spans and events.
"""

from __future__ import annotations

from collections.abc import KeysView, Sequence
from operator import itemgetter
from typing import Any, Final

from sqlalchemy import ARRAY, Connection, and_, bindparam, delete, func, select
from sqlalchemy.dialects.postgresql import insert

from observatory_storage.errors import Conflict
from observatory_storage.rows import Row
from observatory_storage.writers import traces_of_spans as traces
from observatory_storage.writers.load import (
    Method,
    stage,
    unstage,
    write_rows,
)
from observatory_storage.writers.tables import EVENTS, SPANS, TRACES, Values
from observatory_storage.writers.tally import totals_of_new
from observatory_storage.writers.trace_totals import (
    SpanFacts,
    facts_of,
    totals,
)

__all__ = ["ORDER", "Key", "merge_spans"]

Key = tuple[Any, ...]
_SPAN_KEY_OF_EVENT: Final = ("trace_id", "span_id", "span_start_time", "span_start_ns")
# All writers meet in this order. It is that in which spans mostly come, and in which the indexes
# that lead to a time take them best.
ORDER: Final = ("start_time", "start_ns", "trace_id", "span_id")
_MERGES: Final = 5
_END: Final = SPANS.columns.index("end_time")
_span_key_of = itemgetter(*(EVENTS.columns.index(column) for column in _SPAN_KEY_OF_EVENT))


class _Deleted(Conflict):
    """Spans were deleted while they were replaced."""

    retryable = True


def merge_spans(
    connection: Connection,
    spans: dict[Key, Row],
    method: Method,
    trace_rows: Sequence[Values] = (),
    alone: Sequence[Values] = (),
) -> None:
    """Write spans, their events, and what they say of their traces.

    Begins again from a savepoint where spans are deleted under it.

    Args:
        connection: in a transaction.
        spans: the last version of each, in `ORDER`.
        method: how they go into their table.
        trace_rows: see `spans.write_spans`.
        alone: see `spans.write_spans`.

    Raises:
        Conflict: that happened again and again; another attempt may get through.
    """
    for attempts_left in reversed(range(_MERGES)):
        try:
            with connection.begin_nested():
                _merge(connection, spans, method, trace_rows, alone)
            return
        except _Deleted:
            if not attempts_left:
                raise


def _merge(
    connection: Connection,
    spans: dict[Key, Row],
    method: Method,
    trace_rows: Sequence[Values],
    alone: Sequence[Values],
) -> None:
    """Write spans of which some are there already.

    Whoever replaces or deletes spans holds their trace's row, so that what is read here of the
    stored spans, once the traces are locked, stays true until the commit.

    Raises:
        _Deleted: another transaction deleted some of them between the looks at what is there.
    """
    stage(connection, SPANS, [row.values for row in spans.values()], method)
    fresh = {tuple(key) for key in connection.execute(_INSERT_NEW)}
    write_rows(connection, TRACES, [*trace_rows], method)
    new_traces = traces.claim(connection, traces.said_of(totals_of_new(spans.values())))
    bounds = _bounds(spans)
    stored = _stored_versions(connection, bounds)
    for key in fresh:
        del stored[key]
    if len(fresh) + len(stored) < len(spans):
        raise _Deleted
    # An ended span is never replaced by an unended one, nor are its events.
    written = {
        key: row
        for key, row in spans.items()
        if (old := stored.get(key)) is None
        or old[0].end_time is None
        or row.values[_END] is not None
    }
    if stored:
        connection.execute(SPANS.merge)
    unstage(connection, SPANS)
    _replace_events(
        connection, written, stored=stored.keys(), alone=alone, bounds=bounds, method=method
    )
    changes = [
        (key[0], row.trace_text, facts_of(row.values), stored.get(key))
        for key, row in written.items()
        if key[0] not in new_traces
    ]
    added = totals(
        (trace_id, text, span, old[0] if old else None)
        for trace_id, text, span, old in changes
        if old is None or old[1]
    )
    traces.add(connection, traces.said_of(added.values()), optimistic=False)
    traces.recompute(
        connection,
        {trace_id for trace_id, _, span, old in changes if old and old[0].outranks(span)},
    )


def _bounds(spans: dict[Key, Row]) -> dict[str, Any]:
    """The span of time that the batch's spans start in: it prunes the partitions looked at."""
    starts = [key[2] for key in spans]
    return {"earliest": min(starts), "latest": max(starts)}


def _inserting_new() -> Any:
    staged = SPANS.stage.c
    ordered = select(*(staged[column] for column in SPANS.columns)).order_by(
        *(staged[column] for column in ORDER)
    )
    return (
        insert(SPANS.table)
        .from_select(list(SPANS.columns), ordered)
        .on_conflict_do_nothing(index_elements=list(SPANS.key))
        .returning(*(SPANS.table.c[column] for column in SPANS.key))
    )


_INSERT_NEW: Final = _inserting_new()


def _reading_stored() -> Any:
    old, new = SPANS.table.c, SPANS.stage.c
    return (
        select(
            *(old[column] for column in SPANS.key),
            old.end_time,
            old.status,
            old.total_tokens,
            old.total_cost_usd,
            old.parent_span_id.is_not(None),
            old.name,
            old.service_name,
            SPANS.distinct(old, new),
        )
        .join_from(
            SPANS.table, SPANS.stage, and_(*(old[column] == new[column] for column in SPANS.key))
        )
        .where(old.start_time.between(bindparam("earliest"), bindparam("latest")))
    )


_STORED: Final = _reading_stored()


def _stored_versions(
    connection: Connection, bounds: dict[str, Any]
) -> dict[Key, tuple[SpanFacts, bool]]:
    """By key: the facts of the stored version of a staged span, and whether the two differ."""
    found: dict[Key, tuple[SpanFacts, bool]] = {}
    for row in connection.execute(_STORED, bounds):
        trace_id, span_id, start, start_ns, end, status, tokens, cost, has_parent = row[:9]
        name, service_name, differs = row[9:]
        facts = SpanFacts(
            end, status, tokens, cost, (has_parent, start, start_ns, span_id), name, service_name
        )
        found[trace_id, span_id, start, start_ns] = facts, differs
    return found


def _deleting_events() -> Any:
    old, staged = EVENTS.table.c, EVENTS.stage.c
    types = [EVENTS.table.c[column].type for column in _SPAN_KEY_OF_EVENT]
    given = (
        func.unnest(
            *(
                bindparam(column, type_=ARRAY(kind))
                for column, kind in zip(_SPAN_KEY_OF_EVENT, types, strict=True)
            )
        )
        .table_valued(*_SPAN_KEY_OF_EVENT)
        .render_derived(name="given")
    )
    same = (
        select(1)
        .select_from(EVENTS.stage)
        .where(*(staged[column] == old[column] for column in EVENTS.key))
        .where(~EVENTS.distinct(old, staged))
    )
    return (
        delete(EVENTS.table)
        .where(*(old[column] == given.c[column] for column in _SPAN_KEY_OF_EVENT))
        .where(old.span_start_time.between(bindparam("earliest"), bindparam("latest")))
        .where(~same.exists())
    )


_DELETE_EVENTS: Final = _deleting_events()


def _replace_events(
    connection: Connection,
    written: dict[Key, Row],
    *,
    stored: KeysView[Key],
    alone: Sequence[Values],
    bounds: dict[str, Any],
    method: Method,
) -> None:
    """Make the events of these spans those that come with them; equal ones stay.

    A span that was not there yet takes none away, as it does not on the clean path.
    """
    telling = {key: row for key, row in written.items() if row.events is not None}
    if not telling:
        return
    coming = [event for row in telling.values() for event in row.events or ()]
    coming += [event for event in alone if _span_key_of(event) in telling]
    stage(connection, EVENTS, EVENTS.unique(coming), method)
    if replaced := telling.keys() & stored:
        keys = dict(zip(_SPAN_KEY_OF_EVENT, map(list, zip(*replaced, strict=True)), strict=True))
        connection.execute(_DELETE_EVENTS, {**keys, **bounds})
    connection.execute(EVENTS.merge)
    unstage(connection, EVENTS)
