"""Recomputes the totals of traces from all their stored spans."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import aggregate_order_by

from observatory_storage.distribution import ids_by_shard, is_sharded
from observatory_storage.storing.conflict_rules import microseconds
from observatory_storage.storing.trace_upsert import WEIGHTED, within_bigint
from observatory_storage.tables import SPANS, TRACES

__all__ = ["recompute_traces", "reports_usage"]

_TRACES: Final = TRACES.table


def reports_usage(spans: Any) -> sa.ColumnElement[bool]:
    """Whether a stored span reports usage, counted or not."""
    return sa.or_(
        sa.func.coalesce(spans.total_tokens, 0) > 0,
        sa.func.coalesce(spans.total_cost_usd, 0) > 0,
        spans.reported_usage.is_not(None),
    )


def _recomputed_weighted(spans: Any) -> list[sa.Label[Any]]:
    times = sa.func.coalesce(spans.sample_weight, 1)
    totals = {
        "span_count": sa.func.sum(times),
        "error_count": sa.func.coalesce(sa.func.sum(times).filter(spans.status == "error"), 0),
        "total_tokens": sa.func.sum(sa.cast(spans.total_tokens, sa.Numeric) * times),
        "total_cost_usd": sa.func.sum(spans.total_cost_usd * times),
    }
    is_weighted = sa.func.count(spans.sample_weight) > 0
    return [
        sa.case((is_weighted, totals[total])).label(weighted)
        for total, weighted in WEIGHTED.items()
    ]


def _recomputing(*, on_shard: bool) -> Any:
    spans = SPANS.table.c
    bounds = _TRACES.alias("bounds")
    order = (spans.parent_span_id.is_not(None), spans.start_time, spans.start_ns, spans.span_id)

    def of_lead(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        return sa.func.array_agg(aggregate_order_by(column, *order))[1]

    errors = sa.func.count().filter(spans.status == "error")
    tokens = within_bigint(sa.func.sum(spans.total_tokens), spans.total_tokens)
    has_parent = sa.cast(of_lead(spans.parent_span_id.is_not(None)), sa.Boolean)
    of_spans = (
        sa.select(
            spans.trace_id.label("id"),
            sa.func.min(spans.start_time).label("start_time"),
            sa.func.max(spans.end_time).label("end_time"),
            sa.case(
                (errors > 0, sa.literal("error")),
                (sa.func.count().filter(spans.status == "ok") > 0, sa.literal("ok")),
                else_=sa.literal("unset"),
            ).label("status"),
            sa.func.count().label("span_count"),
            errors.label("error_count"),
            tokens.label("total_tokens"),
            sa.func.sum(spans.total_cost_usd).label("total_cost_usd"),
            sa.func.max(spans.start_time).label("last_span_start"),
            sa.func.count().filter(reports_usage(spans)).label("usage_span_count"),
            sa.case(
                (
                    sa.func.bool_and(spans.sample_weight.is_not(None)),
                    sa.func.min(spans.sample_weight),
                )
            ).label("sample_weight"),
            *_recomputed_weighted(spans),
            of_lead(spans.name).label("root_span_name"),
            of_lead(spans.service_name).label("service_name"),
            has_parent.label("lead_has_parent"),
            of_lead(spans.start_time).label("lead_start_time"),
            of_lead(spans.start_ns).label("lead_start_ns"),
            of_lead(spans.span_id).label("lead_span_id"),
        )
        # The bounds prune the partitions: a trace's spans start within them.
        .join_from(
            bounds,
            SPANS.table,
            sa.and_(
                spans.trace_id == bounds.c.id,
                spans.start_time >= bounds.c.start_time,
                spans.start_time <= bounds.c.last_span_start,
            ),
        )
        .where(_is_wanted(bounds.c.id))
        .group_by(spans.trace_id)
    )
    # Citus finds the shard only if each table has the condition.
    of_shard = [_is_wanted(_TRACES.c.id)] if on_shard else []
    if on_shard:
        of_spans = of_spans.where(_is_wanted(spans.trace_id))
    totals = of_spans.subquery("totals")
    return (
        sa.update(_TRACES)
        .where(_TRACES.c.id == totals.c.id, *of_shard)
        .values(
            **{column.name: column for column in totals.c if column.name != "id"},
            duration_us=microseconds(totals.c.start_time, totals.c.end_time),
            updated_at=sa.func.now(),
        )
    )


def _is_wanted(column: sa.Column[UUID]) -> sa.ColumnElement[bool]:
    return column == sa.func.any(sa.bindparam("ids", type_=sa.ARRAY(column.type)))


_RECOMPUTE: Final = _recomputing(on_shard=False)
_RECOMPUTE_ON_SHARD: Final = _recomputing(on_shard=True)


def recompute_traces(connection: sa.Connection, trace_ids: Iterable[UUID]) -> None:
    """Recompute traces from all their stored spans. Their rows must be locked."""
    ids = list(trace_ids)
    if ids and is_sharded(connection):
        for of_shard in ids_by_shard(connection, ids):
            connection.execute(_RECOMPUTE_ON_SHARD, {"ids": of_shard})
    elif ids:
        connection.execute(_RECOMPUTE, {"ids": ids})
