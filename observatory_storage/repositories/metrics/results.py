"""The results of queries for metrics. None means unknown, not zero."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from observatory_storage.repositories.reading.rollup_pieces import Source
from observatory_storage.serialization import Result

__all__ = [
    "ActiveUsers",
    "CostSummary",
    "ErrorSummary",
    "LatencyPercentiles",
    "MetricStats",
    "TimeSeriesPoint",
    "UserUsage",
]


@dataclass(frozen=True, slots=True)
class MetricStats(Result):
    """Totals over the data points of one metric. Values are None for histograms and summaries."""

    metric_id: UUID
    point_count: int
    series_count: int
    first_timestamp: datetime | None
    last_timestamp: datetime | None
    min_value: float | None
    max_value: float | None
    avg_value: float | None
    last_value: float | None


@dataclass(frozen=True, slots=True)
class TimeSeriesPoint(Result):
    """The value of one group in one bucket of time.

    Attributes:
        timestamp: the start of the bucket.
        value: the aggregated value. It is None only if nothing was measured and ``fill`` requests
            such buckets.
        group: each key of ``group_by`` with the group's value; None if the points do not have the
            key.
    """

    timestamp: datetime
    value: float | None
    group: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CostSummary(Result):
    """Tokens and cost of one group of spans.

    Attributes:
        group: each column of ``group_by`` with the group's value.
        timestamp: the start of the time bucket; None if the query has no buckets.
        span_count: the number of spans that report tokens or a cost.
        unpriced_span_count: the number of these spans whose cost is unknown. Sums of costs do not
            include them.
        source: whether it was computed from spans, from rollups, or from both.
    """

    group: Mapping[str, str | None]
    timestamp: datetime | None
    span_count: int
    unpriced_span_count: int
    prompt_tokens: int | None
    completion_tokens: int | None
    total_tokens: int | None
    prompt_cost_usd: Decimal | None
    completion_cost_usd: Decimal | None
    total_cost_usd: Decimal | None
    source: Source = "raw"

    @property
    def provider(self) -> str | None:
        """The group's provider; also None if the query does not group by provider."""
        return self.group.get("provider")

    @property
    def model(self) -> str | None:
        """The group's model; also None if the query does not group by model."""
        return self.group.get("model")


@dataclass(frozen=True, slots=True)
class LatencyPercentiles(Result):
    """Percentiles of the durations of the ended spans of one bucket of time, in microseconds.

    Attributes:
        source: whether they were computed from spans ("raw"), rollups ("rollup") or both ("both").
            From rollups, a percentile differs from the exact one by at most 1.1 %.
    """

    timestamp: datetime
    span_count: int
    p50_us: float
    p90_us: float
    p95_us: float
    p99_us: float
    source: Source = "raw"


@dataclass(frozen=True, slots=True)
class UserUsage(Result):
    """The spans of one user, with their tokens and cost.

    Attributes:
        user_id: the user.
        timestamp: the start of the time bucket; None if the query has no buckets.
        span_count: the number of the user's spans.
        error_count: the number of these that failed.
        usage_span_count: the number of these that report tokens or a cost.
        unpriced_span_count: the number of spans with tokens whose cost is unknown.
        source: where it was read from: spans ("raw"), rollups ("rollup") or both ("both").
    """

    user_id: str
    timestamp: datetime | None
    span_count: int
    error_count: int
    usage_span_count: int
    unpriced_span_count: int
    prompt_tokens: int | None
    completion_tokens: int | None
    total_tokens: int | None
    prompt_cost_usd: Decimal | None
    completion_cost_usd: Decimal | None
    total_cost_usd: Decimal | None
    source: Source = "raw"


@dataclass(frozen=True, slots=True)
class ActiveUsers(Result):
    """The users and sessions that have spans which start in a bucket of time.

    Attributes:
        timestamp: the start of the bucket.
        user_count: the number of different users.
        session_count: the number of different sessions.
        source: where it was read from: spans ("raw"), rollups ("rollup") or both ("both").
    """

    timestamp: datetime
    user_count: int
    session_count: int
    source: Source = "raw"


@dataclass(frozen=True, slots=True)
class ErrorSummary(Result):
    """The failed spans of one service, operation and type of error.

    Attributes:
        service_name: the service.
        operation: the name of the spans.
        error_type: OpenTelemetry's `error.type`; None if the spans have none.
        span_count: the number of failed spans.
        first_seen: the start of the first of them.
        last_seen: the start of the last of them.
        trace_id: the trace of the last of them, as an example.
        span_id: the last of them.
        user_count: the number of different users of these spans.
        session_count: the number of different sessions of these spans.
        source: where it was read from: spans ("raw"), rollups ("rollup") or both ("both").
    """

    service_name: str
    operation: str
    error_type: str | None
    span_count: int
    first_seen: datetime
    last_seen: datetime
    trace_id: UUID
    span_id: str
    user_count: int
    session_count: int
    source: Source = "raw"
