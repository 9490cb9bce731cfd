"""The rows of a partition that stay: those of traces that are still there.

They are found from the traces, which are few once the others are deleted, by the primary key of the
partition. All rows of the partition are never read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Final, NamedTuple, TypeVar
from uuid import UUID

import sqlalchemy as sa

from observatory_storage.distribution import is_sharded
from observatory_storage.lifecycle.partition_marks import Versions
from observatory_storage.models import Trace
from observatory_storage.payloads import FrameKey, hour_of, prune_frames
from observatory_storage.schema_state import quoted_name
from observatory_storage.storing.trace_recompute import recompute_traces
from observatory_storage.storing.trace_upsert import locked_traces
from observatory_storage.tables import EVENTS, LOG_FRAMES, LOGS, PAYLOAD_FRAMES, SPANS
from observatory_storage.time_ranges import MAX

__all__ = [
    "LOG_TABLES",
    "TRACE_TABLES",
    "SparedRows",
    "SparedTrace",
    "correct_totals",
    "frames_with_expired_values",
    "prune_expired_values",
    "spared_traces",
    "with_wrong_totals",
]

TRACE_TABLES: Final = (SPANS.name, EVENTS.name, PAYLOAD_FRAMES.name)
"""The partitioned tables of traces, in the order in which their rows go.

Spans decide which events stay, and both decide which frames.
"""

LOG_TABLES: Final = (LOGS.name, LOG_FRAMES.name)
"""The partitioned tables of log records, in the order in which their rows go."""

_HOUR: Final = timedelta(hours=1)
_TRACES_AT_A_TIME: Final = 1_000
_T = TypeVar("_T")


class SparedTrace(NamedTuple):
    """A trace that is still there, with the bounds of its spans' starts."""

    id: UUID
    first: datetime
    last: datetime


_SPARED: Final = sa.select(Trace.id, Trace.start_time, Trace.last_span_start).where(
    Trace.start_time < sa.bindparam("upper"), Trace.last_span_start >= sa.bindparam("lower")
)


def spared_traces(connection: sa.Connection, lower: datetime, upper: datetime) -> list[SparedTrace]:
    """The traces that may have rows which are partitioned into [lower, upper)."""
    # A frame stands at the hour in which its spans start, also if a partition begins within it.
    if hour_of(upper) < upper < MAX:
        upper = hour_of(upper) + _HOUR
    rows = connection.execute(_SPARED, {"lower": lower, "upper": upper})
    return [SparedTrace(key, first, last) for key, first, last in rows if last is not None]


class SparedRows:
    """The rows of spared traces in a partition of `TRACE_TABLES`.

    A trace has only the spans that start within its bounds. Earlier ones are left over from a trace
    that was deleted, and came again with a late span.

    Args:
        schema: the schema of the tables.
        table: the partitioned table.
        partition: the name of the partition, attached or not.
    """

    def __init__(self, schema: str, table: str, partition: str) -> None:
        self._partition = f"{quoted_name(schema)}.{quoted_name(partition)}"
        self._schema = quoted_name(schema)
        self._table = table
        self._start = "span_start_time" if table == EVENTS.name else "start_time"

    def versions(
        self, connection: sa.Connection, traces: Sequence[SparedTrace]
    ) -> dict[UUID, Versions]:
        """For each trace that has rows: how many, and the sum of their versions."""
        statement = sa.text(
            "SELECT r.trace_id, count(*), sum(CAST(CAST(r.xmin AS text) AS bigint))"  # noqa: S608
            f" FROM {self._rows(connection, 'e.trace_id, e.xmin')} GROUP BY r.trace_id"
        )
        return {
            trace_id: Versions(count, int(total))
            for some in _chunks(traces)
            for trace_id, count, total in connection.execute(statement, _parameters(some))
        }

    def copy_to(
        self, connection: sa.Connection, target: str, traces: Sequence[SparedTrace], columns: str
    ) -> None:
        """Insert the rows into another table. Those that it has already stay as they are.

        Args:
            target: the quoted name of the other table.
            columns: the quoted names of all columns.
        """
        statement = sa.text(
            f"INSERT INTO {target} ({columns}) SELECT {columns}"  # noqa: S608 - quoted
            f" FROM {self._rows(connection, 'e.*')} ON CONFLICT DO NOTHING"
        )
        for some in _chunks(traces):
            connection.execute(statement, _parameters(some))

    def starts(self, connection: sa.Connection, traces: Sequence[SparedTrace]) -> list[datetime]:
        """The times by which the rows are partitioned."""
        rows = self._rows(connection, f"e.{self._start}")
        statement = sa.text(f"SELECT DISTINCT r.{self._start} FROM {rows}")  # noqa: S608 - quoted
        return [
            start
            for some in _chunks(traces)
            for start in connection.scalars(statement, _parameters(some))
        ]

    def _rows(self, connection: sa.Connection, columns: str) -> str:
        first = "date_trunc('hour', given.first, 'UTC')" if self._is_of_frames else "given.first"
        given = (
            "unnest(CAST(:ids AS uuid[]), CAST(:firsts AS timestamptz[]),"
            " CAST(:lasts AS timestamptz[])) AS given (trace, first, last)"
        )
        matching = (
            f"{self._partition} e WHERE e.trace_id = given.trace"
            f" AND e.{self._start} BETWEEN {first} AND given.last{self._is_needed()}"
        )
        if is_sharded(connection):  # Citus has no lateral join with an OFFSET
            return f"(SELECT {columns} FROM {given}, {matching}) r"  # noqa: S608 - quoted
        # OFFSET 0 keeps the planner from joining all rows of the partition.
        return f"{given}, LATERAL (SELECT {columns} FROM {matching} OFFSET 0) r"  # noqa: S608 - quoted

    def _is_needed(self) -> str:
        """The condition that an event's span is there, or a row that refers to a frame."""
        if self._table == EVENTS.name:
            return (
                f" AND EXISTS (SELECT FROM {self._schema}.trace_spans s"
                " WHERE s.trace_id = e.trace_id AND s.span_id = e.span_id"
                " AND s.start_time = e.span_start_time AND s.start_ns = e.span_start_ns)"
            )
        if not self._is_of_frames:
            return ""
        referring = " OR ".join(
            f"EXISTS (SELECT FROM {self._schema}.{table} s WHERE s.trace_id = e.trace_id"
            f" AND s.{start} >= e.start_time AND s.{start} < e.start_time + interval '1 hour'"
            " AND (s.payload_frame = e.id OR s.payload_frame = ANY (e.packed_ids)))"
            for table, start in (("trace_spans", "start_time"), ("trace_events", "span_start_time"))
        )
        return f" AND ({referring})"

    @property
    def _is_of_frames(self) -> bool:
        return self._table == PAYLOAD_FRAMES.name


def frames_with_expired_values(
    connection: sa.Connection, schema: str, partition: str
) -> list[FrameKey]:
    """The frames in a partition that may have values of spans which have expired.

    A late span has made their trace anew after it was deleted.
    """
    quoted = quoted_name(schema)
    statement = (
        f"SELECT f.trace_id, f.start_time, f.id FROM {quoted}.{quoted_name(partition)} f"  # noqa: S608
        f" JOIN {quoted}.traces t ON t.id = f.trace_id WHERE f.created_at < t.created_at"
    )
    return [FrameKey(*row) for row in connection.execute(sa.text(statement))]


def prune_expired_values(connection: sa.Connection, keys: Sequence[FrameKey]) -> None:
    """Remove the values of expired spans from frames, after these spans have gone."""
    locked_traces(connection, {key.trace_id for key in keys})
    prune_frames(connection, keys)


_COUNTED: Final = (
    sa.select(sa.func.count())
    .select_from(SPANS.table)
    .where(
        SPANS.table.c.trace_id == Trace.id,
        SPANS.table.c.start_time >= Trace.start_time,
        SPANS.table.c.start_time <= Trace.last_span_start,
    )
    .scalar_subquery()
)
_WRONG: Final = sa.select(Trace.id).where(
    Trace.id == sa.func.any(sa.bindparam("ids", type_=sa.ARRAY(Trace.id.type))),
    Trace.last_span_start.is_not(None),
    Trace.span_count != _COUNTED,
)


def with_wrong_totals(connection: sa.Connection, traces: Iterable[UUID]) -> set[UUID]:
    """The traces that have another number of spans than their totals say.

    A late span may have made a deleted trace anew. Its totals know only that span, although earlier
    ones may start after it.
    """
    return {key for some in _chunks(traces) for key in connection.scalars(_WRONG, {"ids": some})}


def correct_totals(connection: sa.Connection, traces: Iterable[UUID]) -> None:
    """Recompute the traces whose totals are wrong."""
    if wrong := with_wrong_totals(connection, traces):
        locked = [trace.id for trace in locked_traces(connection, wrong)]
        recompute_traces(connection, with_wrong_totals(connection, locked))


def _parameters(traces: Sequence[SparedTrace]) -> dict[str, list[object]]:
    return {
        "ids": [trace.id for trace in traces],
        "firsts": [trace.first for trace in traces],
        "lasts": [trace.last for trace in traces],
    }


def _chunks(values: Iterable[_T]) -> Iterator[list[_T]]:
    remaining = iter(values)
    while some := list(islice(remaining, _TRACES_AT_A_TIME)):
        yield some
