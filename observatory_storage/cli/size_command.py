"""``size``: the size of tables, partitions, indexes and columns on disk."""

from __future__ import annotations

from collections.abc import Sequence

import click
from rich.console import RenderableType
from rich.text import Text

from observatory_storage.cli.common_options import (
    State,
    StorageCommand,
    common_options,
    json_option,
)
from observatory_storage.cli.formatting import count, size
from observatory_storage.cli.text_table import Column, table
from observatory_storage.lifecycle.sizes import PartitionSize, StorageSize, TableSize, storage_size

__all__ = ["command"]

_SIZES = (
    Column("SIZE", right=True, keep=8),
    Column("ROWS (EST.)", right=True, keep=5),
    Column("HEAP", right=True, keep=2),
    Column("TOAST", right=True, keep=3),
    Column("INDEXES", right=True, keep=4),
)
_TABLES = (Column("TABLE", keep=9), *_SIZES, Column("PARTITIONS", right=True, keep=1))
_PARTITIONS = (Column("PARTITION", keep=9), *_SIZES)
_INDEXES = (
    Column("INDEX", keep=9, narrowest=12),
    Column("SIZE", right=True, keep=8),
    Column("PARTS", right=True, keep=2),
    Column("SCANS", right=True, keep=3),
)
_COLUMNS = (
    Column("COLUMN", keep=9, narrowest=12),
    Column("SIZE (EST.)", right=True, keep=8),
    Column("MEAN BYTES", right=True, keep=3),
)
Section = tuple[Sequence[Column], list[tuple[str, ...]]]


@click.command("size", cls=StorageCommand)
@click.option("--table", "table", metavar="TABLE", help="Only this table, such as trace_spans.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="The number of partitions, indexes and columns to show; --json shows all.",
)
@json_option
@common_options
@click.pass_obj
def command(state: State, /, *, table: str | None, limit: int) -> None:
    """Show what takes up space: tables, partitions, indexes and columns, the biggest first.

    Sizes are those on disk, compressed, in units of 1,000 bytes. Rows are those of the last
    ANALYZE. The sizes of columns are estimated from a sample of rows, and do not include the
    overhead of rows and pages.
    """
    output = state.output()
    with state.pool() as pool:
        found = storage_size(pool, table=table)
    if output.json:
        output.write(found)
        return
    for columns, rows in _sections(found):
        output.show(_section(columns, rows, limit))
        if len(rows) > limit and columns is not _TABLES:
            output.show(Text(f"… {len(rows) - limit} more", style="dim"))
        output.show(Text(""))
    output.show(Text(f"{size(found.bytes)} together; sizes of columns are estimates"))


def _sections(found: StorageSize) -> list[Section]:
    return [
        (_TABLES, [(one.table, *_sizes(one), count(one.partitions)) for one in found.tables]),
        (_PARTITIONS, [(one.partition, *_sizes(one)) for one in found.partitions]),
        (
            _INDEXES,
            [
                (one.index, size(one.bytes), count(one.parts), count(one.scans))
                for one in found.indexes
            ],
        ),
        (
            _COLUMNS,
            [
                (f"{one.table}.{one.column}", size(one.bytes), f"{one.mean_bytes:,.1f}")
                for one in found.columns
                if one.bytes
            ],
        ),
    ]


def _section(
    columns: Sequence[Column], rows: Sequence[tuple[str, ...]], limit: int
) -> RenderableType:
    return table(columns, rows if columns is _TABLES else rows[:limit])


def _sizes(one: TableSize | PartitionSize) -> tuple[str, ...]:
    return (
        size(one.bytes),
        "?" if one.rows is None else count(one.rows),
        size(one.heap_bytes),
        size(one.toast_bytes),
        size(one.index_bytes),
    )
