"""``logs``: log records, by service, level, trace, words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import click
from rich.console import RenderableType
from rich.text import Text

from observatory_storage.cli import params
from observatory_storage.cli.output import table
from observatory_storage.cli.paging import page_options, show_pages
from observatory_storage.cli.state import State, common_options, json_option
from observatory_storage.cli.text import SHORT_ID, moment
from observatory_storage.models import LogRecord
from observatory_storage.repositories import LogFilters

__all__ = ["logs", "logs_table"]

_WIDE = 120
_STYLES = ((21, "bold red"), (17, "red"), (13, "yellow"), (9, ""), (0, "dim"))


@click.command()
@click.option("--service", "service_name", help="Service.")
@click.option("--level", "min_severity", help="At least this level: INFO, WARN, ERROR, or 1 to 24.")
@click.option("--trace", "trace_id", help="Those of this trace (its whole id).")
@click.option("--span", "span_id", help="Those of this span.")
@click.option("--text", help='Words of the body; "a phrase", begin*, -without, one or another.')
@click.option("--since", "start_time", type=params.time, help="From this time on, or 2h for ago.")
@click.option("--until", "end_time", type=params.time, help="Before this time.")
@click.option(
    "--attribute",
    "-a",
    "attributes",
    type=params.attribute,
    multiple=True,
    help='An attribute; numbers and true are such, "5" in quotes is text. May be repeated.',
)
@page_options
@json_option
@common_options
@click.pass_obj
def logs(
    state: State,
    /,
    *,
    attributes: tuple[tuple[str, Any], ...],
    min_severity: str | None,
    after: str | None,
    everything: bool,
    start_time: datetime | None,
    end_time: datetime | None,
    **given: Any,
) -> None:
    """List log records, the newest first."""
    state.start_logging()
    output = state.output()
    level = int(min_severity) if min_severity and min_severity.isdecimal() else min_severity
    filters = LogFilters(
        attributes=params.attributes_of(attributes),
        min_severity=level,
        start_time=start_time,
        end_time=end_time,
        **given,
    )
    with state.pool() as pool, pool.unit_of_work() as work:
        show_pages(
            output,
            lambda cursor: work.logs.list(filters, after=cursor, payload=output.json),
            lambda page: logs_table(page, output.console.width),
            after=after,
            everything=everything,
        )


def logs_table(page: Sequence[LogRecord], width: int) -> RenderableType:
    """A table of log records for a terminal of so many columns."""
    wide = width >= _WIDE
    titles = ["TIME (UTC)", "LEVEL*", "SERVICE*", "BODY*"]
    rows: list[list[str | Text]] = [
        [
            moment(row.timestamp, short=not wide),
            Text(row.severity_text or str(row.severity_number or ""), style=_style(row)),
            row.service_name,
            _body(row),
        ]
        for row in page
    ]
    traces = [row.trace_id.hex if row.trace_id else "" for row in page]
    # The log of one trace need not name it on every line.
    if len(set(traces)) > 1 or len(traces) == 1:
        titles.append("TRACE")
        for cells, trace in zip(rows, traces, strict=True):
            cells.append(trace if wide else trace[:SHORT_ID])
    return table(titles, rows, gap=2 if wide else 1)


def _body(row: LogRecord) -> str:
    body = row.body
    if body is None:
        body = "" if row.body_json is None else json.dumps(row.body_json, ensure_ascii=False)
    return f"{row.event_name} {body}" if row.event_name else body


def _style(row: LogRecord) -> str:
    number = row.severity_number or 0
    return next(style for least, style in _STYLES if number >= least)
