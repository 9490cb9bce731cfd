"""Telemetry of some days, and what must hold of a store at the end of a run of retention."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from observatory_storage.config import RetentionConfig
from observatory_storage.lifecycle.retention import apply_retention
from observatory_storage.lifecycle.retention_results import RetentionResult
from observatory_storage.lifecycle.run import Deadline, Run
from observatory_storage.pool import StoragePool
from observatory_storage.writers import TraceWriter
from tests.writers.helpers import span_id, trace_id

NOW = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def noon(days_ago: float) -> datetime:
    return NOW - days_ago * DAY


def a_call(trace: int, number: int, start: datetime, **columns: Any) -> dict[str, Any]:
    """A span with an event."""
    return {
        "trace_id": trace_id(trace),
        "span_id": span_id(number),
        "name": "chat",
        "service_name": "shop",
        "start_time": start,
        "end_time": start + timedelta(seconds=1),
        "status": "ok",
        "total_tokens": 10 * number,
        "total_cost_usd": "0.25",
        "events": [{"name": "choice", "timestamp": start}],
        **columns,
    }


def write_spans(pool: StoragePool, *spans: dict[str, Any]) -> None:
    with TraceWriter(pool) as writer:
        writer.write_spans(spans)


def retain(
    pool: StoragePool,
    *,
    now: datetime = NOW,
    dry_run: bool = False,
    seconds: float | None = None,
    **config: Any,
) -> RetentionResult:
    run = Run(pool, now, Deadline(seconds))
    return apply_retention(run, dry_run=dry_run, config=RetentionConfig(**config))


_ODDITIES = {
    "spans without a trace": """
        SELECT count(*) FROM trace_spans s
        WHERE NOT EXISTS (SELECT FROM traces t WHERE t.id = s.trace_id)""",
    "spans beyond the bounds of their trace": """
        SELECT count(*) FROM trace_spans s JOIN traces t ON t.id = s.trace_id
        WHERE s.start_time NOT BETWEEN t.start_time AND t.last_span_start""",
    "events without a span": """
        SELECT count(*) FROM trace_events e WHERE NOT EXISTS (
            SELECT FROM trace_spans s WHERE (s.trace_id, s.span_id, s.start_time, s.start_ns)
            = (e.trace_id, e.span_id, e.span_start_time, e.span_start_ns))""",
    "traces whose totals are not those of their spans": """
        SELECT count(*) FROM traces t LEFT JOIN LATERAL (
            SELECT count(*) AS spans, sum(total_tokens) AS tokens, sum(total_cost_usd) AS cost,
                min(start_time) AS first, max(start_time) AS last, max(end_time) AS ended,
                count(*) FILTER (WHERE status = 'error') AS errors
            FROM trace_spans s WHERE s.trace_id = t.id) s ON true
        WHERE t.lead_span_id IS NOT NULL AND ROW(t.span_count, t.total_tokens, t.total_cost_usd,
            t.start_time, t.last_span_start, t.end_time, t.error_count)
            IS DISTINCT FROM ROW(spans, tokens, cost, first, last, ended, errors)""",
    "points without a metric": """
        SELECT count(*) FROM metric_data_points p
        WHERE NOT EXISTS (SELECT FROM metrics m WHERE m.id = p.metric_id)""",
    "tables that nobody uses": """
        SELECT count(*) FROM pg_class c WHERE c.relkind = 'r'
        AND c.relnamespace = 'public'::regnamespace
        AND c.relname ~ '^(trace_spans|trace_events|payload_frames|logs|metric_data_points)_'
        AND NOT EXISTS (SELECT FROM pg_inherits h WHERE h.inhrelid = c.oid)""",
    "notes of unfinished work": """
        SELECT count(*) FROM expired_partitions WHERE state <> 'kept'""",
}


def oddities(url: str) -> dict[str, int]:
    """What should not be there, with how often it is."""
    with psycopg.connect(url) as connection:
        counts = {
            what: connection.execute(query.encode()).fetchone() for what, query in _ODDITIES.items()
        }
    return {what: count[0] for what, count in counts.items() if count is not None and count[0]}


def partitions(url: str, table: str) -> list[str]:
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = %s::regclass"
            " ORDER BY 1",
            [table],
        )
        return [name for (name,) in rows]


def rows_of(url: str, table: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
        assert row is not None
        return int(row[0])


def traces_in(pool: StoragePool) -> set[int]:
    """The numbers of the stored traces."""
    with pool.unit_of_work() as work:
        return {int(trace.trace_id, 16) for trace in work.traces.list(limit=500)}
