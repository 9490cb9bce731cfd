"""Rollups: what spans add up to by minute, hour and day, and which of them are out of date.

The rows of a bucket are always replaced together, so the key of a row is its bucket and its
position there: the columns that it groups by may be NULL, which a primary key does not allow.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from decimal import Decimal
from typing import Final

from sqlalchemy import ARRAY, BigInteger, Identity, Index, Integer, SmallInteger
from sqlalchemy.orm import Mapped, mapped_column

from observatory_storage.models.base import NAME, Base

__all__ = [
    "DURATION_SCALE",
    "TOKEN_DETAIL_SUMS",
    "ErrorRollupDay",
    "ErrorRollupHour",
    "LatencyRollupDay",
    "LatencyRollupHour",
    "RollupState",
    "SessionRollupDay",
    "SessionRollupHour",
    "SpanChange",
    "SpanRollupDay",
    "SpanRollupHour",
    "SpanRollupMinute",
    "UserRollupDay",
    "UserRollupHour",
]

DURATION_SCALE: Final = 5
"""The scale of the histograms of durations, as OpenTelemetry's exponential histograms have it.

A bucket is (b^i, b^(i+1)] with b = 2^(2^-5), about 1.0219. A value that stands for all values of a
bucket differs from them by at most (b - 1) / (b + 1), about 1.083 %.
"""


class SpanChange(Base):
    """A range of starts within which spans were written, changed or deleted, or rollups were.

    The rows are added by the transaction that changes the spans, and removed by the one that
    refreshes the rollups.
    """

    __tablename__ = "span_changes"

    id: Mapped[int] = mapped_column(
        BigInteger, Identity(always=True), primary_key=True, doc="Numbers the changes."
    )
    level: Mapped[int] = mapped_column(
        SmallInteger,
        server_default="0",
        doc="What has changed: 0 spans, 1 their minutes, 2 their hours. Coarser rollups are stale.",
    )
    start_time: Mapped[datetime] = mapped_column(doc="The earliest start of a changed span.")
    end_time: Mapped[datetime] = mapped_column(doc="The latest start of a changed span.")


class RollupState(Base):
    """One row, once rollups are kept: from which time on they and the spans are complete."""

    __tablename__ = "rollup_state"

    id: Mapped[int] = mapped_column(
        SmallInteger, primary_key=True, autoincrement=False, doc="Always 1."
    )
    raw_since: Mapped[datetime | None] = mapped_column(
        doc="Spans that start earlier may have been dropped: their rollups stay. None: no bound."
    )
    minute_since: Mapped[datetime | None] = mapped_column(
        doc="Rollups of earlier minutes may have expired. None: no bound."
    )
    hour_since: Mapped[datetime | None] = mapped_column(
        doc="Rollups of earlier hours may have expired. None: no bound."
    )
    day_since: Mapped[datetime | None] = mapped_column(
        doc="Rollups of earlier days may have expired. None: no bound."
    )


class _Bucket:
    bucket: Mapped[datetime] = mapped_column(primary_key=True, doc="Its start, in UTC.")
    position: Mapped[int] = mapped_column(
        Integer, primary_key=True, autoincrement=False, doc="Numbers the rows of the bucket."
    )


class _Usage:
    """Sums over spans. Tokens and costs are those of spans with total tokens or a total cost."""

    span_count: Mapped[int] = mapped_column(doc="The number of spans.")
    error_count: Mapped[int] = mapped_column(doc='The number of spans with the status "error".')
    usage_span_count: Mapped[int] = mapped_column(
        doc="The number of spans that report tokens or a cost."
    )
    unpriced_span_count: Mapped[int] = mapped_column(
        doc="The number of spans with tokens whose cost is unknown."
    )
    prompt_tokens: Mapped[Decimal | None] = mapped_column(doc="The sum of `prompt_tokens`.")
    completion_tokens: Mapped[Decimal | None] = mapped_column(doc="The sum of `completion_tokens`.")
    total_tokens: Mapped[Decimal | None] = mapped_column(doc="The sum of `total_tokens`.")
    prompt_cost_usd: Mapped[Decimal | None] = mapped_column(doc="The sum of `prompt_cost_usd`.")
    completion_cost_usd: Mapped[Decimal | None] = mapped_column(
        doc="The sum of `completion_cost_usd`."
    )
    total_cost_usd: Mapped[Decimal | None] = mapped_column(doc="The sum of `total_cost_usd`.")


class _Durations:
    """Durations of ended spans in microseconds, and their histogram; see `DURATION_SCALE`."""

    duration_count: Mapped[int] = mapped_column(doc="The number of spans that have ended.")
    duration_sum_us: Mapped[Decimal | None] = mapped_column(doc="The sum of their durations.")
    duration_min_us: Mapped[float | None] = mapped_column(doc="The shortest duration.")
    duration_max_us: Mapped[float | None] = mapped_column(doc="The longest duration.")
    duration_zeros: Mapped[int] = mapped_column(doc="The number of durations that are zero.")
    duration_indexes: Mapped[list[int] | None] = mapped_column(
        ARRAY(SmallInteger), doc="The indexes of the histogram's buckets, in order."
    )
    duration_counts: Mapped[list[int] | None] = mapped_column(
        ARRAY(BigInteger), doc="The number of durations in each of these buckets."
    )


class _TokenDetails:
    prompt_cache_read: Mapped[Decimal | None] = mapped_column(doc="Input tokens from a cache.")
    prompt_cache_write: Mapped[Decimal | None] = mapped_column(doc="Input tokens put in a cache.")
    prompt_cache_write_1h: Mapped[Decimal | None] = mapped_column(
        doc="Input tokens put in a cache for an hour."
    )
    prompt_audio: Mapped[Decimal | None] = mapped_column(doc="Input tokens of audio.")
    prompt_image: Mapped[Decimal | None] = mapped_column(doc="Input tokens of images.")
    prompt_video: Mapped[Decimal | None] = mapped_column(doc="Input tokens of videos.")
    completion_reasoning: Mapped[Decimal | None] = mapped_column(doc="Output tokens of reasoning.")
    completion_audio: Mapped[Decimal | None] = mapped_column(doc="Output tokens of audio.")
    completion_image: Mapped[Decimal | None] = mapped_column(doc="Output tokens of images.")
    completion_video: Mapped[Decimal | None] = mapped_column(doc="Output tokens of videos.")


TOKEN_DETAIL_SUMS: Final = tuple(
    name for name, value in vars(_TokenDetails).items() if hasattr(value, "column")
)
"""The columns with sums of `token_details`, by their keys there."""


class _SpanRollup(_Bucket, _Usage, _TokenDetails, _Durations):
    service_name: Mapped[str] = mapped_column(NAME, doc="The service of the spans.")
    name: Mapped[str] = mapped_column(NAME, doc="The name of the spans.")
    operation: Mapped[str | None] = mapped_column(NAME, doc="Their `gen_ai.operation.name`.")
    provider: Mapped[str | None] = mapped_column(NAME, doc="Their provider.")
    model: Mapped[str | None] = mapped_column(NAME, doc="Their model.")
    environment: Mapped[str | None] = mapped_column(NAME, doc="Their environment.")
    status: Mapped[str] = mapped_column(NAME, doc="Their status.")
    kind: Mapped[str | None] = mapped_column(NAME, doc="Their kind.")


class SpanRollupMinute(_SpanRollup, Base):
    """What the spans that start in a minute add up to, by group."""

    __tablename__ = "span_rollups_minute"


class SpanRollupHour(_SpanRollup, Base):
    """The same as `SpanRollupMinute`, of an hour."""

    __tablename__ = "span_rollups_hour"


class SpanRollupDay(_SpanRollup, Base):
    """The same as `SpanRollupMinute`, of a day in UTC."""

    __tablename__ = "span_rollups_day"
    __table_args__ = (Index("ix_span_rollups_day", "service_name", "name", "kind", "bucket"),)


class _LatencyRollup(_Bucket, _Durations):
    service_name: Mapped[str | None] = mapped_column(NAME, doc="The service; None: all of them.")
    name: Mapped[str | None] = mapped_column(NAME, doc="The spans' name; None: all of them.")
    # From the histogram: most questions are for one row of each bucket.
    p50_us: Mapped[float | None] = mapped_column(doc="The median of the durations.")
    p90_us: Mapped[float | None] = mapped_column(doc="The 90th percentile.")
    p95_us: Mapped[float | None] = mapped_column(doc="The 95th percentile.")
    p99_us: Mapped[float | None] = mapped_column(doc="The 99th percentile.")


class LatencyRollupHour(_LatencyRollup, Base):
    """The durations of an hour: of each service and name, of each service, and of all spans."""

    __tablename__ = "latency_rollups_hour"
    __table_args__ = (Index("ix_latency_rollups_hour", "service_name", "name", "bucket"),)


class LatencyRollupDay(_LatencyRollup, Base):
    """The same as `LatencyRollupHour`, of a day in UTC."""

    __tablename__ = "latency_rollups_day"
    __table_args__ = (Index("ix_latency_rollups_day", "service_name", "name", "bucket"),)


class _UserRollup(_Bucket, _Usage):
    user_id: Mapped[str] = mapped_column(NAME, doc="The user.")
    provider: Mapped[str | None] = mapped_column(NAME, doc="The provider.")
    model: Mapped[str | None] = mapped_column(NAME, doc="The model.")


class UserRollupHour(_UserRollup, Base):
    """What a user's spans of an hour add up to."""

    __tablename__ = "user_rollups_hour"
    __table_args__ = (Index("ix_user_rollups_hour", "user_id", "bucket"),)


class UserRollupDay(_UserRollup, Base):
    """The same as `UserRollupHour`, of a day in UTC."""

    __tablename__ = "user_rollups_day"
    __table_args__ = (Index("ix_user_rollups_day", "user_id", "bucket"),)


class _SessionRollup(_Bucket):
    session_id: Mapped[str] = mapped_column(NAME, doc="The session.")
    user_id: Mapped[str | None] = mapped_column(NAME, doc="Its user.")
    span_count: Mapped[int] = mapped_column(doc="The number of its spans.")


class SessionRollupHour(_SessionRollup, Base):
    """The sessions that have spans in an hour."""

    __tablename__ = "session_rollups_hour"


class SessionRollupDay(_SessionRollup, Base):
    """The same as `SessionRollupHour`, of a day in UTC."""

    __tablename__ = "session_rollups_day"
    __table_args__ = (Index("ix_session_rollups_day", "session_id", "bucket"),)


class _ErrorRollup(_Bucket):
    service_name: Mapped[str] = mapped_column(NAME, doc="The service of the failed spans.")
    name: Mapped[str] = mapped_column(NAME, doc="Their name.")
    error_type: Mapped[str | None] = mapped_column(NAME, doc="Their `error.type`.")
    user_id: Mapped[str | None] = mapped_column(NAME, doc="Their user.")
    session_id: Mapped[str | None] = mapped_column(NAME, doc="Their session.")
    span_count: Mapped[int] = mapped_column(doc="The number of failed spans.")
    first_seen: Mapped[datetime] = mapped_column(doc="The start of the first of them.")
    last_seen: Mapped[datetime] = mapped_column(doc="The start of the last of them.")
    trace_id: Mapped[uuid.UUID] = mapped_column(doc="The trace of the last of them.")
    span_id: Mapped[str] = mapped_column(NAME, doc="The last of them.")


class ErrorRollupHour(_ErrorRollup, Base):
    """The failed spans of an hour, by type, operation, user and session."""

    __tablename__ = "error_rollups_hour"


class ErrorRollupDay(_ErrorRollup, Base):
    """The same as `ErrorRollupHour`, of a day in UTC."""

    __tablename__ = "error_rollups_day"
