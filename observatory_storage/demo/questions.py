"""Questions about the telemetry of an LLM application. Each takes a few lines to answer."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from rich.console import Console, RenderableType
from rich.text import Text

from observatory_storage import LogFilters, SpanFilters, StoragePool, TraceFilters
from observatory_storage.cli.formatting import count, dollars, duration
from observatory_storage.cli.logs_command import logs_table
from observatory_storage.cli.text_table import Column, table
from observatory_storage.cli.traces_command import traces_table
from observatory_storage.cli.waterfall import Waterfall
from observatory_storage.unit_of_work import UnitOfWork

__all__ = ["ask"]

_HOURS_SHOWN = 12


def ask(pool: StoragePool, console: Console, start: datetime, end: datetime) -> None:
    """Query the telemetry from `start` to `end`, and print the answers."""
    with pool.unit_of_work() as work:
        console.print()
        _print(console, "Slowest traces", _slowest(work, console.width, start, end))
        _print(console, "A trace that failed, as a waterfall", _failed(work, start, end))
        _print(console, "Cost and tokens by model", _costs(work, start, end))
        _print(console, "Latency of the gateway by hour (UTC)", _latencies(work, start, end))
        filters = LogFilters(text='"gave up"', min_severity="ERROR", limit=5)
        errors = work.logs.list(filters)
        _print(console, 'Errors that say "gave up"', logs_table(errors, console.width))
        if errors and errors[0].trace_id:
            log = work.logs.get_by_trace(errors[0].trace_id)
            _print(console, "The log of that trace", logs_table(log, console.width))


def _slowest(work: UnitOfWork, width: int, start: datetime, end: datetime) -> RenderableType:
    filters = TraceFilters(start_time=start, end_time=end, limit=5)
    return traces_table(work.traces.list(filters, order_by="-duration_us"), width)


def _failed(work: UnitOfWork, start: datetime, end: datetime) -> RenderableType:
    failed = SpanFilters(name="POST /ask", status="error", start_time=start, end_time=end, limit=1)
    retried = SpanFilters(status="error", start_time=start, end_time=end, limit=1)
    found = work.traces.list_spans(failed) or work.traces.list_spans(retried)
    if not found:
        return Text("none", style="dim")
    trace = work.traces.get(found[0].trace_id)
    return Waterfall(trace, work.traces.get_tree(trace.id))


def _costs(work: UnitOfWork, start: datetime, end: datetime) -> RenderableType:
    summary = work.metrics.get_cost_summary(start, end)
    rows = [
        [
            each.provider or "",
            each.model or "",
            count(each.span_count),
            count(each.prompt_tokens),
            count(each.completion_tokens),
            dollars(each.total_cost_usd),
        ]
        for each in summary
    ]
    total = sum((each.total_cost_usd or Decimal(0) for each in summary), Decimal(0))
    rows.append(["", "", "", "", "", dollars(total)])
    return table(
        [*_named("PROVIDER", "MODEL"), *_right("CALLS", "TOKENS IN", "TOKENS OUT", "COST")], rows
    )


def _latencies(work: UnitOfWork, start: datetime, end: datetime) -> RenderableType:
    hours = work.metrics.get_latency_percentiles(
        start, end, service_name="gateway", operation="POST /ask", bucket_size_secs=3600
    )
    rows = [
        [
            f"{hour.timestamp:%m-%d %H}:00",
            count(hour.span_count),
            *(
                duration(round(value * 1000))
                for value in (hour.p50_us, hour.p90_us, hour.p95_us, hour.p99_us)
            ),
        ]
        for hour in hours[-_HOURS_SHOWN:]
    ]
    return table([*_named("HOUR"), *_right("REQUESTS", "P50", "P90", "P95", "P99")], rows)


def _named(*titles: str) -> list[Column]:
    return [Column(title) for title in titles]


def _right(*titles: str) -> list[Column]:
    return [Column(title, right=True) for title in titles]


def _print(console: Console, title: str, answer: RenderableType) -> None:
    console.print(Text(title, style="bold underline"))
    console.print(answer)
    console.print()
