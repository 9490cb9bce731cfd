"""The results of queries for traces. None means unknown, not zero."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from observatory_storage.serialization import Result

__all__ = ["DeletedRows", "DeletedTrace", "Operation", "SessionSummary", "SpanStats", "TraceStats"]


class Operation(NamedTuple):
    """A span name with its kind, as a service uses it."""

    name: str
    kind: str

    def to_dict(self, *, json: bool = False) -> dict[str, Any]:
        """Return the name and the kind as a dictionary; ``json=True`` changes nothing."""
        return self._asdict()


@dataclass(frozen=True, slots=True)
class TraceStats(Result):
    """Totals over whole traces. Durations are in microseconds; None if no trace has ended."""

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
        """The share of traces with an error, 0 to 1; None if there are no traces."""
        return self.error_trace_count / self.trace_count if self.trace_count else None


@dataclass(frozen=True, slots=True)
class SpanStats(Result):
    """Totals over one group of spans. Durations are in microseconds, of ended spans only.

    Attributes:
        group: each column of ``group_by`` with the group's value.
        timestamp: the start of the time bucket; None if the query has no buckets.
        trace_count: the number of traces that the spans belong to.
        total_tokens: the sum over the spans. This and the other sums are None if no span reports a
            value.
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
        """The share of spans with an error, 0 to 1; 0 if there are no spans."""
        return self.error_count / self.span_count if self.span_count else 0.0


@dataclass(frozen=True, slots=True)
class SessionSummary(Result):
    """A session: the traces that have a span with the session's id in the time range of the query.

    Counts, tokens and cost cover whole traces, even if only some of their spans have the session's
    id. Each trace counts once. A trace whose spans have the ids of two sessions counts in both.

    Attributes:
        first_start_time: the start of the first span that has the session's id.
        last_start_time: the start of the last span that has the session's id.
        user_ids: the users of these spans, sorted.
        service_names: the services of these spans, sorted.
        error_trace_count: the number of traces with a failed span.
        total_tokens: the sum of tokens; None if no span reports any.
        total_cost_usd: the sum of costs; None if no cost is known.
    """

    session_id: str
    first_start_time: datetime
    last_start_time: datetime
    user_ids: tuple[str, ...]
    service_names: tuple[str, ...]
    trace_count: int
    error_trace_count: int
    span_count: int
    error_span_count: int
    total_tokens: int | None
    total_cost_usd: Decimal | None


@dataclass(frozen=True, slots=True)
class DeletedTrace(Result):
    """The numbers of rows that were deleted with a trace."""

    spans: int
    events: int
    logs: int


@dataclass(frozen=True, slots=True)
class DeletedRows(Result):
    """The numbers of rows that were deleted with a user or a session.

    Attributes:
        redacted_data_points: the number of data points that stayed but lost exemplars.
    """

    traces: int
    spans: int
    events: int
    logs: int
    data_points: int
    redacted_data_points: int
