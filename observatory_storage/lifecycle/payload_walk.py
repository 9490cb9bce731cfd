"""Walks the traces that have rows in some ranges of time, in the order of their ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Final
from uuid import UUID

import sqlalchemy as sa

from observatory_storage import layout
from observatory_storage.errors import ValidationError, translated
from observatory_storage.lifecycle.spared_rows import LOG_TABLES, TRACE_TABLES
from observatory_storage.repositories.reading import validation
from observatory_storage.storing.transaction import Source
from observatory_storage.time_ranges import MAX, MIN, Range

__all__ = ["FIRST", "covered_ranges", "in_key_order", "is_of", "is_within", "traces_in"]

_TRACES_AT_A_TIME: Final = 50
FIRST: Final = UUID(int=0)
"""Is before all traces."""


def covered_ranges(source: Source, start: datetime | None, end: datetime | None) -> list[Range]:
    """The ranges within [start, end) that partitions of rows with values and of frames have.

    Raises:
        ValidationError: a time has no time zone, or the end is before the start.
        StorageError: the database could not be used.
    """
    first = validation.moment("start", start) or MIN
    last = validation.moment("end", end) or MAX
    if last < first:
        raise ValidationError("end", end, f"must not be before start={start}")
    with translated(), source.engine.connect() as connection:
        stored = [
            one
            for table in (*TRACE_TABLES, *LOG_TABLES)
            for one in layout.existing(connection, source.schema, table)
        ]
    edges = sorted({first, last}.union(*((one.lower, one.upper) for one in stored)))
    return [
        Range(lower, upper)
        for lower, upper in pairwise(edge for edge in edges if first <= edge <= last)
        if any(one.lower <= lower and upper <= one.upper for one in stored)
    ]


def in_key_order(connection: sa.Connection) -> None:
    """Have pages in the order of a key read by its index, until the transaction ends.

    A plan that sorts or hashes would read a whole partition for each page.
    """
    for setting in ("enable_sort", "enable_hashagg"):
        connection.exec_driver_sql(f"SET LOCAL {setting} = off")


def is_within(moment: sa.ColumnElement[datetime], held: Range) -> sa.ColumnElement[bool]:
    """Whether the time is in the range. What has no bound is not bounded."""
    bounds = [moment >= held.lower] if held.lower > MIN else []
    bounds += [moment < held.upper] if held.upper < MAX else []
    return sa.and_(sa.true(), *bounds)


def traces_in(
    source: Source,
    conditions: Sequence[tuple[sa.Table, str, sa.ColumnElement[bool]]],
    held: Range,
    after: UUID = FIRST,
) -> Iterator[list[UUID]]:
    """The traces with rows in a range that meet a condition, some at a time.

    Args:
        source: the pool.
        conditions: tables, the columns of their times, and the conditions on their rows.
        held: the range.
        after: begin with the traces after this one.
    """
    while True:
        found: set[UUID] = set()
        with translated(), source.engine.begin() as connection:
            in_key_order(connection)
            for table, start, condition in conditions:
                page = (
                    sa.select(table.c.trace_id)
                    .distinct()
                    .where(table.c.trace_id > after, is_within(table.c[start], held), condition)
                    .order_by(table.c.trace_id)
                    .limit(_TRACES_AT_A_TIME)
                )
                found.update(connection.scalars(page))
        if not found:
            return
        traces = sorted(found)[:_TRACES_AT_A_TIME]
        yield traces
        after = traces[-1]


def is_of(table: sa.Table, traces: Sequence[UUID]) -> sa.ColumnElement[bool]:
    """Whether a row belongs to one of these traces."""
    trace_id = table.c.trace_id
    return trace_id == sa.any_(sa.literal(traces, sa.ARRAY(trace_id.type)))
