"""What a trace's row must be, computed in Python from the spans that are stored."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import timedelta
from decimal import Context, Decimal
from functools import reduce
from typing import Any
from uuid import UUID

from observatory_storage.models import Trace, TraceSpan
from observatory_storage.pool import StoragePool
from tests.writers.helpers import Row, fetch

# What `write_trace` alone says, and when rows were written.
NOT_OF_SPANS = {
    "trace_id",
    "attributes",
    "resource_attributes",
    "status_message",
    "created_at",
    "updated_at",
    "unsettled_since",
}
EXACT = Context(prec=1000)


def trace_of(spans: list[Row]) -> Row:
    """The columns of a trace that its spans say."""
    lead = min(spans, key=_order)
    start = min(span["start_time"] for span in spans)
    end = max((span["end_time"] for span in spans if span["end_time"]), default=None)
    statuses = {span["status"] for span in spans}
    tokens = [span["total_tokens"] for span in spans if span["total_tokens"] is not None]
    costs = [span["total_cost_usd"] for span in spans if span["total_cost_usd"] is not None]
    has_parent, lead_start, lead_ns, lead_id = _order(lead)
    return {
        "id": lead["trace_id"],
        "service_name": lead["service_name"],
        "start_time": start,
        "end_time": end,
        "duration_us": None if end is None else (end - start) // timedelta(microseconds=1),
        "status": next(s for s in ("error", "ok", "unset") if s in statuses),
        "root_span_name": lead["name"],
        "span_count": len(spans),
        "error_count": sum(span["status"] == "error" for span in spans),
        "total_tokens": sum(tokens) if tokens else None,
        "total_cost_usd": reduce(EXACT.add, costs, Decimal(0)) if costs else None,
        "last_span_start": max(span["start_time"] for span in spans),
        "lead_has_parent": has_parent,
        "lead_start_time": lead_start,
        "lead_start_ns": lead_ns,
        "lead_span_id": lead_id,
        "usage_span_count": sum(
            bool(span["total_tokens"] or span["total_cost_usd"] or span.get("reported_usage"))
            for span in spans
        ),
        "sample_weight": _least([span.get("sample_weight") for span in spans]),
        **_weighted(spans),
    }


def _weighted(spans: list[Row]) -> Row:
    """Each span as often as its weight says; None if no span has one."""
    if all(span.get("sample_weight") is None for span in spans):
        spans = []
    often = [(span.get("sample_weight") or 1, span) for span in spans]
    tokens = [n * span["total_tokens"] for n, span in often if span["total_tokens"] is not None]
    costs = [
        EXACT.multiply(Decimal(n), span["total_cost_usd"])
        for n, span in often
        if span["total_cost_usd"] is not None
    ]
    return {
        "weighted_span_count": sum(n for n, _ in often) if often else None,
        "weighted_error_count": (
            sum(n for n, span in often if span["status"] == "error") if often else None
        ),
        "weighted_tokens": sum(tokens) if tokens else None,
        "weighted_cost_usd": reduce(EXACT.add, costs, Decimal(0)) if costs else None,
    }


def _least(weights: list[int | None]) -> int | None:
    """A span without a weight stands for itself alone."""
    known = [weight for weight in weights if weight is not None]
    return min(known) if len(known) == len(weights) else None


def _order(span: Row) -> tuple[bool, Any, int, str]:
    return (
        span["parent_span_id"] is not None,
        span["start_time"],
        span["start_ns"],
        span["span_id"],
    )


def by_trace(spans: Iterable[Row]) -> dict[UUID, list[Row]]:
    found: dict[UUID, list[Row]] = defaultdict(list)
    for span in spans:
        found[span["trace_id"]].append(span)
    return found


def check_traces(pool: StoragePool) -> int:
    """Compare every trace that has spans with what they say; the number of traces."""
    spans = by_trace(fetch(pool, TraceSpan))
    stored = {trace["id"]: trace for trace in fetch(pool, Trace)}
    assert spans.keys() <= stored.keys()
    for trace_id, of_trace in spans.items():
        said = {
            column: value
            for column, value in stored[trace_id].items()
            if column not in NOT_OF_SPANS
        }
        assert said == trace_of(of_trace)
    for trace_id in stored.keys() - spans.keys():
        assert stored[trace_id]["lead_span_id"] is None
    return len(stored)
