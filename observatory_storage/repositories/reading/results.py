"""What the aggregates return: immutable. None is unknown, which is not zero."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

__all__ = [
    "CostSummary",
    "DeletedTrace",
    "LatencyPercentiles",
    "LevelCount",
    "LogStats",
    "MetricStats",
    "Operation",
    "SpanStats",
    "TimeSeriesPoint",
    "TraceStats",
]


class Operation(NamedTuple):
    """A span's name and kind, as a service uses them."""

    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class TraceStats:
    """Totals over whole traces; durations in microseconds, None where no trace has ended."""

    trace_count: int
    error_trace_count: int
    span_count: int
    error_span_count: int
    total_tokens: int | None
    total_cost_usd: Decimal | None
    min_duration_us: int | None
    max_duration_us: int | None
    avg_duration_us: float | None
    p50_duration_us: float | None
    p90_duration_us: float | None
    p95_duration_us: float | None
    p99_duration_us: float | None
    first_start_time: datetime | None
    last_start_time: datetime | None

    @property
    def error_rate(self) -> float | None:
        """The share of traces with an error, 0 to 1; None where there are no traces."""
        return self.error_trace_count / self.trace_count if self.trace_count else None


@dataclass(frozen=True, slots=True)
class SpanStats:
    """Totals over one group of spans; durations in microseconds, of those that have ended.

    Attributes:
        group: each column of ``group_by`` with the group's value.
        timestamp: where the bucket of time begins; None without buckets.
        trace_count: the traces that the spans belong to.
        total_tokens: None, as the other sums, where no span says.
    """

    group: Mapping[str, str | None]
    timestamp: datetime | None
    span_count: int
    trace_count: int
    error_count: int
    min_duration_us: float | None
    max_duration_us: float | None
    avg_duration_us: float | None
    p50_duration_us: float | None
    p90_duration_us: float | None
    p95_duration_us: float | None
    p99_duration_us: float | None
    prompt_tokens: int | None
    completion_tokens: int | None
    total_tokens: int | None
    total_cost_usd: Decimal | None

    @property
    def error_rate(self) -> float:
        """The share of spans with an error, 0 to 1."""
        return self.error_count / self.span_count


@dataclass(frozen=True, slots=True)
class DeletedTrace:
    """How many rows went with a trace."""

    spans: int
    events: int
    logs: int


@dataclass(frozen=True, slots=True)
class MetricStats:
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
class TimeSeriesPoint:
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
class CostSummary:
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
class LatencyPercentiles:
    """How long the ended spans that start in one bucket of time took, in microseconds."""

    timestamp: datetime
    span_count: int
    p50_us: float
    p90_us: float
    p95_us: float
    p99_us: float


@dataclass(frozen=True, slots=True)
class LevelCount:
    """The log records of one level.

    Attributes:
        level: ``TRACE DEBUG INFO WARN ERROR FATAL``; ``UNSPECIFIED`` without a severity number.
        timestamp: where the bucket of time begins; None without buckets.
    """

    level: str
    count: int
    timestamp: datetime | None = None


@dataclass(frozen=True, slots=True)
class LogStats:
    """Totals over log records; an error is one of severity number 17 (ERROR) or above."""

    log_count: int
    error_count: int
    service_count: int
    trace_count: int
    first_timestamp: datetime | None
    last_timestamp: datetime | None
