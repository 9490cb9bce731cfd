"""``settle``: let usage count once that several traces report."""

from __future__ import annotations

from dataclasses import asdict

import click
from rich.text import Text

from observatory_storage.cli.common_options import (
    State,
    StorageCommand,
    common_options,
    json_option,
)

__all__ = ["command"]


@click.command("settle", cls=StorageCommand)
@click.option(
    "--max-traces",
    type=click.IntRange(min=1),
    help="Settle at most so many traces. The others wait for the next run.",
)
@json_option
@common_options
@click.pass_obj
def command(state: State, max_traces: int | None) -> None:
    """Let the tokens and costs of model calls count once that several traces report.

    It looks only at traces that were written since the last run, so it can run every minute. Two
    runs at once, and writers meanwhile, do no harm.
    """
    output = state.output()
    with state.pool() as pool:
        settled = pool.settle_usage(max_traces)
    if output.json:
        output.write(asdict(settled))
        return
    output.show(Text(f"{settled.traces} settled, {settled.changed_traces} changed"))
