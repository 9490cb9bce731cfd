"""``metrics``: a list of metrics, or one of them over time."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click
from click.core import ParameterSource
from rich.console import RenderableType
from rich.text import Text

from observatory_storage.cli import option_types
from observatory_storage.cli.common_options import (
    State,
    StorageCommand,
    common_options,
    json_option,
    replica_option,
)
from observatory_storage.cli.console import Output
from observatory_storage.cli.filter_options import bucket_options, metric_filters
from observatory_storage.cli.formatting import clean, moment
from observatory_storage.cli.page_output import page_options, show_pages
from observatory_storage.cli.text_table import WIDE, Column, table
from observatory_storage.errors import NotFound
from observatory_storage.models import Metric
from observatory_storage.repositories import MetricFilters, TimeSeriesPoint, TimeSeriesQuery
from observatory_storage.repositories.metrics.filters import AGGREGATIONS, FILLS
from observatory_storage.unit_of_work import UnitOfWork

__all__ = ["command"]

_NAME = Column("NAME", narrowest=12, keep=9)
_TYPE = Column("TYPE", keep=8)
_UNIT = Column("UNIT", narrowest=6, keep=6)
_SERVICE = Column("SERVICE", narrowest=6, keep=7)

_EXAMPLES = """\b
Examples:
  observatory-storage metrics --service gateway
  observatory-storage metrics requests --aggregation rate --by http.route --since 7d --bucket 1d
  observatory-storage metrics requests --aggregation rate --merge --by service.instance.id
"""


@click.command("metrics", cls=StorageCommand, epilog=_EXAMPLES)
@click.argument("name", required=False)
@metric_filters
@click.option(
    "--aggregation",
    type=click.Choice(AGGREGATIONS),
    help="The aggregation of the points, to show the metrics called NAME over time.",
)
@click.option(
    "--bucket",
    "bucket_size_secs",
    type=option_types.bucket_size,
    default="1h",
    show_default=True,
    help="The size of a bucket of time: 5m, 1h, day, week, month, quarter or year.",
)
@bucket_options(FILLS)
@click.option("--by", "group_by", multiple=True, help="An attribute to group by. Repeatable.")
@click.option(
    "--merge",
    is_flag=True,
    help="One series over all metrics called NAME, of every service and instance.",
)
@click.option(
    "--since",
    "start_time",
    type=option_types.time,
    default="1d",
    help="Points from this time on. [1d]",
)
@click.option("--until", "end_time", type=option_types.time, help="Points before this. [now]")
@page_options
@json_option
@replica_option
@common_options
@click.pass_obj
def command(
    state: State,
    /,
    *,
    name: str | None,
    service_name: str | None,
    metric_type: str | None,
    aggregation: str | None,
    after: str | None,
    everything: bool,
    limit: int,
    merge: bool,
    **series: Any,
) -> None:
    """List metrics by name, or show those called NAME over time."""
    if aggregation is not None and name is None:
        raise click.UsageError("--aggregation needs the NAME of a metric")
    if aggregation is None:
        _refuse_given({"merge", *series})
    output = state.output()
    filters = MetricFilters(
        name=name, service_name=service_name, metric_type=metric_type, limit=limit
    )
    with state.reading() as work:
        if aggregation is None:
            show_pages(
                output,
                lambda cursor: work.metrics.list(filters, after=cursor),
                lambda page: _metrics_table(page, output.console.width),
                after=after,
                everything=everything,
            )
            return
        found = list(work.metrics.iterate(filters))
        if not found:
            raise NotFound(f"there is no metric {name}")
        for metrics in [found] if merge else [[metric] for metric in found]:
            _show_series(output, work, metrics, filters, aggregation, **series)


def _refuse_given(series: Collection[str]) -> None:
    """Refuse options of a time series, which a list of metrics would ignore."""
    context = click.get_current_context()
    for option in context.command.params:
        given = context.get_parameter_source(str(option.name)) is ParameterSource.COMMANDLINE
        if given and option.name in series:
            raise click.UsageError(f"{max(option.opts, key=len)} needs --aggregation")


def _metrics_table(page: Sequence[Metric], width: int) -> RenderableType:
    if width < WIDE:
        narrow = ([row.name, row.metric_type, row.unit or "", row.service_name] for row in page)
        return table((_NAME, _TYPE, _UNIT, _SERVICE), narrow, gap=1)
    rows = (
        [
            row.name,
            row.metric_type,
            row.temporality or "",
            row.unit or "",
            row.service_name,
            row.description or "",
        ]
        for row in page
    )
    description = Column("DESCRIPTION", narrowest=6)
    return table((_NAME, _TYPE, Column("TEMPORALITY"), _UNIT, _SERVICE, description), rows)


def _show_series(
    output: Output,
    work: UnitOfWork,
    metrics: Sequence[Metric],
    filters: MetricFilters,
    aggregation: str,
    *,
    start_time: datetime,
    end_time: datetime | None,
    **series: Any,
) -> None:
    metric = metrics[0]
    is_one = len(metrics) == 1
    query = TimeSeriesQuery(
        metric.id if is_one else None,
        start_time,
        end_time or datetime.now(UTC),
        aggregation=aggregation,
        **series,
        name=None if is_one else metric.name,
        service_name=None if is_one else filters.service_name,
        metric_type=None if is_one else filters.metric_type,
    )
    points = work.metrics.query_time_series(query)
    services = sorted({each.service_name for each in metrics})
    if output.json:
        metric_id = metric.id if is_one else None
        service_name = services[0] if len(services) == 1 else None
        given = {"metric_id": metric_id, "name": metric.name, "service_name": service_name}
        output.write_all(_documents({**given, "aggregation": aggregation}, points))
        return
    unit = f" in {metric.unit}" if metric.unit else ""
    of = metric.metric_type if is_one else f"{metric.metric_type}, {len(metrics)} metrics"
    title = f"{metric.name}, {aggregation}{unit}, {', '.join(services)} ({of})"
    output.show(Text(clean(title), style="bold"))
    columns = [
        Column("TIME (UTC)", keep=9),
        Column("VALUE", right=True, keep=8),
        *(Column(key, narrowest=6) for key in series["group_by"]),
    ]
    rows = (
        [
            moment(point.timestamp),
            "-" if point.value is None else f"{point.value:,.6g}",
            *("-" if value is None else str(value) for value in point.group.values()),
        ]
        for point in points
    )
    output.show(table(columns, rows))


def _documents(
    given: Mapping[str, object], points: Iterable[TimeSeriesPoint]
) -> Iterator[Mapping[str, object]]:
    for point in points:
        measured = {"timestamp": point.timestamp, "group": point.group, "value": point.value}
        yield {**given, **measured}
