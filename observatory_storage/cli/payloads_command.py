"""``payloads``: move stored large values into payload frames or back, and check the frames."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import click
from rich.markup import escape
from rich.text import Text

from observatory_storage.cli import option_types
from observatory_storage.cli.common_options import (
    State,
    StorageCommand,
    common_options,
    json_option,
)
from observatory_storage.cli.console import new_console
from observatory_storage.cli.resumable_work import show_continuation, show_resumable
from observatory_storage.wording import counted

__all__ = ["command"]

_SINCE = click.option(
    "--since",
    "--start",
    "start",
    type=option_types.time,
    help="Rows of that time or later: spans by their start. [the oldest]",
)
_UNTIL = click.option(
    "--until", "--end", "end", type=option_types.time, help="Before this time. [no bound]"
)
_FOR = click.option(
    "--for",
    "for_secs",
    type=option_types.duration,
    metavar="DURATION",
    help="Stop after about this time, such as 60s or 5m, and say where to continue. [no bound]",
)


@click.group("payloads")
@common_options
def command() -> None:
    """Move stored large values into payload frames or back, and check the frames."""


@command.command("convert", cls=StorageCommand)
@click.option(
    "--to",
    type=click.Choice(["compressed", "inline"]),
    required=True,
    help="compressed: into frames. inline: back into the rows.",
)
@_SINCE
@_UNTIL
@_FOR
@json_option
@common_options
@click.pass_context
def convert(
    context: click.Context,
    to: Any,
    start: datetime | None,
    end: datetime | None,
    for_secs: timedelta | None,
) -> None:
    """Move the large values of stored spans, events and log records into frames, or back.

    It works in small transactions beside readers and writers. Rows that stand as they shall are
    left alone, so it can be interrupted and repeated. The exit code is 1 if rows could not be
    moved, since their frame is damaged.
    """
    from observatory_storage.lifecycle.payload_conversion import convert_payloads

    done = show_resumable(
        context.obj,
        lambda pool, note: convert_payloads(
            pool, to, start, end, for_secs=_seconds(for_secs), progress=note
        ),
        lambda done: (
            f"{counted(done.rows, 'row')} read, {done.changed_rows:,} changed"
            + (f", {done.failed_rows:,} failed" if done.failed_rows else "")
        ),
    )
    if done.failed_rows:
        context.exit(1)


@command.command("check", cls=StorageCommand)
@_SINCE
@_UNTIL
@_FOR
@json_option
@common_options
@click.pass_context
def check(
    context: click.Context,
    start: datetime | None,
    end: datetime | None,
    for_secs: timedelta | None,
) -> None:
    """Open all payload frames, and compare them with the rows that refer to them.

    The exit code is 1 if frames are damaged or missing, or have values of no row.
    """
    from observatory_storage.lifecycle.payload_check import CheckedPayloads, check_payloads

    state: State = context.obj
    output, errors = state.output(), new_console(stderr=True)
    with state.pool() as pool, errors.status("reading") as status:

        def note(so_far: CheckedPayloads) -> None:
            status.update(escape(f"{_counts(so_far)}, at {so_far.next_start}"))

        done = check_payloads(pool, start, end, for_secs=_seconds(for_secs), progress=note)
    if output.json:
        output.write(done.to_dict(json=True))
    else:
        for problem in done.problems:
            output.show(Text(problem.message))
        output.show(Text(_counts(done)))
        show_continuation(errors, done.next_start)
    if done.problems:
        context.exit(1)


def _counts(checked: Any) -> str:
    found = (
        (checked.frames, "frame"),
        (checked.values, "value"),
        (len(checked.problems), "problem"),
    )
    return ", ".join(counted(*one) for one in found)


def _seconds(duration: timedelta | None) -> float | None:
    return None if duration is None else duration.total_seconds()
