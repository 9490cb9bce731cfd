"""A summary of errors by type, operation and service, from rollups."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import aggregate_order_by

from observatory_storage.models import ErrorRollupDay, ErrorRollupHour, TraceSpan
from observatory_storage.repositories.metrics.results import ErrorSummary
from observatory_storage.repositories.metrics.rollup_families import rolled_conditions
from observatory_storage.repositories.metrics.user_usage import pieces_by_hour
from observatory_storage.repositories.reading import aggregates, time_buckets
from observatory_storage.repositories.reading.reader import Reader
from observatory_storage.repositories.reading.rollup_pieces import Unit, source_of_rows, within_any
from observatory_storage.repositories.reading.weights import weight_or_one
from observatory_storage.repositories.traces.filters import SpanFilters

__all__ = ["error_summaries"]

_ROLLUPS: Final[dict[Unit, Any]] = {"hour": ErrorRollupHour, "day": ErrorRollupDay}
_COLUMNS: Final = (
    "service_name",
    "name",
    "error_type",
    "user_id",
    "session_id",
    "trace_id",
    "span_id",
)


def error_summaries(
    reader: Reader, filters: SpanFilters, *, limit: int, source: str
) -> list[ErrorSummary]:
    """Failed spans by service, operation and type; see `MetricRepository.get_error_summary`."""
    whole = time_buckets.WholeRange()
    pieces = pieces_by_hour(reader, filters.start_time, filters.end_time, whole, source)
    parts: list[Any] = []
    for unit, ranges in pieces.rolled.items():
        model = _ROLLUPS[unit]
        parts.append(
            select(
                *(getattr(model, name) for name in _COLUMNS),
                model.span_count,
                model.first_seen,
                model.last_seen,
                sa.false().label("is_raw"),
            ).where(within_any(model.bucket, ranges), *rolled_conditions(filters, model))
        )
    parts += [
        select(
            *(getattr(TraceSpan, name) for name in _COLUMNS),
            weight_or_one(TraceSpan.sample_weight).label("span_count"),
            TraceSpan.start_time.label("first_seen"),
            TraceSpan.start_time.label("last_seen"),
            sa.true().label("is_raw"),
        ).where(
            within_any(TraceSpan.start_time, [piece]),
            TraceSpan.status == "error",
            *rolled_conditions(filters, TraceSpan),
        )
        for piece in pieces.raw
    ]
    rows = sa.union_all(*parts).subquery("rows").c
    by = (rows.service_name, rows.name, rows.error_type)
    order = (rows.last_seen.desc(), rows.trace_id, rows.span_id)
    count = aggregates.integer_sum(rows.span_count)
    last = func.max(rows.last_seen)

    def of_last(column: Any) -> Any:
        return func.array_agg(aggregate_order_by(column, *order), type_=sa.ARRAY(column.type))[1]

    records = reader.records(
        select(
            rows.service_name,
            rows.name.label("operation"),
            rows.error_type,
            count.label("span_count"),
            func.min(rows.first_seen).label("first_seen"),
            last.label("last_seen"),
            of_last(rows.trace_id).label("trace_id"),
            of_last(rows.span_id).label("span_id"),
            func.count(rows.user_id.distinct()).label("user_count"),
            func.count(rows.session_id.distinct()).label("session_count"),
            func.bool_or(rows.is_raw).label("has_raw"),
            func.bool_or(~rows.is_raw).label("has_rolled"),
        )
        .group_by(*by)
        .order_by(count.desc(), last.desc(), *by)
        .limit(limit)
    )
    return [ErrorSummary(source=source_of_rows(record), **record) for record in records]
