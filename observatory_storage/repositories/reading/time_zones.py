"""Time zones from Python's database, in Python and in SQL.

PostgreSQL has its own time zone database and its own abbreviations: it reads ``CET`` as one hour
east of UTC all year. Therefore a statement gets the offsets of the zone, not its name. Only if
Python has no time zones, the server resolves the name.
"""

from __future__ import annotations

import zoneinfo
from bisect import bisect_left
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from sqlalchemy import ColumnElement, DateTime, Interval, case, func, literal
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.sql.elements import Grouping

from observatory_storage.errors import ValidationError

__all__ = [
    "TimeZone",
    "first_instant",
    "first_instant_by_server",
    "local_time",
    "local_times",
    "time_zone",
]

# A zone, or its name for the server if Python has no time zones.
TimeZone = tzinfo | str

_SECOND: Final = timedelta(seconds=1)
# Offsets change at least four days apart in every zone of the database, so no change is missed.
_STEP: Final = timedelta(days=3)
# No zone changes its offset before the first year. In a range without an end, changes after the
# last year are ignored.
_FIRST_YEAR, _LAST_YEAR = 1834, 2100
_MOST_YEARS: Final = 10


def time_zone(value: object) -> TimeZone | None:
    """A time zone by its name, in upper or lower case.

    Raises:
        ValidationError: there is no such time zone.
    """
    if value is None:
        return None
    if isinstance(value, ZoneInfo) and value.key is not None:
        return value
    if not isinstance(value, str):
        raise ValidationError("time_zone", value, "must be a name, as 'Asia/Tokyo'")
    try:
        return ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        known = _known_names(zoneinfo.TZPATH)
        if value.casefold() in known:
            return ZoneInfo(known[value.casefold()])
        if known or not value.isascii():
            raise ValidationError("time_zone", value, "is not the name of a time zone") from None
    # After a colon the server expects the name of a zone, never an abbreviation.
    return f":{value}"


def local_time(zone: tzinfo, moment: datetime) -> datetime:
    """The local time in the zone at a moment, without a time zone.

    Raises:
        OverflowError: that is before the year 1 or after the year 9999.
    """
    return moment.astimezone(zone).replace(tzinfo=None)


@lru_cache(maxsize=4096)
def first_instant(zone: tzinfo, local: datetime) -> datetime:
    """The moment at which clocks in the zone first show a local time.

    If clocks skip that time, it is the moment at which they are set forward.

    Raises:
        OverflowError: that is before the year 1 or after the year 9999.
    """
    start = local.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if local_time(zone, start) == local:
        return start
    # Clocks skip it. The values of `fold` give the offsets before and after, and the change lies
    # between the two moments.
    early = local.replace(tzinfo=zone, fold=1).astimezone(UTC)
    seconds = range((start - early) // _SECOND)
    later = bisect_left(seconds, local, key=lambda n: local_time(zone, early + n * _SECOND))
    return early + later * _SECOND


def local_times(
    zone: TimeZone, moment: Any, start: datetime | None, end: datetime | None
) -> ColumnElement[datetime]:
    """The local times in the zone of a column of moments in [start, end)."""
    if isinstance(zone, str):
        return func.timezone(zone, moment, type_=DateTime())
    changes, offsets = _offsets(zone, start, end)
    offset: ColumnElement[Any] = literal(offsets[0], Interval())
    if changes:
        place = func.width_bucket(moment, literal(changes, ARRAY(DateTime(timezone=True))))
        offset = Grouping(literal(offsets, ARRAY(Interval)))[place + 1]
    return func.timezone(literal(timedelta(0), Interval()), moment, type_=DateTime()) + offset


def first_instant_by_server(zone: str, local: ColumnElement[Any]) -> ColumnElement[datetime]:
    """The moment at which clocks first show a local time, by the server's time zones."""
    hour = literal(timedelta(hours=1), Interval())
    last = func.timezone(zone, local, type_=DateTime(timezone=True))
    return case((func.timezone(zone, last - hour) == local, last - hour), else_=last)


def _offsets(
    zone: tzinfo, start: datetime | None, end: datetime | None
) -> tuple[list[datetime], list[timedelta]]:
    """The moments at which the offset changes, and the offsets before the first and after each."""
    if isinstance(zone, timezone):
        return [], [zone.utcoffset(None)]
    first = _FIRST_YEAR if start is None else min(max(start.year, _FIRST_YEAR), 9998)
    last = max(_LAST_YEAR, first + _MOST_YEARS)
    years = range(first, min(last, last if end is None else end.year, 9998) + 1)
    changes = [change for year in years for change in _changes(zone, year)]
    before = _offset(zone, datetime(first, 1, 1, tzinfo=UTC))
    return [moment for moment, _ in changes], [before, *(offset for _, offset in changes)]


@lru_cache(maxsize=4096)
def _changes(zone: tzinfo, year: int) -> tuple[tuple[datetime, timedelta], ...]:
    """The moments of a year at which the offset changes, each with the offset from then on."""
    found = []
    moment, year_end = datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC)
    before = _offset(zone, moment)
    while moment < year_end:
        later = min(moment + _STEP, year_end)
        after = _offset(zone, later)
        if after != before:
            change = _change(zone, moment, later, before)
            found.append((change, after))
        moment, before = later, after
    return tuple(found)


def _change(zone: tzinfo, start: datetime, end: datetime, before: timedelta) -> datetime:
    while end - start > _SECOND:
        middle = start + (end - start) // _SECOND // 2 * _SECOND
        if _offset(zone, middle) == before:
            start = middle
        else:
            end = middle
    return end


def _offset(zone: tzinfo, moment: datetime) -> timedelta:
    offset = moment.astimezone(zone).utcoffset()
    assert offset is not None
    return offset


@lru_cache(maxsize=4)
def _known_names(_path: tuple[str, ...]) -> dict[str, str]:
    """The names of all zones that Python has, by the name in lower case."""
    return {name.casefold(): name for name in available_timezones()}
