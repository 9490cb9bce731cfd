"""``traces`` and ``trace``: a list to find one in, and one as a waterfall."""

from __future__ import annotations

import string
import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import click
from rich.console import RenderableType
from rich.text import Text
from sqlalchemy import select

from observatory_storage.cli import params
from observatory_storage.cli.output import table
from observatory_storage.cli.paging import page_options, show_pages
from observatory_storage.cli.state import State, common_options, json_option
from observatory_storage.cli.text import SHORT_ID, dollars, duration, moment, tokens
from observatory_storage.cli.waterfall import DEFAULT_ROWS, Waterfall
from observatory_storage.errors import NotFound
from observatory_storage.models import STATUSES, Trace
from observatory_storage.repositories import TraceFilters
from observatory_storage.unit_of_work import UnitOfWork

__all__ = ["trace", "traces", "traces_table"]

_MICROSECOND = timedelta(microseconds=1)
_WIDE = 120
_HEXADECIMAL = frozenset(string.hexdigits)
_SHORTEST_PREFIX = 4
_SHOWN_CANDIDATES = 5


@click.command()
@click.option("--service", "service_name", help="Service of a span.")
@click.option("--operation", help="Name of a span.")
@click.option("--status", type=click.Choice(STATUSES), help="Status of a span.")
@click.option("--since", "start_time", type=params.time, help="From this time on, or 2h for ago.")
@click.option("--until", "end_time", type=params.time, help="Before this time.")
@click.option("--min-duration", type=params.duration, help="At least so long, such as 250ms.")
@click.option("--max-duration", type=params.duration, help="At most so long.")
@click.option("--provider", help="Provider of a model call.")
@click.option("--model", help="Model of a model call.")
@click.option("--user", "user_id", help="User.")
@click.option("--session", "session_id", help="Session.")
@click.option("--environment", help="Environment.")
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
def traces(
    state: State,
    /,
    *,
    attributes: tuple[tuple[str, Any], ...],
    min_duration: timedelta | None,
    max_duration: timedelta | None,
    after: str | None,
    everything: bool,
    **given: Any,
) -> None:
    """List traces, the newest first.

    A trace is listed when one of its spans meets every condition.
    """
    state.start_logging()
    output = state.output()
    filters = TraceFilters(
        attributes=params.attributes_of(attributes),
        min_duration_us=_microseconds(min_duration),
        max_duration_us=_microseconds(max_duration),
        **given,
    )
    with state.pool() as pool, pool.unit_of_work() as work:
        show_pages(
            output,
            lambda cursor: work.traces.list(filters, after=cursor),
            lambda page: traces_table(page, output.console.width),
            after=after,
            everything=everything,
        )


@click.command()
@click.argument("trace_id", metavar="ID")
@click.option(
    "--limit",
    default=DEFAULT_ROWS,
    show_default=True,
    type=click.IntRange(1),
    help="Spans to draw.",
)
@json_option
@common_options
@click.pass_obj
def trace(state: State, trace_id: str, limit: int) -> None:
    """Show the trace ID as a waterfall.

    The beginning of an id will do where only one trace's begins so. With --json: one document of
    the trace, its spans and their events, all of them.
    """
    state.start_logging()
    output = state.output()
    with state.pool() as pool, pool.unit_of_work() as work:
        found = _find(work, trace_id)
        spans = work.traces.get_spans(found.id)
        if output.json:
            events = work.traces.get_events(found.id)
            output.write({"trace": found, "spans": spans, "events": events})
        else:
            output.show(Waterfall(found, spans, rows=limit))


def traces_table(page: Sequence[Trace], width: int) -> RenderableType:
    """A table of traces for a terminal of so many columns."""
    wide = width >= _WIDE
    rows: list[list[str | Text]] = [
        [
            moment(row.start_time, short=not wide),
            row.trace_id if wide else row.trace_id[:SHORT_ID],
            row.service_name,
            row.root_span_name or "",
            duration(None if row.duration_us is None else row.duration_us * 1000),
            _spans(row),
            tokens(row.total_tokens),
            dollars(row.total_cost_usd),
        ]
        for row in page
    ]
    titles = (
        "START (UTC)",
        "TRACE",
        "SERVICE*",
        "NAME*",
        ">DURATION",
        ">SPANS",
        ">TOKENS",
        ">COST",
    )
    return table(titles, rows, gap=2 if wide else 1)


def _spans(row: Trace) -> Text:
    text = Text(tokens(row.span_count))
    if row.error_count:
        text.append(f" {row.error_count}!", style="bold red")
    return text


def _find(work: UnitOfWork, given: str) -> Trace:
    try:
        return work.traces.get_by_trace_id(given)
    except NotFound:
        if len(given) < _SHORTEST_PREFIX:
            raise
        # Hexadecimal ids are stored in lower case. The column compares by bytes, so that its index
        # serves a range; no character comes after the last one of Unicode.
        prefix = given.lower() if _HEXADECIMAL.issuperset(given) else given
        query = select(Trace).where(
            Trace.trace_id >= prefix, Trace.trace_id < f"{prefix}{chr(sys.maxunicode)}"
        )
        found = list(work.session.scalars(query.limit(_SHOWN_CANDIDATES + 1)))
        if not found:
            raise
    if len(found) > 1:
        names = ", ".join(each.trace_id for each in found[:_SHOWN_CANDIDATES])
        raise NotFound(f"several traces begin with {given}: {names}")
    return found[0]


def _microseconds(value: timedelta | None) -> int | None:
    return None if value is None else value // _MICROSECOND
