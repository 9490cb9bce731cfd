"""Tokens, cost and latency of spans."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from decimal import Decimal
from functools import partial
from typing import Any, Final

from sqlalchemy import func, literal_column, or_, select

from observatory_storage.models import TraceSpan
from observatory_storage.repositories.metrics.results import CostSummary, LatencyPercentiles
from observatory_storage.repositories.reading import aggregates, empty_buckets, time_buckets
from observatory_storage.repositories.reading.reader import Reader
from observatory_storage.repositories.traces.filters import SpanFilters
from observatory_storage.repositories.traces.statistics import DURATION_US, group_columns

__all__ = ["cost_summaries", "latency_percentiles"]

_GROUPS: Final = (
    *("provider", "model", "service_name", "operation", "environment"),
    *("user_id", "session_id", "gen_ai_operation", "response_model", "agent_name", "prompt_name"),
)
_TOKENS: Final = (TraceSpan.prompt_tokens, TraceSpan.completion_tokens, TraceSpan.total_tokens)
_COSTS: Final = (
    TraceSpan.prompt_cost_usd,
    TraceSpan.completion_cost_usd,
    TraceSpan.total_cost_usd,
)


def cost_summaries(
    reader: Reader,
    filters: SpanFilters,
    group_by: str | Sequence[str],
    buckets: time_buckets.Buckets | time_buckets.WholeRange,
    *,
    limit: int | None,
    fill: str | None,
) -> list[CostSummary]:
    """Tokens and cost by group and bucket; see `MetricRepository.get_cost_summary`.

    Args:
        limit: the most groups of each bucket.

    Raises:
        ValidationError: a group or the fill is invalid.
    """
    empty_buckets.check_fill(fill, buckets)
    bucket = buckets.column(TraceSpan.start_time, filters.start_time, filters.end_time)
    groups = group_columns(group_by, _GROUPS)
    spans = (
        select(bucket, *groups.values(), *_TOKENS, *_COSTS)
        .where(
            *filters.conditions(),
            or_(TraceSpan.total_tokens.is_not(None), TraceSpan.total_cost_usd.is_not(None)),
        )
        # OFFSET hides from the planner that buckets are computed from times. It would otherwise
        # expect as many groups as spans, and sort all spans instead of hashing few groups, and not
        # in parallel. The quoted number is a constant to the planner; an integer would have to be
        # converted.
        .offset(literal_column("'0'"))
        .subquery("spans")
        .c
    )
    by = [spans[column.name] for column in groups.values()]
    cost, tokens = func.sum(spans.total_cost_usd), func.sum(spans.total_tokens)
    in_order = (cost.desc().nulls_last(), tokens.desc().nulls_last(), *by)
    place = func.row_number().over(partition_by=spans.bucket, order_by=in_order)
    totals = (
        select(
            place.label("place"),
            *by,
            spans.bucket,
            func.count().label("span_count"),
            func.count().filter(spans.total_cost_usd.is_(None)).label("unpriced_span_count"),
            *(aggregates.integer_sum(spans[column.key]).label(column.key) for column in _TOKENS),
            *(func.sum(spans[column.key]).label(column.key) for column in _COSTS),
        )
        .group_by(*by, spans.bucket)
        .subquery("totals")
    )
    statement = select(totals).order_by(totals.c.bucket, totals.c.place)
    if limit is not None and fill is None:
        statement = statement.where(totals.c.place <= limit)
    summaries = []
    for columns in reader.records(statement):
        del columns["place"]
        group = {name: columns.pop(column.name) for name, column in groups.items()}
        timestamp = buckets.read(columns.pop("bucket"))
        summaries.append(CostSummary(group=group, timestamp=timestamp, **columns))
    if fill is None:
        return summaries
    names = [column.key for column in (*_TOKENS, *_COSTS)]
    sums: dict[str, Any] = dict.fromkeys(names)
    if fill == "zero":
        sums = {name: Decimal() if name.endswith("_usd") else 0 for name in names}
    empty = partial(CostSummary, span_count=0, unpriced_span_count=0, **sums)
    filled = empty_buckets.with_empty_buckets(summaries, buckets, filters, group_by, empty)
    # Only now: a group that is cut off would look as if it had cost nothing.
    by_bucket = itertools.groupby(filled, key=lambda summary: summary.timestamp)
    return [each for _, rows in by_bucket for each in itertools.islice(rows, limit)]


def latency_percentiles(
    reader: Reader, filters: SpanFilters, buckets: time_buckets.Buckets
) -> list[LatencyPercentiles]:
    """Percentiles of durations by bucket; see `MetricRepository.get_latency_percentiles`."""
    records = reader.records(
        select(
            buckets.column(TraceSpan.start_time, filters.start_time, filters.end_time),
            func.count().label("span_count"),
            aggregates.percentile_array(DURATION_US).label("percentiles"),
        )
        .where(*filters.conditions(), TraceSpan.duration_us.is_not(None))
        .group_by("bucket")
        .order_by("bucket")
    )
    found = []
    for record in records:
        columns = aggregates.with_percentiles(record, "_us")
        timestamp = buckets.read(columns.pop("bucket"))
        found.append(LatencyPercentiles(timestamp=timestamp, **columns))
    return found
