"""Tokens and cost out of spans."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import func, literal_column, or_, select

from observatory_storage.models import TraceSpan
from observatory_storage.repositories.reading import validation
from observatory_storage.repositories.reading.grouping import (
    SPAN_GROUPS,
    bucket_column,
    group_columns,
)
from observatory_storage.repositories.reading.reader import Repository
from observatory_storage.repositories.reading.results import CostSummary
from observatory_storage.repositories.traces.filters import SpanFilters

__all__ = ["CostQueries"]

_GROUPS: Final = {
    name: SPAN_GROUPS[name]
    for name in (
        "provider",
        "model",
        "service_name",
        "operation",
        "environment",
        "user_id",
        "session_id",
    )
}
_TOKENS: Final = (TraceSpan.prompt_tokens, TraceSpan.completion_tokens, TraceSpan.total_tokens)
_COSTS: Final = (
    TraceSpan.prompt_cost_usd,
    TraceSpan.completion_cost_usd,
    TraceSpan.total_cost_usd,
)


class CostQueries(Repository):
    """What was used and what it cost."""

    def get_cost_summary(
        self,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        *,
        group_by: Sequence[str] = ("provider", "model"),
        bucket_size_secs: float | None = None,
        time_zone: str | None = None,
        limit: int | None = None,
        service_name: str | None = None,
        operation: str | None = None,
        provider: str | None = None,
        model: str | None = None,
        user_id: str | None = None,
        session_id: str | None = None,
        environment: str | None = None,
    ) -> list[CostSummary]:
        """Tokens and cost of the spans that start in [start_time, end_time), by group.

        Without a bound the range is open on that side, and every partition there is read.

        Only spans that report tokens or a cost count. The dearest group comes first, those of
        unknown cost last; of the same cost, the one with the most tokens first. With buckets, the
        earlier bucket comes before all.

        Args:
            group_by: any of ``provider model service_name operation environment user_id
                session_id``; none at all gives one total.
            bucket_size_secs: the width of a bucket of time, counted from Monday, 1970-01-05 UTC.
            time_zone: by whose calendar days begin, as "Asia/Tokyo"; buckets are then of whole
                days, and of 23 or 25 hours where clocks are set.
            limit: the most groups, the first ones; with buckets, of each bucket.
            service_name: only spans of this service; so with the other columns.

        Raises:
            ValidationError: the end is before the start, or a group, a bucket or a time zone is
                unknown.
        """
        wanted = SpanFilters(
            service_name=service_name,
            operation=operation,
            start_time=start_time,
            end_time=end_time,
            provider=provider,
            model=model,
            user_id=user_id,
            session_id=session_id,
            environment=environment,
        )
        groups = group_columns(group_by, _GROUPS)
        spans = (
            select(
                bucket_column(TraceSpan.start_time, bucket_size_secs, time_zone),
                *groups.values(),
                *_TOKENS,
                *_COSTS,
            )
            .where(
                *wanted.conditions(),
                or_(TraceSpan.total_tokens.is_not(None), TraceSpan.total_cost_usd.is_not(None)),
            )
            # Hides from the planner that a bucket is made of a time, of which there are as many
            # as spans: it would sort all of them rather than hash few groups, and not in parallel.
            # Quoted, since an integer would be converted, which is no constant to the planner.
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
                func.count().filter(spans.total_cost_usd.is_(None)).label("unpriced"),
                *(func.sum(spans[column.key]).label(column.key) for column in _TOKENS),
                *(func.sum(spans[column.key]).label(column.key) for column in _COSTS),
            )
            .group_by(*by, spans.bucket)
            .subquery("totals")
        )
        statement = select(totals).order_by(totals.c.bucket, totals.c.place)
        if limit is not None:
            statement = statement.where(totals.c.place <= validation.limit(limit))
        summaries = []
        for _, *row in self._rows(statement):
            values, (bucket, count, unpriced, *sums) = row[: len(by)], row[len(by) :]
            for at in range(len(_TOKENS)):  # numeric, since a sum may have more than 64 bits
                sums[at] = None if sums[at] is None else int(sums[at])
            group = dict(zip(groups, values, strict=True))
            summaries.append(CostSummary(group, bucket, count, unpriced, *sums))
        return summaries
