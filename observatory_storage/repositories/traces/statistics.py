"""Totals over traces, and over their spans by group and time."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final, overload

from sqlalchemy import Double, cast, func, literal, or_, select
from sqlalchemy.dialects.postgresql import ARRAY

from observatory_storage.errors import ValidationError
from observatory_storage.models import Trace, TraceSpan
from observatory_storage.repositories.reading import validation
from observatory_storage.repositories.reading.grouping import (
    DURATION_US,
    SPAN_GROUPS,
    bucket_column,
    group_columns,
)
from observatory_storage.repositories.reading.reader import Repository
from observatory_storage.repositories.reading.results import SpanStats, TraceStats
from observatory_storage.repositories.traces.filters import SpanFilters, TraceFilters

__all__ = ["StatisticsQueries"]

_QUANTILES: Final = (0.5, 0.9, 0.95, 0.99)


class StatisticsQueries(Repository):
    """Totals over traces and spans."""

    @overload
    def get_stats(self, filters: TraceFilters | None = None) -> TraceStats: ...
    @overload
    def get_stats(
        self,
        filters: TraceFilters | SpanFilters | None = None,
        *,
        group_by: Sequence[str],
        bucket_size_secs: float | None = None,
        time_zone: str | None = None,
    ) -> list[SpanStats]: ...
    @overload
    def get_stats(
        self,
        filters: TraceFilters | SpanFilters | None = None,
        *,
        group_by: Sequence[str] = ...,
        bucket_size_secs: float,
        time_zone: str | None = None,
    ) -> list[SpanStats]: ...
    def get_stats(
        self,
        filters: TraceFilters | SpanFilters | None = None,
        *,
        group_by: Sequence[str] | None = None,
        bucket_size_secs: float | None = None,
        time_zone: str | None = None,
    ) -> TraceStats | list[SpanStats]:
        """Totals over the traces that match, or over the spans that match by group and time.

        Without ``group_by`` and ``bucket_size_secs`` the traces are counted of which a span
        matches, each as a whole: `TraceStats`. With either, the spans themselves are, and nothing
        else of their traces: a `SpanStats` for each group that has spans, the earlier bucket
        first, within it the group of the most spans. The filters' ``limit`` does not apply.

        Args:
            filters: which traces or spans; `SpanFilters` only for spans.
            group_by: any of ``service_name operation kind status provider model environment
                user_id session_id``; none at all (``()``) for one group of all spans.
            bucket_size_secs: the width of a bucket of time, by the spans' start, counted from
                Monday, 1970-01-05 UTC.
            time_zone: by whose calendar days begin, as "Asia/Tokyo"; buckets are then of whole
                days, and of 23 or 25 hours where clocks are set.

        Raises:
            ValidationError: a group, a bucket or a time zone is unknown.
        """
        if group_by is None and bucket_size_secs is None and time_zone is None:
            if isinstance(filters, SpanFilters):
                raise ValidationError("filters", filters, "must be TraceFilters without group_by")
            return self._of_traces(validation.filters(filters, TraceFilters))
        wanted = (
            filters
            if isinstance(filters, SpanFilters)
            else validation.filters(filters, TraceFilters)
        )
        by = group_columns(() if group_by is None else group_by, SPAN_GROUPS)
        bucket = bucket_column(TraceSpan.start_time, bucket_size_secs, time_zone)
        span_count = func.count()
        statement = (
            select(
                *by.values(),
                bucket,
                span_count,
                func.count(TraceSpan.trace_id.distinct()),
                func.count().filter(TraceSpan.status == "error"),
                func.min(DURATION_US),
                func.max(DURATION_US),
                func.avg(DURATION_US),
                _percentiles(DURATION_US),
                func.sum(TraceSpan.prompt_tokens),
                func.sum(TraceSpan.completion_tokens),
                func.sum(TraceSpan.total_tokens),
                func.sum(TraceSpan.total_cost_usd),
            )
            .where(*wanted.conditions())
            .group_by(*by.values(), "bucket")
            .order_by("bucket", span_count.desc(), *by.values())
        )
        return [_span_stats(tuple(by), row) for row in self._rows(statement)]

    def _of_traces(self, filters: TraceFilters) -> TraceStats:
        statement = select(
            func.count(),
            func.count().filter(Trace.status == "error"),
            func.sum(Trace.span_count),
            func.sum(Trace.error_count),
            func.sum(Trace.total_tokens),
            func.sum(Trace.total_cost_usd),
            func.min(Trace.duration_us),
            func.max(Trace.duration_us),
            cast(func.avg(Trace.duration_us), Double),
            _percentiles(cast(Trace.duration_us, Double)),
            func.min(Trace.start_time),
            func.max(Trace.start_time),
        )
        in_sql = filters.in_sql()
        if conditions := in_sql.all():
            of_spans = Trace.id.in_(select(TraceSpan.trace_id).where(*conditions))
            statement = statement.where(or_(of_spans, in_sql.bare()))
        row = list(self._row(statement))
        row[2:5] = int(row[2] or 0), int(row[3] or 0), _integer(row[4])
        row[9:10] = row[9] or [None] * len(_QUANTILES)
        return TraceStats(*row)


def _percentiles(values: Any) -> Any:
    return func.percentile_cont(literal(_QUANTILES, ARRAY(Double))).within_group(values)


def _span_stats(names: Sequence[str], row: Sequence[Any]) -> SpanStats:
    group = dict(zip(names, row[: len(names)], strict=True))
    *counts, quantiles, prompt, completion, total, cost = row[len(names) :]
    tokens = map(_integer, (prompt, completion, total))
    return SpanStats(group, *[*counts, *(quantiles or [None] * len(_QUANTILES)), *tokens, cost])


def _integer(total: Decimal | None) -> int | None:
    """A sum of integers, which PostgreSQL gives as a numeric: it may have more than 64 bits."""
    return None if total is None else int(total)
