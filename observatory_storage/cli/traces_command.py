"""``traces``: a list of traces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

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
from observatory_storage.cli.filter_options import given_fields, trace_filters
from observatory_storage.cli.formatting import SHORT_ID, count, dollars, duration, moment
from observatory_storage.cli.page_output import page_options, show_pages
from observatory_storage.cli.text_table import WIDE, Column, table
from observatory_storage.cli.typed_ids import find_session_id
from observatory_storage.models import Trace
from observatory_storage.repositories import TraceFilters
from observatory_storage.repositories.traces.ordered_search import NEWEST_FIRST
from observatory_storage.unit_of_work import UnitOfWork

__all__ = ["STATUS_STYLES", "command", "filters_of", "traces_table"]

STATUS_STYLES = {"error": "bold red", "ok": "green", "unset": "dim"}
_COLUMNS = (
    Column("START (UTC)", keep=7),
    Column("TRACE", keep=9),
    Column("STATUS", keep=6),
    Column("SERVICE", narrowest=10, keep=4),
    Column("NAME", narrowest=16, keep=8),
    Column("DURATION", right=True, keep=5),
    Column("SPANS", right=True, keep=1),
    Column("TOKENS", right=True, keep=2),
    Column("COST", right=True, keep=3),
)


_ORDERS = {"duration": "duration_us", "cost": "total_cost_usd", "tokens": "total_tokens"}


@click.command("traces", cls=StorageCommand)
@trace_filters
@click.option(
    "--order",
    "order_by",
    type=click.Choice(list(_ORDERS)),
    help="List the highest first, of the traces that begin between --since and --until [now].",
)
@click.option("--lowest-first", is_flag=True, help="With --order: list the lowest first.")
@page_options
@json_option
@replica_option
@common_options
@click.pass_obj
def command(
    state: State,
    /,
    *,
    after: str | None,
    everything: bool,
    order_by: str | None,
    lowest_first: bool,
    **given: Any,
) -> None:
    """List traces, the newest first.

    A trace is listed when one of its spans meets every condition. Conditions are options or text:
    'service:chat duration>2s -environment:test "a phrase"'.
    """
    if lowest_first and order_by is None:
        raise click.UsageError("--lowest-first needs --order")
    output = state.output()
    order: Any = NEWEST_FIRST
    with state.reading() as work:
        filters = filters_of(work, given)
        if order_by is not None:
            order = ("" if lowest_first else "-") + _ORDERS[order_by]
            if filters.end_time is None:
                filters = replace(filters, end_time=datetime.now(UTC))
        show_pages(
            output,
            lambda cursor: work.traces.list(filters, after=cursor, order_by=order),
            lambda page: traces_table(page, output.console.width),
            after=after,
            everything=everything,
        )


def filters_of(work: UnitOfWork, given: dict[str, Any]) -> TraceFilters:
    """The filters of `trace_filters`, with whole ids.

    Raises:
        NotFound: several sessions have ids with this beginning.
        ValidationError: a value is out of range.
    """
    fields = given_fields(TraceFilters, given)
    filters = TraceFilters(**fields)
    if isinstance(filters.session_id, str):
        fields["session_id"] = find_session_id(work, filters.session_id)
    return TraceFilters(**fields)


def traces_table(page: Sequence[Trace], width: int, *, with_titles: bool = True) -> RenderableType:
    """A table of traces for a terminal of so many columns."""
    wide = width >= WIDE
    rows: list[list[str | Text]] = [
        [
            moment(row.start_time, short=not wide),
            row.trace_id if wide else row.trace_id[:SHORT_ID],
            Text(row.status, style=STATUS_STYLES[row.status]),
            row.service_name,
            row.root_span_name or "",
            duration(None if row.duration_us is None else row.duration_us * 1000),
            _spans(row),
            count(row.total_tokens),
            dollars(row.total_cost_usd),
        ]
        for row in page
    ]
    return table(_COLUMNS, rows, gap=2 if wide else 1, with_titles=with_titles)


def _spans(row: Trace) -> Text:
    text = Text(count(row.span_count))
    if row.error_count:
        text.append(f" {row.error_count}!", style="bold red")
    return text
