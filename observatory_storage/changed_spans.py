"""Marks the times in which spans have changed, so that their rollups are computed anew.

Each transaction that writes, changes or deletes spans adds its own marks, after its first statement
that does so. Marks have no key in common, so writers never wait for each other. Nothing is marked
before rollups are kept: `lifecycle.rollups` begins to keep them while no transaction is writing
spans.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from weakref import WeakKeyDictionary

import psycopg
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from observatory_storage.models import RollupState, SpanChange

__all__ = ["mark_changes", "marking", "marks_of", "noted_changes", "ranges_of"]

_HOUR: Final = timedelta(hours=1)
_ORIGIN: Final = datetime(2000, 1, 1, tzinfo=UTC)
_GAP: Final = timedelta(minutes=5)
_MOST_RANGES: Final = 64
_UNTIL_HOURS: Final = (1, 24, 24 * 30, 24 * 366)

Range = tuple[datetime, datetime]
# A `Connection` lives as long as its transaction.
_noted: Final[WeakKeyDictionary[sa.Connection, list[Range]]] = WeakKeyDictionary()


def mark_changes(connection: sa.Connection, starts: Collection[datetime]) -> None:
    """Mark the starts of spans that this transaction has written, changed or deleted.

    Args:
        connection: a connection in a transaction that has begun to do so.
        starts: their starts, or any times among which the first and the last are exact.
    """
    if not starts:
        return
    ranges = ranges_of(starts)
    _noted.setdefault(connection, []).extend(ranges)
    # By the driver: for a single row, SQLAlchemy takes longer than the server.
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    quote = connection.dialect.identifier_preparer.quote
    translation = connection.get_execution_options().get("schema_translate_map") or {}
    schema = quote(translation.get(None) or "public")
    query = f"INSERT INTO {schema}.span_changes (start_time, end_time) "
    kept = f" WHERE EXISTS (SELECT FROM {schema}.rollup_state)"
    if len(ranges) == 1:
        query += f"SELECT %s::timestamptz, %s::timestamptz{kept}"
        driver.execute(query.encode(), ranges[0])
    else:
        firsts, lasts = zip(*ranges, strict=True)
        query += f"SELECT * FROM unnest(%s::timestamptz[], %s::timestamptz[]) AS one{kept}"  # noqa: S608 - quoted
        driver.execute(query.encode(), (list(firsts), list(lasts)))


def noted_changes(connection: sa.Connection) -> list[Range]:
    """The ranges of spans that `mark_changes` has marked on this connection."""
    return _noted.get(connection, [])


def ranges_of(starts: Iterable[datetime]) -> list[Range]:
    """Ranges that contain these times: one if they lie within an hour, else one for each hour.

    Neighbouring ranges are merged. If the times lie in very many hours, the ranges are wider.
    """
    times = list(starts)
    first, last = min(times), max(times)
    if last - first <= _HOUR:
        return [(first, last)]
    for hours in _UNTIL_HOURS:
        ranges = _merged(times, timedelta(hours=hours))
        if len(ranges) <= _MOST_RANGES:
            return ranges
    return [(first, last)]


def _merged(times: list[datetime], width: timedelta) -> list[Range]:
    found: list[Range] = []
    for time in sorted(times):
        if found and (time - found[-1][1] <= _GAP or time - found[-1][0] <= width):
            found[-1] = found[-1][0], time
        else:
            found.append((time, time))
    return found


def marks_of(changed: Any, level: int = 0) -> Any:
    """A statement that marks the starts of changed spans, for a CTE of the statement of the change.

    Args:
        changed: the CTE that changes spans. Its column `start_time` has their starts.
        level: what has changed; see `SpanChange`.
    """
    start = changed.c.start_time
    hour = sa.func.date_bin(
        sa.literal(_HOUR, sa.Interval()), start, sa.literal(_ORIGIN, sa.DateTime(timezone=True))
    )
    kept = sa.select(RollupState.id).exists()
    return insert(SpanChange).from_select(
        ["level", "start_time", "end_time"],
        sa.select(sa.literal(level, sa.SmallInteger), sa.func.min(start), sa.func.max(start))
        .where(kept)
        .group_by(hour),
    )


def marking(statement: Any, start: Any, level: int = 0) -> sa.Select[int]:
    """A statement that runs a change of spans, marks them, and counts them.

    Args:
        statement: deletes or updates spans, or rollups.
        start: the column with the start of a span, or the bucket of a rollup.
        level: what has changed; see `SpanChange`.
    """
    changed = statement.returning(start.label("start_time")).cte("changed")
    marks = marks_of(changed, level).cte("marks")
    return sa.select(sa.func.count()).select_from(changed).add_cte(marks)
