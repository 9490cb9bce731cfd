"""``tail``: logs, spans or traces, as they are stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click
from rich.console import RenderableType
from rich.text import Text

from observatory_storage.cli.common_options import (
    State,
    StorageCommand,
    common_options,
    json_option,
)
from observatory_storage.cli.filter_options import given_fields, log_filters, trace_filters
from observatory_storage.cli.formatting import SHORT_ID, count, dollars, duration, moment
from observatory_storage.cli.logs_command import filters_of as filters_of_logs
from observatory_storage.cli.logs_command import logs_table
from observatory_storage.cli.tail_output import Draw, follow
from observatory_storage.cli.text_table import WIDE, Column, table
from observatory_storage.cli.traces_command import STATUS_STYLES, traces_table
from observatory_storage.cli.traces_command import filters_of as filters_of_traces
from observatory_storage.config import StreamSignal
from observatory_storage.models import TraceSpan
from observatory_storage.repositories import SpanFilters
from observatory_storage.unit_of_work import UnitOfWork

__all__ = ["command"]

Command = TypeVar("Command", bound=Callable[..., Any])

_SPAN_COLUMNS = (
    Column("START (UTC)", keep=7),
    Column("STATUS", keep=6),
    Column("SERVICE", narrowest=10, keep=4),
    Column("NAME", narrowest=16, keep=8),
    Column("DURATION", right=True, keep=5),
    Column("MODEL", narrowest=8, keep=2),
    Column("TOKENS", right=True, keep=1),
    Column("COST", right=True, keep=3),
    Column("TRACE", keep=9),
)


@click.group("tail")
@common_options
def command() -> None:
    """Print rows as they are stored, until Ctrl-C or the time of --until.

    No row is left out or printed twice. With Redis, rows that are published are printed at once;
    without it, the database is asked every second. While the database does not answer, the command
    waits, and says so on standard error.
    """


def _options(kind: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def add(command: Command) -> Command:
        limit = click.option(
            "--limit",
            default=10,
            show_default=True,
            type=click.IntRange(1, 2**31 - 1),
            help="The newest rows that are printed at the start.",
        )
        decorated: Any = json_option(common_options(click.pass_obj(command)))
        added: Command = kind(limit(decorated))
        return added

    return add


@command.command("logs", cls=StorageCommand)
@_options(log_filters)
def logs(state: State, /, **given: Any) -> None:
    """Print log records as they are stored.

    Conditions are options or text: 'service:chat level:warn "a phrase"'.
    """

    def draw(rows: Sequence[Any], width: int, with_titles: bool) -> RenderableType:
        return logs_table(rows, width, with_titles=with_titles, with_trace=True)

    _tail(state, "logs", given, filters_of_logs, draw)


@command.command("spans", cls=StorageCommand)
@_options(trace_filters)
def spans(state: State, /, **given: Any) -> None:
    """Print spans as they are stored. A span is printed again when it is changed soon after.

    Conditions are options or text: 'service:chat duration>2s status:error'.
    """

    def filters_of(_: UnitOfWork, given: dict[str, Any]) -> SpanFilters:
        return SpanFilters(**given_fields(SpanFilters, given))

    _tail(state, "spans", given, filters_of, spans_table)


@command.command("traces", cls=StorageCommand)
@_options(trace_filters)
def traces(state: State, /, **given: Any) -> None:
    """Print traces as they get spans, as they are then.

    A trace is printed when one of its spans meets every condition. Conditions are options or text:
    'service:chat duration>2s -environment:test "a phrase"'.
    """

    def draw(rows: Sequence[Any], width: int, with_titles: bool) -> RenderableType:
        return traces_table(rows, width, with_titles=with_titles)

    _tail(state, "traces", given, filters_of_traces, draw)


def _tail(
    state: State,
    signal: StreamSignal,
    given: dict[str, Any],
    filters_of: Callable[[UnitOfWork, dict[str, Any]], Any],
    draw: Draw,
) -> None:
    with state.pool() as pool:
        with pool.unit_of_work() as work:
            filters = filters_of(work, given)
        follow(pool, signal, filters, state.output(), draw)


def spans_table(page: Sequence[TraceSpan], width: int, with_titles: bool) -> RenderableType:
    """A table of spans for a terminal of so many columns."""
    wide = width >= WIDE
    rows: list[list[str | Text]] = [
        [
            moment(row.start_time, short=not wide),
            Text(row.status, style=STATUS_STYLES[row.status]),
            row.service_name,
            row.name,
            duration(None if row.duration_us is None else row.duration_us * 1000 + row.duration_ns),
            row.model or "",
            count(row.total_tokens),
            dollars(row.total_cost_usd),
            row.trace_id.hex if wide else row.trace_id.hex[:SHORT_ID],
        ]
        for row in page
    ]
    return table(_SPAN_COLUMNS, rows, gap=2 if wide else 1, with_titles=with_titles)
