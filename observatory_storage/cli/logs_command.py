"""``logs``: lists log records, or follows them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import click
from rich.console import RenderableType
from rich.text import Text

from observatory_storage.cli.common_options import (
    State,
    StorageCommand,
    common_options,
    json_option,
    replica_option,
)
from observatory_storage.cli.filter_options import given_fields, log_filters
from observatory_storage.cli.formatting import SHORT_ID, moment
from observatory_storage.cli.page_output import page_options, show_pages
from observatory_storage.cli.tail_output import follow as print_new
from observatory_storage.cli.text_table import WIDE, Column, table
from observatory_storage.cli.typed_ids import find_span_id, find_trace_id
from observatory_storage.models import LogRecord
from observatory_storage.repositories import LogFilters
from observatory_storage.unit_of_work import UnitOfWork

__all__ = ["command", "filters_of", "logs_table"]

_STYLES = ((21, "bold red"), (17, "red"), (13, "yellow"), (9, ""), (0, "dim"))


@click.command("logs", cls=StorageCommand)
@log_filters
@click.option(
    "--follow", "-f", is_flag=True, help="Print the newest records, then new ones as they arrive."
)
@page_options
@json_option
@replica_option
@common_options
@click.pass_obj
def command(
    state: State, /, *, after: str | None, everything: bool, follow: bool, **given: Any
) -> None:
    """List log records, the newest first.

    Conditions are options or text: 'service:chat level:warn "a phrase"'.

    With --follow they are printed in the order in which they are stored, until Ctrl-C or the time
    of --until.
    """
    if follow and (after is not None or everything):
        raise click.UsageError("--follow cannot be combined with --after or --all")
    if follow and state.replica:
        raise click.UsageError(
            "--follow reads from the primary: it cannot be combined with --replica"
        )
    output = state.output()
    with state.pool() as pool:
        with pool.unit_of_work(read_only=state.replica) as work:
            filters = filters_of(work, given)
            if not follow:
                show_pages(
                    output,
                    lambda cursor: work.logs.list(filters, after=cursor, payload=output.json),
                    lambda page: logs_table(page, output.console.width),
                    after=after,
                    everything=everything,
                )
        if follow:
            with_trace = not isinstance(filters.trace_id, UUID)
            print_new(
                pool,
                "logs",
                filters,
                output,
                lambda rows, width, titles: logs_table(
                    rows, width, with_titles=titles, with_trace=with_trace
                ),
            )


def filters_of(work: UnitOfWork, given: dict[str, Any]) -> LogFilters:
    """The filters of `log_filters`, with whole ids.

    Raises:
        NotFound: there is no such trace, or several trace ids have this beginning.
        ValidationError: a value is out of range.
    """
    fields = given_fields(LogFilters, given)
    if isinstance(trace_id := fields.get("trace_id"), str):
        fields["trace_id"] = found = find_trace_id(work, trace_id)
        if isinstance(span_id := fields.get("span_id"), str):
            fields["span_id"] = find_span_id(work, found, span_id)
    return LogFilters(**fields)


def logs_table(
    page: Sequence[LogRecord],
    width: int,
    *,
    with_titles: bool = True,
    with_trace: bool | None = None,
) -> RenderableType:
    """A table of log records for a terminal of so many columns.

    Args:
        page: the records.
        width: the terminal's width.
        with_titles: begin with the line of titles.
        with_trace: show the trace of each record; by default unless all are of the same one.
    """
    wide = width >= WIDE
    columns = [
        Column("TIME (UTC)", keep=7),
        Column("LEVEL", narrowest=6, keep=5),
        Column("SERVICE", narrowest=6, keep=4),
        Column("BODY", narrowest=20, keep=8),
    ]
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
    if with_trace is None:
        with_trace = len(set(traces)) > 1 or len(traces) == 1
    if with_trace:
        # Before the body, which is long: no other column has to be padded to its width.
        columns.insert(3, Column("TRACE", keep=9))
        for cells, trace in zip(rows, traces, strict=True):
            cells.insert(3, trace if wide else trace[:SHORT_ID])
    return table(columns, rows, gap=2 if wide else 1, with_titles=with_titles)


def _body(row: LogRecord) -> str:
    body = row.body
    if body is None:
        body = "" if row.body_json is None else json.dumps(row.body_json, ensure_ascii=False)
    return f"{row.event_name} {body}" if row.event_name else body


def _style(row: LogRecord) -> str:
    number = row.severity_number or 0
    return next(style for least, style in _STYLES if number >= least)
