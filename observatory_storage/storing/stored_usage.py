"""Counts usage once among stored spans: reads traces, decides, and updates the spans that change.

The rows of the traces must be locked, so that no writer changes their spans meanwhile.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection, bindparam

from observatory_storage.changed_spans import mark_changes
from observatory_storage.storing.trace_recompute import recompute_traces
from observatory_storage.storing.trace_upsert import TraceSummary
from observatory_storage.storing.usage_in_batch import FACTS, REPORT, USAGE_FIELDS, reported_json
from observatory_storage.storing.usage_once import ReportingSpan, Usage, count_once
from observatory_storage.tables import SPANS, TRACES

__all__ = [
    "StoredSpan",
    "decide_traces",
    "mark_unsettled",
    "read_spans",
    "update_usage",
    "usage_of",
]

MOST_SPANS_AT_ONCE: Final = 1000
"""Writers do not read larger traces again for every batch of spans: they are settled later."""

_SPANS: Final = SPANS.table
_TRACES: Final = TRACES.table
_KEY: Final = ("trace_id", "span_id", "start_time", "start_ns")
_CHANGED: Final = (*USAGE_FIELDS, *REPORT)
_TRACES_AT_A_TIME: Final = 200


class StoredSpan(NamedTuple):
    """A stored span: what it reports, and what the columns of usage contain.

    Attributes:
        reporting: what the decision needs to know.
        counted: the usage that counts on it.
        reported: the value of `reported_usage`.
    """

    reporting: ReportingSpan
    counted: Usage
    reported: dict[str, Any] | None


def decide_traces(connection: Connection, traces: Sequence[TraceSummary]) -> None:
    """Decide the usage of traces anew, and update spans and totals. Large traces are marked.

    A span that reports the call of another trace counts again until the next settlement, for which
    its trace is marked.
    """
    wanted = [trace for trace in traces if trace.usage_span_count]
    small = [trace for trace in wanted if trace.span_count <= MOST_SPANS_AT_ONCE]
    marked = [trace.id for trace in wanted if trace.span_count > MOST_SPANS_AT_ONCE]
    small.sort(key=lambda trace: trace.start_time)
    for start in range(0, len(small), _TRACES_AT_A_TIME):
        spans = read_spans(connection, small[start : start + _TRACES_AT_A_TIME])
        counted, _ = count_once([span.reporting for span in spans])
        changed = update_usage(connection, spans, counted)
        recompute_traces(connection, changed)
        named = (span.reporting for span in spans if span.reporting.response_id is not None)
        marked += {span.trace for span in named if span.usage.is_reported and span.trace in changed}
    mark_unsettled(connection, marked)


def mark_unsettled(connection: Connection, trace_ids: Collection[UUID]) -> None:
    """Mark traces for the next settlement, unless they are marked already."""
    if trace_ids:
        connection.execute(_MARK, {"ids": list(trace_ids)})


_MARK: Final = (
    sa.update(_TRACES)
    .where(_TRACES.c.id == sa.func.any(bindparam("ids", type_=sa.ARRAY(_TRACES.c.id.type))))
    .where(_TRACES.c.unsettled_since.is_(None))
    .values(unsettled_since=sa.func.statement_timestamp())
)


def _reading() -> Any:
    spans, bounds = _SPANS.c, _TRACES.alias("bounds").c
    columns = (*_KEY, "parent_span_id", "response_id", "operation", *FACTS, *_CHANGED)
    return sa.select(*(spans[column] for column in columns)).where(
        bounds.id == sa.func.any(bindparam("ids", type_=sa.ARRAY(_TRACES.c.id.type))),
        spans.trace_id == bounds.id,
        spans.start_time.between(bounds.start_time, bounds.last_span_start),
        # Known in advance, these bounds prune partitions when the statement is planned.
        spans.start_time.between(bindparam("earliest"), bindparam("latest")),
    )


_READ: Final = _reading()


def read_spans(connection: Connection, traces: Iterable[TraceSummary]) -> list[StoredSpan]:
    """All spans of these traces, without their contents."""
    wanted = [trace for trace in traces if trace.span_count]
    if not wanted:
        return []
    given = {
        "ids": [trace.id for trace in wanted],
        "earliest": min(trace.start_time for trace in wanted),
        "latest": max(trace.last_span_start for trace in wanted),
    }
    return [_stored_span(row) for row in connection.execute(_READ, given)]


def _stored_span(found: sa.Row[Any]) -> StoredSpan:
    row = found._mapping
    counted = Usage(*(row[column] for column in USAGE_FIELDS))
    reported = row["reported_usage"]
    reporting = ReportingSpan(
        row["trace_id"],
        row["span_id"],
        row["start_time"],
        row["start_ns"],
        row["parent_span_id"],
        counted if reported is None else usage_of(reported, row["reported_cost_source"]),
        row["response_id"],
        row["operation"],
        row["model"] is not None,
        sum(row[column] is not None for column in FACTS),
    )
    return StoredSpan(reporting, counted, reported)


def usage_of(reported: Mapping[str, Any], cost_source: str | None) -> Usage:
    """The usage that the columns `reported_usage` and `reported_cost_source` tell."""
    known: dict[str, Any] = {
        column: Decimal(value) if column.endswith("_usd") else value
        for column, value in reported.items()
    }
    return Usage(**known, cost_source=cost_source)


def update_usage(
    connection: Connection, spans: Sequence[StoredSpan], counted: Mapping[int, Usage]
) -> set[UUID]:
    """Update the spans whose stored usage is not what counts; return their traces.

    Args:
        connection: a connection in a transaction that has locked the rows of the traces.
        spans: the spans to look at.
        counted: by the index of a span: the usage that counts on it, if that differs from what it
            reports.
    """
    changed: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    for index, (reporting, stored, reported) in enumerate(spans):
        usage = counted.get(index, reporting.usage)
        differs = index in counted
        if usage == stored and differs == (reported is not None):
            continue
        key = (reporting.trace, *reporting[1:4])
        values = {
            **{f"new_{column}": value for column, value in usage._asdict().items()},
            "new_reported_usage": reported_json(reporting.usage) if differs else None,
            "new_reported_cost_source": reporting.usage.cost_source if differs else None,
            **{f"old_{column}": value for column, value in zip(_KEY, key, strict=True)},
        }
        place = (reporting.start_time, reporting.start_ns, reporting.trace.int, reporting.span_id)
        changed.append((place, values))
    if changed:
        changed.sort(key=lambda each: each[0])
        connection.execute(_UPDATE, [values for _, values in changed])
        mark_changes(connection, [values["old_start_time"] for _, values in changed])
    return {values["old_trace_id"] for _, values in changed}


_UPDATE: Final = (
    sa.update(_SPANS)
    .where(*(_SPANS.c[column] == bindparam(f"old_{column}") for column in _KEY))
    .values({column: bindparam(f"new_{column}") for column in _CHANGED})
)
