"""Counts the stored rows, in the same way as `EmittedCounts` counts what was emitted."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from decimal import Decimal
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from observatory_storage import LogRecord, Metric, MetricDataPoint, Trace, TraceEvent, TraceSpan
from observatory_storage.demo.counts import Counts, TraceCounts

__all__ = ["stored_counts"]


def stored_counts(session: Session) -> Counts:
    """Count the stored rows.

    This queries the models, as any SQLAlchemy application can. The repositories are made for
    questions like those in `questions`, not for whole tables.
    """
    tokens, costs = _usage(session)
    points, observations, sums = _points(session)
    return Counts(
        spans=_spans(session),
        traces=_traces(session),
        tokens=tokens,
        costs=costs,
        logs=_logs(session),
        points=points,
        observations=observations,
        sums=sums,
    )


def _spans(session: Session) -> dict[str, int]:
    duration = TraceSpan.duration_us * 1000 + TraceSpan.duration_ns
    totals = {
        "spans": _number(session, select(func.count()).select_from(TraceSpan)),
        "events": _number(session, select(func.count()).select_from(TraceEvent)),
        "links": _number(session, select(func.sum(func.jsonb_array_length(TraceSpan.links)))),
        "nanoseconds": _number(session, select(func.sum(duration))),
    }
    return {
        **totals,
        **_grouped(session, "kind", TraceSpan.kind),
        **_grouped(session, "status", TraceSpan.status),
        **_grouped(session, "service", TraceSpan.service_name),
    }


def _traces(session: Session) -> dict[str, TraceCounts]:
    return {
        trace.trace_id: TraceCounts(
            spans=trace.span_count,
            errors=trace.error_count,
            tokens=trace.total_tokens or 0,
            cost=trace.total_cost_usd or Decimal(0),
        )
        for trace in session.scalars(select(Trace))
    }


def _usage(session: Session) -> tuple[dict[str, int], dict[str, Decimal]]:
    query = (
        select(
            TraceSpan.model, func.sum(TraceSpan.total_tokens), func.sum(TraceSpan.total_cost_usd)
        )
        .where(TraceSpan.total_tokens.is_not(None))
        .group_by(TraceSpan.model)
    )
    rows = session.execute(query).all()
    tokens = {str(model): int(count or 0) for model, count, _ in rows}
    return tokens, {str(model): Decimal(cost or 0) for model, _, cost in rows}


def _logs(session: Session) -> dict[str, int]:
    within = select(func.count()).where(LogRecord.trace_id.is_not(None))
    return {
        "records": _number(session, select(func.count()).select_from(LogRecord)),
        "within a trace": _number(session, within),
        **_grouped(session, "severity", LogRecord.severity_text),
        **_grouped(session, "service", LogRecord.service_name),
        **_grouped(session, "event", LogRecord.event_name),
    }


def _points(session: Session) -> tuple[dict[str, int], dict[str, int], dict[str, float]]:
    points: Counter[str] = Counter()
    observations: Counter[str] = Counter()
    values: defaultdict[str, list[float]] = defaultdict(list)
    query = select(
        Metric.service_name,
        Metric.name,
        Metric.metric_type,
        MetricDataPoint.value,
        MetricDataPoint.sum,
        MetricDataPoint.count,
    ).join(MetricDataPoint, MetricDataPoint.metric_id == Metric.id)
    for service, metric, kind, value, total, count in session.execute(query):
        name = f"{service} {metric} ({kind})"
        points[name] += 1
        if kind in {"histogram", "exponential_histogram"}:
            values[name].append(total or 0.0)
            observations[name] += count or 0
        else:
            values[name].append(value or 0.0)
    sums = {name: math.fsum(numbers) for name, numbers in values.items()}
    return dict(points), dict(observations), sums


def _grouped(session: Session, label: str, column: Any) -> dict[str, int]:
    query = select(column, func.count()).where(column.is_not(None)).group_by(column)
    return {f"{label} {value}": count for value, count in session.execute(query)}


def _number(session: Session, query: Select[Any]) -> int:
    return int(session.scalar(query) or 0)
