"""Spans with their events and the traces that they are part of, in one transaction.

The clean path copies the spans straight in and adds to their traces; when a span is there already
`merge` takes over.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import Connection

from observatory_storage.rows import PART, Row, SpanColumns
from observatory_storage.writers import traces_of_spans as traces
from observatory_storage.writers.copying import copy_columns
from observatory_storage.writers.load import (
    Method,
    attempt,
    chosen,
    load,
    write_rows,
)
from observatory_storage.writers.merge import Key, merge_spans
from observatory_storage.writers.tables import EVENTS, SPANS, TRACES, Values
from observatory_storage.writers.tally import Tally, totals_of_new

__all__ = ["copy_spans", "write_spans"]

_TRACE_ID, _SPAN_ID, _START, _START_NS, _END = (
    SPANS.columns.index(column)
    for column in ("trace_id", "span_id", "start_time", "start_ns", "end_time")
)


def write_spans(
    connection: Connection,
    rows: Sequence[Row],
    method: Method,
    *,
    trace_rows: Sequence[Values] = (),
    alone: Sequence[Values] = (),
    optimistic: bool = True,
) -> None:
    """Write spans, their events, and what they say of their traces.

    Args:
        connection: in a transaction.
        rows: prepared spans.
        method: how they go into their table.
        trace_rows: rows of `traces` of the same batch, written when it is the traces' turn.
        alone: events of the same batch that come without their span: not written here, but a
            span that is replaced does not take them away.
        optimistic: False where these spans have met a conflict already.
    """
    if optimistic and chosen(method, len(rows)) == "copy" and _are_distinct(rows):
        said = copy_spans(connection, _parts(rows))
        spans = {} if said is not None else _unique(rows)
    else:
        spans = _unique(rows)
        said = _insert_spans(connection, spans, method) if optimistic else None
    if said is None:
        merge_spans(connection, spans, method, trace_rows, alone)
    else:
        write_rows(connection, TRACES, [*trace_rows], method)
        traces.add(connection, said, optimistic=not trace_rows)


def copy_spans(connection: Connection, parts: Iterable[SpanColumns]) -> traces.Said | None:
    """Copy spans and their events straight in.

    Args:
        parts: the spans in `merge.ORDER`, some at a time; taken while the server works.

    Returns:
        What they say of their traces, to be added; None where that met a conflict.
    """
    tally = Tally()
    said: traces.Said | None = None
    events: list[Values] = []

    def columns() -> Iterator[list[Any]]:
        nonlocal said
        for part in parts:
            tally.add(part.columns, part.trace_texts)
            for of_span in part.events:
                if of_span:
                    events.extend(of_span)
            yield part.columns
        # Now, while the server is busy with what is on its way.
        said = traces.said_of(tally.totals(), connection)

    def straight_in() -> None:
        copy_columns(connection, SPANS, columns(), SPANS.target)
        load(connection, EVENTS, EVENTS.unique(events), "auto")

    return said if attempt(connection, SPANS, straight_in) else None


def _parts(rows: Sequence[Row]) -> Iterator[SpanColumns]:
    ordered = sorted(rows, key=_place_of)
    for start in range(0, len(ordered), PART):
        part = ordered[start : start + PART]
        columns = [list(column) for column in zip(*(row.values for row in part), strict=True)]
        yield SpanColumns(columns, [row.events for row in part], [row.trace_text for row in part])


def _insert_spans(
    connection: Connection, spans: dict[Key, Row], method: Method
) -> traces.Said | None:
    """As `copy_spans`, by the method."""
    events = EVENTS.unique([event for row in spans.values() for event in row.events or ()])

    def straight_in() -> None:
        load(connection, SPANS, [row.values for row in spans.values()], method)
        load(connection, EVENTS, events, method)

    if not attempt(connection, SPANS, straight_in):
        return None
    return traces.said_of(totals_of_new(spans.values()))


def _are_distinct(rows: Sequence[Row]) -> bool:
    """Whether no two rows can be versions of one span, told by less than their whole keys."""
    return len({(row.values[_SPAN_ID], row.values[_START]) for row in rows}) == len(rows)


def _unique(rows: Sequence[Row]) -> dict[Key, Row]:
    """The last version of each span, an ended one before an unended; in `merge.ORDER`."""
    key_of = SPANS.key_of
    last: dict[Key, Row] = {}
    for row in rows:
        key = key_of(row.values)
        stored = last.get(key)
        if stored is not None:
            if stored.values[_END] is not None and row.values[_END] is None:
                continue
            if row.events is None:
                row = row._replace(events=stored.events)  # noqa: PLW2901 - completed
        last[key] = row
    return {SPANS.key_of(row.values): row for row in sorted(last.values(), key=_place_of)}


def _place_of(row: Row) -> tuple[Any, ...]:
    values = row.values
    return values[_START], values[_START_NS], values[_TRACE_ID].int, values[_SPAN_ID]
