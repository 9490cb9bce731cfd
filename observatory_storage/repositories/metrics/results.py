"""What the questions about metrics return. None means unknown, which is not zero."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from observatory_storage.serialization import Result

__all__ = ["CostSummary", "LatencyPercentiles", "MetricStats", "TimeSeriesPoint"]


@dataclass(frozen=True, slots=True)
class MetricStats(Result):
    """The data points of one metric; the values are None for histograms and summaries."""

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
    """One bucket of one group.

    Attributes:
        timestamp: where the bucket begins.
        value: None only where nothing was measured and the query asks to fill it in so.
        group: each key of ``group_by`` with the group's value; None where points lack the key.
    """

    timestamp: datetime
    value: float | None
    group: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CostSummary(Result):
    """Tokens and cost of one group of spans.

    Attributes:
        group: each column of ``group_by`` with the group's value.
        timestamp: where the bucket of time begins; None without buckets.
        span_count: the spans that report tokens or a cost.
        unpriced_span_count: those of them whose cost is unknown; sums of costs are without them.
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
        """The group's provider; None too where the summary is not by provider."""
        return self.group.get("provider")

    @property
    def model(self) -> str | None:
        """The group's model; None too where the summary is not by model."""
        return self.group.get("model")


@dataclass(frozen=True, slots=True)
class LatencyPercentiles(Result):
    """How long the ended spans that start in one bucket of time took, in microseconds."""

    timestamp: datetime
    span_count: int
    p50_us: float
    p90_us: float
    p95_us: float
    p99_us: float
