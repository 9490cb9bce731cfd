"""The results of queries for metrics. None means unknown, not zero."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from observatory_storage.serialization import Result

__all__ = ["CostSummary", "LatencyPercentiles", "MetricStats", "TimeSeriesPoint", "UnpricedModel"]


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
    """Percentiles of the durations of the ended spans of one bucket of time, in microseconds."""

    timestamp: datetime
    span_count: int
    p50_us: float
    p90_us: float
    p95_us: float
    p99_us: float


@dataclass(frozen=True, slots=True)
class UnpricedModel(Result):
    """A model whose calls have tokens and no cost, because no price of it is known.

    Attributes:
        provider: the provider; None if the spans name none.
        model: the model; None if the spans name none.
        service_tier: the service tier, such as "flex"; None for the standard one.
        span_count: the number of spans without a cost.
        total_tokens: their tokens.
        first_seen: the start of the first one.
        last_seen: the start of the last one.
    """

    provider: str | None
    model: str | None
    service_tier: str | None
    span_count: int
    total_tokens: int
    first_seen: datetime
    last_seen: datetime
