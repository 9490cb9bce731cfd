"""Totals over traces, and over their spans by group and time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import partial
from typing import Any, Final

from sqlalchemy import ColumnElement, Double, Label, cast, func, literal, select
from sqlalchemy.orm import InstrumentedAttribute

from observatory_storage.models import Trace, TraceSpan
from observatory_storage.repositories.reading import (
    aggregates,
    empty_buckets,
    time_buckets,
    validation,
)
from observatory_storage.repositories.reading.reader import Reader
from observatory_storage.repositories.reading.weights import (
    are_weighted,
    distribution,
    integer_sum_with_weighted,
    sum_with_weighted,
    weight_or_one,
    weighted_count,
    weighted_integer_sum,
    weighted_sum,
)
from observatory_storage.repositories.traces.filters import SpanFilters, TraceFilters
from observatory_storage.repositories.traces.framed_content import FramedContent
from observatory_storage.repositories.traces.results import SpanStats, TraceStats
from observatory_storage.repositories.traces.trace_statements import is_matching

__all__ = ["DURATION_US", "TRACE_TOTALS", "group_columns", "span_stats", "trace_stats"]

_SPAN_GROUPS: Final[Mapping[str, InstrumentedAttribute[Any]]] = {
    "service_name": TraceSpan.service_name,
    "operation": TraceSpan.name,
    "kind": TraceSpan.kind,
    "status": TraceSpan.status,
    "provider": TraceSpan.provider,
    "model": TraceSpan.model,
    "environment": TraceSpan.environment,
    "user_id": TraceSpan.user_id,
    "session_id": TraceSpan.session_id,
    "gen_ai_operation": TraceSpan.operation,
    "response_model": TraceSpan.response_model,
    "agent_name": TraceSpan.agent_name,
    "tool_name": TraceSpan.tool_name,
    "finish_reason": TraceSpan.finish_reason,
    "error_type": TraceSpan.error_type,
    "prompt_name": TraceSpan.prompt_name,
}
# The duration of a span, including its nanoseconds; NULL while the span has not ended.
DURATION_US: Final = cast(TraceSpan.duration_us, Double) + cast(
    TraceSpan.duration_ns, Double
) / literal(1000.0, Double)
# What is counted, measured and added up where there are no spans.
_NOTHING: Final[Mapping[str, Any]] = {
    **dict.fromkeys(("span_count", "trace_count", "error_count"), 0),
    **dict.fromkeys(
        f"{name}_duration_us" for name in ("min", "max", "avg", *aggregates.PERCENTILES)
    ),
}
_NO_SUMS: Final[Mapping[str, Any]] = {
    **dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"), 0),
    "total_cost_usd": Decimal(),
}
# Totals over whole traces. Their spans have weights of their own.
_OF_TRACES: Final = Trace.sample_weight
TRACE_TOTALS: Final = (
    weighted_count(_OF_TRACES).label("trace_count"),
    weighted_count(_OF_TRACES, Trace.status == "error").label("error_trace_count"),
    func.coalesce(integer_sum_with_weighted(Trace.span_count, Trace.weighted_span_count), 0).label(
        "span_count"
    ),
    func.coalesce(
        integer_sum_with_weighted(Trace.error_count, Trace.weighted_error_count), 0
    ).label("error_span_count"),
    integer_sum_with_weighted(Trace.total_tokens, Trace.weighted_tokens).label("total_tokens"),
    sum_with_weighted(Trace.total_cost_usd, Trace.weighted_cost_usd).label("total_cost_usd"),
)
_OF_SPANS: Final = TraceSpan.sample_weight


def group_columns(
    group_by: str | Sequence[str], names: Sequence[str] = tuple(_SPAN_GROUPS)
) -> dict[str, Label[Any]]:
    """The columns of a ``group_by``, by their names.

    Args:
        names: the names that can be grouped by.

    Raises:
        ValidationError: it is not a name or a sequence of names, or a name is unknown.
    """
    given = validation.names("group_by", group_by)
    for name in given:
        validation.choice("group_by", name, names)
    # The label differs from the column's name: GROUP BY would take the name for the column itself.
    return {name: _SPAN_GROUPS[name].label(f"group_{name}") for name in given}


def trace_stats(reader: Reader, filters: TraceFilters) -> TraceStats:
    """Totals over the whole traces that have a matching span."""
    statement = select(
        *TRACE_TOTALS,
        are_weighted(_OF_TRACES).label("are_weighted"),
        func.min(Trace.duration_us).label("min_duration_us"),
        func.max(Trace.duration_us).label("max_duration_us"),
        cast(func.avg(Trace.duration_us), Double).label("avg_duration_us"),
        aggregates.percentile_array(cast(Trace.duration_us, Double)).label("percentiles"),
        func.min(Trace.start_time).label("first_start_time"),
        func.max(Trace.start_time).label("last_start_time"),
    )
    conditions: list[Any] = []
    if filters.parameters():
        framed = FramedContent(reader.session, filters)
        conditions.append(is_matching(framed.resolved(filters.in_sql(by_trace=True))))
    (record,) = reader.records(statement.where(*conditions))
    columns = aggregates.with_percentiles(record, "_duration_us")
    if columns.pop("are_weighted"):
        value = cast(Trace.duration_us, Double).label("value")
        values = select(value, _OF_TRACES.label("weight")).where(value.is_not(None), *conditions)
        for weighted in reader.records(distribution(values.subquery("traces"), [])):
            columns |= _of_durations(weighted)
    return TraceStats(**columns)


def _of_durations(weighted: dict[str, Any]) -> dict[str, Any]:
    names = ("avg", *aggregates.PERCENTILES)
    return {f"{name}_duration_us": weighted[name] for name in names}


def span_stats(
    reader: Reader,
    filters: TraceFilters | SpanFilters,
    group_by: str | Sequence[str],
    buckets: time_buckets.Buckets | time_buckets.WholeRange,
    fill: str | None,
) -> list[SpanStats]:
    """Totals over the matching spans, by group and bucket of time.

    Raises:
        ValidationError: a group or the fill is invalid.
    """
    groups = group_columns(group_by)
    empty_buckets.check_fill(fill, buckets)
    framed = FramedContent(reader.session, filters)
    by = [
        *groups.values(),
        buckets.column(TraceSpan.start_time, filters.start_time, filters.end_time),
    ]
    conditions = framed.resolved(filters.in_sql()).all()
    span_count = weighted_count(_OF_SPANS)
    statement = (
        select(
            *by,
            span_count.label("span_count"),
            func.count(TraceSpan.trace_id.distinct()).label("trace_count"),
            are_weighted(_OF_SPANS).label("are_weighted"),
            weighted_count(_OF_SPANS, TraceSpan.status == "error").label("error_count"),
            func.min(DURATION_US).label("min_duration_us"),
            func.max(DURATION_US).label("max_duration_us"),
            func.avg(DURATION_US).label("avg_duration_us"),
            aggregates.percentile_array(DURATION_US).label("percentiles"),
            *(
                weighted_integer_sum(getattr(TraceSpan, name), _OF_SPANS).label(name)
                for name in ("prompt_tokens", "completion_tokens", "total_tokens")
            ),
            weighted_sum(TraceSpan.total_cost_usd, _OF_SPANS).label("total_cost_usd"),
        )
        .where(*conditions)
        .group_by(*groups.values(), "bucket")
        .order_by("bucket", span_count.desc(), *groups.values())
    )
    records = reader.records(statement)
    if any(record["are_weighted"] for record in records):
        _weigh(reader, records, by, conditions)
    found = []
    for record in records:
        del record["are_weighted"]
        columns = aggregates.with_percentiles(record, "_duration_us")
        group = {name: columns.pop(column.name) for name, column in groups.items()}
        timestamp = buckets.read(columns.pop("bucket"))
        found.append(SpanStats(group=group, timestamp=timestamp, **columns))
    if fill is None:
        return found
    sums = _NO_SUMS if fill == "zero" else dict.fromkeys(_NO_SUMS)
    empty = partial(SpanStats, **_NOTHING, **sums)
    return empty_buckets.with_empty_buckets(found, buckets, filters, group_by, empty)


def _weigh(
    reader: Reader,
    records: Sequence[dict[str, Any]],
    by: Sequence[Label[Any]],
    conditions: Sequence[ColumnElement[bool]],
) -> None:
    """Replace what PostgreSQL has no weighted aggregate for: means, percentiles and traces.

    Args:
        records: the rows of `span_stats`.
        by: the columns of the groups.
        conditions: what the spans meet.
    """
    names = [column.name for column in by]
    values = select(*by, DURATION_US.label("value"), _OF_SPANS.label("weight")).where(
        *conditions, TraceSpan.duration_us.is_not(None)
    )
    durations = {
        tuple(record[name] for name in names): record
        for record in reader.records(distribution(values.subquery("spans"), names))
    }
    least = func.min(weight_or_one(_OF_SPANS)).label("weight")
    traces = (
        select(*by, TraceSpan.trace_id, least)
        .where(*conditions)
        .group_by(*names, TraceSpan.trace_id)
        .subquery("traces")
    )
    groups = [traces.c[name] for name in names]
    counted = select(*groups, aggregates.integer_sum(traces.c.weight).label("trace_count"))
    counts = {
        tuple(record[name] for name in names): record["trace_count"]
        for record in reader.records(counted.group_by(*groups))
    }
    for record in records:
        key = tuple(record[name] for name in names)
        record["trace_count"] = counts.get(key, record["trace_count"])
        if (weighted := durations.get(key)) is not None:
            record["avg_duration_us"] = weighted["avg"]
            record["percentiles"] = [weighted[name] for name in aggregates.PERCENTILES]
