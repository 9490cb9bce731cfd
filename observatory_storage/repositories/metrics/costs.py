"""Tokens and cost of spans, from the spans or from rollups."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import partial
from typing import Any, Final

from sqlalchemy import (
    Integer,
    Label,
    Select,
    case,
    cast,
    false,
    func,
    null,
    or_,
    select,
    true,
    union_all,
)

from observatory_storage.models import TraceSpan
from observatory_storage.repositories.metrics.results import CostSummary
from observatory_storage.repositories.metrics.rollup_families import (
    Family,
    family_of,
    rolled_conditions,
)
from observatory_storage.repositories.reading import aggregates, empty_buckets, time_buckets
from observatory_storage.repositories.reading.filter_fields import Conditions
from observatory_storage.repositories.reading.reader import Reader, fenced
from observatory_storage.repositories.reading.rollup_pieces import (
    Pieces,
    Source,
    pieces_of,
    source_of_rows,
    within_any,
)
from observatory_storage.repositories.reading.weights import (
    weight_or_one,
    weighted_count,
    weighted_integer_sum,
    weighted_sum,
)
from observatory_storage.repositories.traces.filters import SpanFilters
from observatory_storage.repositories.traces.statistics import group_columns

__all__ = ["cost_summaries"]

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
    source: str,
) -> list[CostSummary]:
    """Tokens and cost by group and bucket; see `MetricRepository.get_cost_summary`.

    Args:
        limit: the most groups of each bucket.

    Raises:
        ValidationError: a group or the fill is invalid.
    """
    empty_buckets.check_fill(fill, buckets)
    groups = group_columns(group_by, _GROUPS)
    family = None if source == "raw" else family_of(filters, groups)
    pieces = None
    if family is not None:
        units = list(family.models)
        pieces = pieces_of(reader, filters.start_time, filters.end_time, buckets, units)
    if family is None or pieces is None:
        found = _of_spans(filters, buckets, groups, filters.conditions())
        spans = fenced(found, is_sharded=reader.is_sharded).subquery("spans").c
        weight = spans.sample_weight
        counts: list[Any] = [
            weighted_count(weight),
            weighted_count(weight, spans.total_cost_usd.is_(None)),
        ]
        sources: list[Any] = [true(), false()]
    else:
        spans = (
            _of_pieces(filters, buckets, groups, family, pieces, is_sharded=reader.is_sharded)
            .subquery("spans")
            .c
        )
        counts = [aggregates.integer_sum(c) for c in (spans.span_count, spans.unpriced_span_count)]
        sources = [func.bool_or(spans.is_raw), func.bool_or(~spans.is_raw)]
    by = [spans[column.name] for column in groups.values()]
    sums = {
        column.key: add(spans[column.key], spans.sample_weight)
        for columns, add in ((_TOKENS, weighted_integer_sum), (_COSTS, weighted_sum))
        for column in columns
    }
    cost, tokens = sums["total_cost_usd"], sums["total_tokens"]
    in_order = (cost.desc().nulls_last(), tokens.desc().nulls_last(), *by)
    place = func.row_number().over(partition_by=spans.bucket, order_by=in_order)
    totals = (
        select(
            *([] if reader.is_sharded else [place.label("place")]),
            *by,
            spans.bucket,
            counts[0].label("span_count"),
            counts[1].label("unpriced_span_count"),
            sources[0].label("has_raw"),
            sources[1].label("has_rolled"),
            *(total.label(name) for name, total in sums.items()),
        )
        .group_by(*by, spans.bucket)
        .subquery("totals")
    )
    if reader.is_sharded:
        # Shards add up, the coordinator ranks the totals. Otherwise it would read all spans.
        of = totals.c
        in_order = (
            of.total_cost_usd.desc().nulls_last(),
            of.total_tokens.desc().nulls_last(),
            *(of[column.name] for column in groups.values()),
        )
        place = func.row_number().over(partition_by=of.bucket, order_by=in_order)
        totals = select(place.label("place"), totals).subquery("placed")
    statement = select(totals).order_by(totals.c.bucket, totals.c.place)
    if limit is not None and fill is None:
        statement = statement.where(totals.c.place <= limit)
    summaries = []
    for columns in reader.records(statement):
        del columns["place"]
        group = {name: columns.pop(column.name) for name, column in groups.items()}
        timestamp = buckets.read(columns.pop("bucket"))
        columns["source"] = source_of_rows(columns)
        summaries.append(CostSummary(group=group, timestamp=timestamp, **columns))
    if fill is None:
        return summaries
    names = [column.key for column in (*_TOKENS, *_COSTS)]
    nothing: dict[str, Any] = dict.fromkeys(names)
    if fill == "zero":
        nothing = {name: Decimal() if name.endswith("_usd") else 0 for name in names}
    found_in: Source = "raw" if pieces is None else "rollup"
    empty = partial(CostSummary, span_count=0, unpriced_span_count=0, source=found_in, **nothing)
    filled = empty_buckets.with_empty_buckets(summaries, buckets, filters, group_by, empty)
    # Only now: a group that is cut off would look as if it had cost nothing.
    by_bucket = itertools.groupby(filled, key=lambda summary: summary.timestamp)
    return [each for _, rows in by_bucket for each in itertools.islice(rows, limit)]


def _of_spans(
    filters: SpanFilters,
    buckets: time_buckets.Buckets | time_buckets.WholeRange,
    groups: Mapping[str, Label[Any]],
    conditions: Conditions,
) -> Select[Any]:
    """The spans with tokens or a cost."""
    bucket = buckets.column(TraceSpan.start_time, filters.start_time, filters.end_time)
    # Fenced, so that the planner does not see that buckets are computed from times. It would expect
    # as many groups as spans, and sort all spans instead of hashing few groups, in one process.
    return select(bucket, *groups.values(), *_TOKENS, *_COSTS, TraceSpan.sample_weight).where(
        *conditions,
        or_(TraceSpan.total_tokens.is_not(None), TraceSpan.total_cost_usd.is_not(None)),
    )


def _of_pieces(
    filters: SpanFilters,
    buckets: time_buckets.Buckets | time_buckets.WholeRange,
    groups: Mapping[str, Label[Any]],
    family: Family,
    pieces: Pieces,
    *,
    is_sharded: bool,
) -> Any:
    """The rows of rollups, and the spans of the times that rollups do not answer."""
    parts: list[Select[Any]] = []
    for unit, ranges in pieces.rolled.items():
        model = family.models[unit]
        parts.append(
            select(
                buckets.column(model.bucket, filters.start_time, filters.end_time),
                *(
                    getattr(model, family.columns[name]).label(column.name)
                    for name, column in groups.items()
                ),
                *(getattr(model, column.key) for column in (*_TOKENS, *_COSTS)),
                cast(null(), Integer).label("sample_weight"),
                model.usage_span_count.label("span_count"),
                model.unpriced_span_count,
                false().label("is_raw"),
            ).where(
                within_any(model.bucket, ranges),
                model.usage_span_count > 0,
                *rolled_conditions(filters, model),
            )
        )
    conditions = rolled_conditions(filters, TraceSpan)
    for piece in pieces.raw:
        within = [within_any(TraceSpan.start_time, [piece]), *conditions]
        of_piece = _of_spans(filters, buckets, groups, within)
        raw = fenced(of_piece, is_sharded=is_sharded).subquery("raw")
        weight = weight_or_one(raw.c.sample_weight)
        unpriced = case((raw.c.total_cost_usd.is_(None), weight), else_=0)
        parts.append(select(*raw.c, weight, unpriced, true()))
    return union_all(*parts) if len(parts) > 1 else parts[0]
