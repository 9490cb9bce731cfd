"""``facts``: compute the LLM columns of stored spans again."""

from __future__ import annotations

from datetime import datetime

import click

from observatory_storage.cli import option_types
from observatory_storage.cli.common_options import (
    State,
    StorageCommand,
    common_options,
    json_option,
)
from observatory_storage.cli.resumable_work import show_resumable

__all__ = ["command"]


@click.command("facts", cls=StorageCommand)
@click.option(
    "--since", "start", type=option_types.time, help="Spans that start then or later. [the oldest]"
)
@click.option("--until", "end", type=option_types.time, help="Before this time. [no bound]")
@click.option(
    "--max-spans",
    type=click.IntRange(min=1),
    help="Stop after so many spans, and say where the next run continues.",
)
@json_option
@common_options
@click.pass_obj
def command(
    state: State, start: datetime | None, end: datetime | None, max_spans: int | None
) -> None:
    """Read the LLM columns of stored spans again from their attributes and events.

    Run it after an upgrade that reads more attributes, or after a change of llm.aliases. It works
    in small transactions beside writers. What is right already is left alone, so it can be
    interrupted and repeated.
    """
    show_resumable(
        state,
        lambda pool, note: pool.refresh_facts(start, end, max_spans=max_spans, progress=note),
    )
