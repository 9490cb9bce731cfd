"""``services``: lists services, or the operations of one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import click
from rich.console import RenderableType

from observatory_storage.cli import option_types
from observatory_storage.cli.common_options import (
    State,
    StorageCommand,
    common_options,
    json_option,
    replica_option,
)
from observatory_storage.cli.filter_options import bucket_options
from observatory_storage.cli.formatting import count, dollars, duration, moment
from observatory_storage.cli.text_table import Column, table
from observatory_storage.repositories import SpanFilters, SpanStats
from observatory_storage.repositories.reading.empty_buckets import COUNT_FILLS

__all__ = ["command"]


@click.command("services", cls=StorageCommand)
@click.argument("service_name", metavar="[NAME]", required=False)
@click.option(
    "--since",
    "start_time",
    type=option_types.time,
    default="1d",
    help="Spans from this time on. [1d]",
)
@click.option("--until", "end_time", type=option_types.time, help="Spans before this. [now]")
@click.option(
    "--bucket",
    "bucket_size_secs",
    type=option_types.bucket_size,
    help="Also group by buckets of time: 1h, 7d, day, week, month, quarter or year.",
)
@bucket_options(COUNT_FILLS)
@json_option
@replica_option
@common_options
@click.pass_obj
def command(
    state: State,
    /,
    *,
    service_name: str | None,
    start_time: datetime,
    end_time: datetime | None,
    **buckets: Any,
) -> None:
    """List services with their spans of the last day, or the operations of the service NAME.

    A service without spans in that time is listed too.
    """
    output = state.output()
    filters = SpanFilters(service_name=service_name, start_time=start_time, end_time=end_time)
    group = "service_name" if service_name is None else "operation"
    with state.reading() as work:
        stats = work.traces.get_stats(filters, group_by=(group,), **buckets)
        names = (
            work.traces.services()
            if service_name is None
            else sorted({operation.name for operation in work.traces.operations(service_name)})
        )
    busy = {each.group[group] for each in stats}
    idle = [name for name in names if name not in busy]
    if output.json:
        output.write_all(stats)
        output.write_all({"group": {group: name}, "span_count": 0} for name in idle)
    else:
        title = "SERVICE" if service_name is None else "OPERATION"
        output.show(_services_table(title, group, stats, idle))


def _services_table(
    title: str, group: str, stats: Sequence[SpanStats], idle: Sequence[str]
) -> RenderableType:
    in_buckets = any(each.timestamp is not None for each in stats)
    time = [Column("TIME (UTC)", keep=10)] if in_buckets else []
    columns = (
        *time,
        Column(title, narrowest=12, keep=9),
        Column("SPANS", right=True, keep=8),
        Column("TRACES", right=True, keep=5),
        Column("ERRORS", right=True, keep=7),
        Column("P50", right=True, keep=3),
        Column("P95", right=True, keep=6),
        Column("TOKENS", right=True, keep=2),
        Column("COST", right=True, keep=4),
    )
    rows = [
        [
            *([moment(each.timestamp)] if in_buckets else []),
            each.group[group] or "-",
            count(each.span_count),
            count(each.trace_count),
            count(each.error_count),
            _duration(each.p50_duration_us),
            _duration(each.p95_duration_us),
            count(each.total_tokens),
            dollars(each.total_cost_usd),
        ]
        for each in stats
    ]
    rows += [[*("-" for _ in time), name, "0", "0", "0", "-", "-", "", ""] for name in idle]
    return table(columns, rows)


def _duration(microseconds: float | None) -> str:
    return duration(None if microseconds is None else microseconds * 1000)
