"""``trace``: one trace as a waterfall."""

from __future__ import annotations

import click

from observatory_storage.cli.common_options import (
    State,
    StorageCommand,
    common_options,
    json_option,
    replica_option,
)
from observatory_storage.cli.typed_ids import find_trace
from observatory_storage.cli.waterfall import DEFAULT_ROWS, Waterfall

__all__ = ["command"]


@click.command("trace", cls=StorageCommand)
@click.argument("trace_id", metavar="ID")
@click.option(
    "--limit",
    default=DEFAULT_ROWS,
    show_default=True,
    type=click.IntRange(1),
    help="Spans to draw.",
)
@json_option
@replica_option
@common_options
@click.pass_obj
def command(state: State, trace_id: str, limit: int) -> None:
    """Show the trace ID as a waterfall.

    The beginning of an id is enough if only one trace id has it. With --json, the output is one
    document with the trace, all its spans and all their events.
    """
    output = state.output()
    with state.reading() as work:
        found = find_trace(work, trace_id)
        if output.json:
            spans = work.traces.get_spans(found.id)
            events = work.traces.get_events(found.id)
            output.write({"trace": found, "spans": spans, "events": events})
        else:
            output.show(Waterfall(found, work.traces.get_tree(found.id), rows=limit))
