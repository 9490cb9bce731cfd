"""``indexes``: give closed partitions the indexes that they lack."""

from __future__ import annotations

import click
from rich.text import Text

from observatory_storage.cli.output import table
from observatory_storage.cli.state import State, common_options, json_option
from observatory_storage.partition_indexes import (
    IndexBuild,
    PartitionIndex,
    build_partition_indexes,
)

__all__ = ["indexes"]


@click.command()
@click.option(
    "--table",
    "of_table",
    type=click.Choice(["trace_spans", "trace_events", "logs"]),
    help="Those of one table alone.",
)
@json_option
@common_options
@click.pass_obj
def indexes(state: State, of_table: str | None) -> int:
    """Build the indexes of days that are over, by which attributes and prompts are found.

    Nobody who reads or writes waits for it. What is there already is left alone, so that it may be
    run every hour. The exit code is 1 when an index could not be built; the next run tries again.
    """
    state.start_logging()
    output = state.output()
    with state.pool() as pool:
        done = build_partition_indexes(pool, table=of_table)
    if output.json:
        output.write(_plain(done))
        return int(bool(done.failed))
    rows = [_row(index, "built") for index in done.built]
    rows += [_row(index, "dropped") for index in done.dropped]
    rows += [_row(failure.index, f"failed: {failure.error}") for failure in done.failed]
    if rows:
        output.show(table(["PARTITION", "INDEX", "DONE"], rows))
    output.show(Text(f"{len(done.built)} built, {len(done.existing)} were there"))
    return int(bool(done.failed))


def _row(index: PartitionIndex, done: str) -> tuple[str, str, str]:
    return index.partition, index.name, done


def _plain(done: IndexBuild) -> dict[str, object]:
    return {
        "built": done.built,
        "existing": done.existing,
        "dropped": done.dropped,
        "failed": [
            {"index": failure.index, "error": str(failure.error)} for failure in done.failed
        ],
    }
