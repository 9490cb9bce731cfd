"""What the questions about traces return. None means unknown, which is not zero."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from observatory_storage.serialization import Result

__all__ = ["DeletedRows", "DeletedTrace", "Operation", "SessionSummary", "SpanStats", "TraceStats"]


class Operation(NamedTuple):
    """A span's name and kind, as a service uses them."""

    name: str
    kind: str

    def to_dict(self, *, json: bool = False) -> dict[str, Any]:
        """The name and the kind; the same with ``json=True``."""
        return self._asdict()


@dataclass(frozen=True, slots=True)
class TraceStats(Result):
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
class SpanStats(Result):
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
class SessionSummary(Result):
    """A session, as far as its spans lie in the time range of the question.

    Counts, tokens and cost are those of whole traces, though only some of their spans may carry
    the session's id. Each trace counts once. A trace whose spans name two sessions counts in both.

    Attributes:
        first_start_time: when the first span that carries the session's id starts.
        last_start_time: when the last of them starts.
        user_ids: the users whom these spans name, in order.
        service_names: the services of these spans, in order.
        error_trace_count: the traces with a failed span.
        total_tokens: None where no span reports any.
        total_cost_usd: None where no cost is known.
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
    """How many rows went with a trace."""

    spans: int
    events: int
    logs: int


@dataclass(frozen=True, slots=True)
class DeletedRows(Result):
    """How many rows of each table went with a user or a session.

    Attributes:
        redacted_data_points: how many data points stayed but lost exemplars.
    """

    traces: int
    spans: int
    events: int
    logs: int
    data_points: int
    redacted_data_points: int
