"""Finds in rollups on which days a user or a session has spans, so that others are not searched.

The rollups of a day list all users and sessions of its spans, unless the day is marked as changed.
Marked days are always searched. So are the days before the time from which on spans are complete:
their rollups stay when their spans are dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from observatory_storage.models import RollupState, SpanChange
from observatory_storage.repositories.reading.operators import OneOf
from observatory_storage.repositories.reading.reader import Reader

__all__ = ["Range", "changed_days", "days_with", "days_with_any", "within_ranges"]

Range = tuple[datetime, datetime]
"""A half-open range of whole days."""

_DAY: Final = timedelta(days=1)
_ORIGIN: Final = datetime(2000, 1, 1, tzinfo=UTC)
_EARLIEST, _LATEST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
# With more ranges than this, the nearest are joined: each is a part of the statement.
_MOST_RANGES: Final = 24


def changed_days(reader: Reader) -> list[Range] | None:
    """The days whose rollups may differ from their spans; None if rollups are not kept."""
    return _ranges_of(reader.rows(_CHANGED))


def days_with(reader: Reader, column: Any, values: Sequence[str]) -> list[Range] | None:
    """The days on which spans may have one of these values; None if rollups are not kept.

    Args:
        column: a column of the rollups of days.
    """
    bucket = column.class_.bucket
    wanted = column == sa.func.any(sa.literal(list(values), ARRAY(column.type)))
    days = sa.select(_NO_TIME, bucket, bucket).where(wanted, _IS_KEPT).distinct()
    return _ranges_of(reader.rows(sa.union_all(_CHANGED, days)))


def days_with_any(reader: Reader, column: Any, value: object) -> list[Range] | None:
    """The days on which spans may have the value of a filter; None if they are not known."""
    given = value.values if isinstance(value, OneOf) else (value,)
    values = [one for one in given if isinstance(one, str)]
    if len(values) < len(given):
        return None
    return days_with(reader, column, values)


def within_ranges(column: Any, ranges: Iterable[Range]) -> sa.ColumnElement[bool]:
    """The condition that a time lies in one of the ranges."""
    found = []
    for start, end in ranges:
        low = () if start == _EARLIEST else (column >= start,)
        high = () if end == _LATEST else (column < end,)
        found.append(sa.and_(sa.true(), *low, *high))
    return sa.or_(sa.false(), *found)


def _ranges_of(rows: Sequence[Any]) -> list[Range] | None:
    if not rows:
        return None
    found = [(row.first, _day_after(row.last)) for row in rows if row.first is not None]
    found += [(_EARLIEST, _day_after(row.raw_since)) for row in rows if row.raw_since is not None]
    return _joined(found)


def _joined(ranges: Iterable[Range]) -> list[Range]:
    found: list[Range] = []
    for start, end in sorted(ranges):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((start, end))
    if len(found) > _MOST_RANGES:
        gaps = sorted(following[0] - one[1] for one, following in pairwise(found))
        least = gaps[len(found) - _MOST_RANGES - 1]
        wide, found = found, found[:1]
        for start, end in wide[1:]:
            if start - found[-1][1] <= least:
                found[-1] = found[-1][0], end
            else:
                found.append((start, end))
    return found


def _day_after(moment: datetime) -> datetime:
    """The end of the day of a moment, in UTC."""
    day = _ORIGIN + (moment - _ORIGIN) // _DAY * _DAY
    return day + _DAY if _LATEST - day > _DAY else _LATEST


def _changes() -> Any:
    day = sa.literal(_DAY, sa.Interval())
    origin = sa.literal(_ORIGIN, sa.DateTime(timezone=True))
    marked = (
        sa.select(
            sa.func.date_bin(day, SpanChange.start_time, origin).label("first"),
            sa.func.date_bin(day, SpanChange.end_time, origin).label("last"),
        )
        .distinct()
        .subquery("marked")
    )
    return sa.select(RollupState.raw_since, *marked.c).join_from(
        RollupState, marked, sa.true(), isouter=True
    )


_CHANGED: Final = _changes()
_NO_TIME: Final = sa.cast(sa.null(), sa.DateTime(timezone=True))
_IS_KEPT: Final = sa.select(RollupState.id).exists()
