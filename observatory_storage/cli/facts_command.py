"""``facts``: compute the LLM columns of stored spans again."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from observatory_storage.storing import RefreshedFacts

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
    output, errors = state.output(), new_console(stderr=True)
    reached: RefreshedFacts | None = None
    with state.pool() as pool, errors.status("reading") as status:

        def show(so_far: RefreshedFacts) -> None:
            nonlocal reached
            reached = so_far
            status.update(escape(f"{_counts(so_far)}, at {so_far.next_start}"))

        try:
            refreshed = pool.refresh_facts(start, end, max_spans=max_spans, progress=show)
        except BaseException:
            if reached is not None and reached.next_start is not None:
                errors.print(Text(f"{_counts(reached)}; {_continue(reached.next_start)}"))
            raise
    if output.json:
        output.write(asdict(refreshed))
        return
    output.show(Text(_counts(refreshed)))
    if refreshed.next_start is not None:
        errors.print(Text(_continue(refreshed.next_start)))


def _counts(refreshed: RefreshedFacts) -> str:
    return f"{refreshed.spans:,} spans read, {refreshed.changed_spans:,} changed"


def _continue(start: datetime) -> str:
    return f"continue with --since {start.isoformat()}"
