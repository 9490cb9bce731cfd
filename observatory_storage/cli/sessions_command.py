"""``sessions``: a list of sessions (conversations)."""

from __future__ import annotations

from collections.abc import Sequence
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
from observatory_storage.cli.filter_options import time_range
from observatory_storage.cli.formatting import count, dollars, moment
from observatory_storage.cli.page_output import page_options, show_pages
from observatory_storage.cli.text_table import WIDE, Column, table
from observatory_storage.repositories import SessionFilters, SessionSummary

__all__ = ["command"]

_COLUMNS = (
    Column("LAST ACTIVE (UTC)", keep=8),
    Column("SESSION", keep=9),
    Column("USERS", narrowest=6, keep=7),
    Column("SERVICES", narrowest=6, keep=3),
    Column("TRACES", right=True, keep=6),
    Column("SPANS", right=True, keep=2),
    Column("TOKENS", right=True, keep=4),
    Column("COST", right=True, keep=5),
)


@click.command("sessions", cls=StorageCommand)
@click.option("--service", "service_name", help="The service's name.")
@click.option("--user", "user_id", help="The user's id.")
@click.option("--environment", help="The environment.")
@time_range
@page_options
@json_option
@replica_option
@common_options
@click.pass_obj
def command(state: State, /, *, after: str | None, everything: bool, **given: Any) -> None:
    """List sessions (conversations), most recently active first.

    Counts, tokens and cost are those of the session's traces.
    """
    output = state.output()
    filters = SessionFilters(**given)
    with state.reading() as work:
        show_pages(
            output,
            lambda cursor: work.traces.list_sessions(filters, after=cursor),
            lambda page: _sessions_table(page, output.console.width),
            after=after,
            everything=everything,
        )


def _sessions_table(page: Sequence[SessionSummary], width: int) -> RenderableType:
    wide = width >= WIDE
    rows: list[list[str | Text]] = [
        [
            moment(row.last_start_time, short=not wide),
            row.session_id,
            ", ".join(row.user_ids),
            ", ".join(row.service_names),
            _with_errors(row.trace_count, row.error_trace_count),
            _with_errors(int(row.span_count), int(row.error_span_count)),
            count(None if row.total_tokens is None else int(row.total_tokens)),
            dollars(row.total_cost_usd),
        ]
        for row in page
    ]
    return table(_COLUMNS, rows, gap=2 if wide else 1)


def _with_errors(total: int, errors: int) -> Text:
    text = Text(count(total))
    if errors:
        text.append(f" {errors:,}!", style="bold red")
    return text
