"""``indexes``: build the search indexes of closed partitions."""

from __future__ import annotations

import click
from rich.text import Text

from observatory_storage.cli.common_options import (
    State,
    StorageCommand,
    common_options,
    json_option,
)
from observatory_storage.cli.text_table import Column, table
from observatory_storage.partition_indexes import (
    IndexBuild,
    PartitionIndex,
    build_partition_indexes,
)

__all__ = ["command"]

_COLUMNS = (
    Column("PARTITION", keep=3),
    Column("INDEX", keep=2),
    Column("DONE", narrowest=6),
)


@click.command("indexes", cls=StorageCommand)
@click.option(
    "--table",
    "of_table",
    type=click.Choice(["trace_spans", "trace_events", "logs"]),
    help="Only the indexes of this table.",
)
@json_option
@common_options
@click.pass_obj
def command(state: State, of_table: str | None) -> int:
    """Build the search indexes (attributes, prompts, costs) of days that are over.

    Indexes that a migration has changed are built too, for all existing partitions.

    Neither readers nor writers wait for it. Indexes that exist are left alone, so the command can
    run every hour. The exit code is 1 when an index could not be built; the next run tries again.
    """
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
        output.show(table(_COLUMNS, rows))
    output.show(Text(f"{len(done.built)} built, {len(done.existing)} existed already"))
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
