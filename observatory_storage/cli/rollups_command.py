"""``rollups``: bring rollups up to date, or compute them again from the spans."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime

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
from observatory_storage.wording import counted

__all__ = ["command"]


@click.command("rollups", cls=StorageCommand)
@click.option(
    "--rebuild", is_flag=True, help="Compute them again from the spans, whether changed or not."
)
@click.option(
    "--since",
    "--start",
    "start",
    type=option_types.time,
    help="With --rebuild: of spans that start then or later. [the oldest]",
)
@click.option(
    "--until",
    "--end",
    "end",
    type=option_types.time,
    help="With --rebuild: of spans that start before this time. [no bound]",
)
@json_option
@common_options
@click.pass_obj
def command(state: State, rebuild: bool, start: datetime | None, end: datetime | None) -> None:
    """Bring the rollups of minutes, hours and days up to date with the spans.

    The first run begins to keep rollups, and computes those of all stored spans. Later runs compute
    what has changed since. A minute is computed two minutes after its end. The command works in
    small transactions beside writers, so it can be interrupted and repeated.
    """
    from observatory_storage.lifecycle.rollups import rebuild_rollups, refresh_rollups
    from observatory_storage.lifecycle.run import Run

    if not rebuild and (start is not None or end is not None):
        raise click.UsageError("--since and --until need --rebuild")
    output, errors = state.output(), new_console(stderr=True)
    with state.pool() as pool, errors.status("refreshing") as status:

        def show(line: str) -> None:
            status.update(escape(line))

        if rebuild:
            done = rebuild_rollups(pool, start, end, progress=show)
        else:
            done = refresh_rollups(Run(pool, progress=show))
    if output.json:
        output.write(asdict(done))
        return
    units = ((done.minutes, "minute"), (done.hours, "hour"), (done.days, "day"))
    output.show(Text(", ".join(counted(*one) for one in units) + " computed"))
