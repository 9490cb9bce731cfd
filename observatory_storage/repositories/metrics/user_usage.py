"""Requests, tokens and cost by user, and the number of users and sessions, from rollups."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import func, select

from observatory_storage.models import (
    SessionRollupDay,
    SessionRollupHour,
    TraceSpan,
    UserRollupDay,
    UserRollupHour,
)
from observatory_storage.repositories.metrics.results import ActiveUsers, UserUsage
from observatory_storage.repositories.metrics.rollup_families import rolled_conditions
from observatory_storage.repositories.reading import aggregates, time_buckets
from observatory_storage.repositories.reading.reader import Reader
from observatory_storage.repositories.reading.rollup_pieces import (
    Pieces,
    Unit,
    pieces_of,
    source_of_rows,
    within_any,
)
from observatory_storage.repositories.reading.weights import (
    weight_or_one,
    weighted_integer_sum,
    weighted_sum,
)
from observatory_storage.repositories.traces.filters import SpanFilters

__all__ = ["active_users", "pieces_by_hour", "user_usage"]

_TOKENS: Final = ("prompt_tokens", "completion_tokens", "total_tokens")
_COSTS: Final = ("prompt_cost_usd", "completion_cost_usd", "total_cost_usd")
_USERS: Final[dict[Unit, Any]] = {"hour": UserRollupHour, "day": UserRollupDay}
_SESSIONS: Final[dict[Unit, Any]] = {"hour": SessionRollupHour, "day": SessionRollupDay}
AnyBuckets = time_buckets.Buckets | time_buckets.WholeRange


def pieces_by_hour(
    reader: Reader,
    start: datetime | None,
    end: datetime | None,
    buckets: AnyBuckets,
    source: str,
) -> Pieces:
    """The pieces of [start, end), of rollups of hours and days."""
    if source != "raw":
        pieces = pieces_of(reader, start, end, buckets, ("hour", "day"))
        if pieces is not None:
            return pieces
    return Pieces.of_spans(start, end)


def user_usage(
    reader: Reader, filters: SpanFilters, buckets: AnyBuckets, *, limit: int | None, source: str
) -> list[UserUsage]:
    """Usage by user and bucket; see `MetricRepository.get_user_usage`."""
    start, end = filters.start_time, filters.end_time
    pieces = pieces_by_hour(reader, start, end, buckets, source)
    parts: list[Any] = []
    for unit, ranges in pieces.rolled.items():
        model = _USERS[unit]
        parts.append(
            select(
                buckets.column(model.bucket, start, end),
                model.user_id,
                *(getattr(model, name) for name in ("span_count", "error_count")),
                *(getattr(model, name) for name in ("usage_span_count", "unpriced_span_count")),
                *(getattr(model, name) for name in (*_TOKENS, *_COSTS)),
                sa.cast(sa.null(), sa.Integer).label("sample_weight"),
                sa.false().label("is_raw"),
            ).where(within_any(model.bucket, ranges), *rolled_conditions(filters, model))
        )
    weight = weight_or_one(TraceSpan.sample_weight)
    has_usage = sa.or_(TraceSpan.total_tokens.is_not(None), TraceSpan.total_cost_usd.is_not(None))
    parts += [
        select(
            buckets.column(TraceSpan.start_time, start, end),
            TraceSpan.user_id,
            weight.label("span_count"),
            sa.case((TraceSpan.status == "error", weight), else_=0).label("error_count"),
            sa.case((has_usage, weight), else_=0).label("usage_span_count"),
            sa.case(
                (sa.and_(has_usage, TraceSpan.total_cost_usd.is_(None)), weight), else_=0
            ).label("unpriced_span_count"),
            *(
                sa.case((has_usage, getattr(TraceSpan, name))).label(name)
                for name in (*_TOKENS, *_COSTS)
            ),
            TraceSpan.sample_weight,
            sa.true().label("is_raw"),
        ).where(
            within_any(TraceSpan.start_time, [piece]),
            TraceSpan.user_id.is_not(None),
            *rolled_conditions(filters, TraceSpan),
        )
        for piece in pieces.raw
    ]
    rows = sa.union_all(*parts).subquery("rows").c
    sums = {
        **{name: weighted_integer_sum(rows[name], rows.sample_weight) for name in _TOKENS},
        **{name: weighted_sum(rows[name], rows.sample_weight) for name in _COSTS},
    }
    cost, tokens = sums["total_cost_usd"], sums["total_tokens"]
    order = (cost.desc().nulls_last(), tokens.desc().nulls_last(), rows.user_id)
    place = func.row_number().over(partition_by=rows.bucket, order_by=order).label("place")
    counts = ("span_count", "error_count", "usage_span_count", "unpriced_span_count")
    totals = (
        select(
            place,
            rows.bucket,
            rows.user_id,
            *(aggregates.integer_sum(rows[name]).label(name) for name in counts),
            *(total.label(name) for name, total in sums.items()),
            func.bool_or(rows.is_raw).label("has_raw"),
            func.bool_or(~rows.is_raw).label("has_rolled"),
        )
        .group_by(rows.bucket, rows.user_id)
        .subquery("totals")
    )
    statement = select(totals).order_by(totals.c.bucket, totals.c.place)
    if limit is not None:
        statement = statement.where(totals.c.place <= limit)
    found = []
    for record in reader.records(statement):
        del record["place"]
        timestamp = buckets.read(record.pop("bucket"))
        found.append(UserUsage(source=source_of_rows(record), timestamp=timestamp, **record))
    return found


def active_users(
    reader: Reader,
    start: datetime | None,
    end: datetime | None,
    buckets: time_buckets.Buckets,
    source: str,
) -> list[ActiveUsers]:
    """Distinct users and sessions by bucket; see `MetricRepository.get_active_users`."""
    pieces = pieces_by_hour(reader, start, end, buckets, source)
    rows = sa.union_all(*_people(pieces, buckets, start, end)).subquery("rows").c
    records = reader.records(
        select(
            rows.bucket,
            func.count(rows.user_id.distinct()).label("user_count"),
            func.count(rows.session_id.distinct()).label("session_count"),
            func.bool_or(rows.is_raw).label("has_raw"),
            func.bool_or(~rows.is_raw).label("has_rolled"),
        )
        .group_by(rows.bucket)
        .order_by(rows.bucket)
    )
    found = []
    for record in records:
        timestamp = buckets.read(record.pop("bucket"))
        found.append(ActiveUsers(source=source_of_rows(record), timestamp=timestamp, **record))
    return found


def _people(
    pieces: Pieces, buckets: time_buckets.Buckets, start: datetime | None, end: datetime | None
) -> Iterator[Any]:
    none = sa.cast(sa.null(), sa.Text)
    for unit, ranges in pieces.rolled.items():
        users, sessions = _USERS[unit], _SESSIONS[unit]
        yield select(
            buckets.column(users.bucket, start, end),
            users.user_id,
            none.label("session_id"),
            sa.false().label("is_raw"),
        ).where(within_any(users.bucket, ranges))
        yield select(
            buckets.column(sessions.bucket, start, end), none, sessions.session_id, sa.false()
        ).where(within_any(sessions.bucket, ranges))
    for piece in pieces.raw:
        yield select(
            buckets.column(TraceSpan.start_time, start, end),
            TraceSpan.user_id.label("user_id"),
            TraceSpan.session_id.label("session_id"),
            sa.true().label("is_raw"),
        ).where(
            within_any(TraceSpan.start_time, [piece]),
            sa.or_(TraceSpan.user_id.is_not(None), TraceSpan.session_id.is_not(None)),
        )
