"""Buckets of time: of one width, or of the days, months and years of a time zone.

Every query counts them from the same origin. So the bounds of a bucket depend neither on the
requested range nor on the session's time zone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final, Literal

from sqlalchemy import ColumnElement, DateTime, Label, func, literal
from sqlalchemy.types import Interval

from observatory_storage.errors import ValidationError
from observatory_storage.repositories.reading import time_zones, validation

__all__ = [
    "CALENDAR_UNITS",
    "BucketSize",
    "Buckets",
    "CalendarBuckets",
    "EqualBuckets",
    "WholeRange",
    "bucket_count",
    "bucket_floor",
    "bucket_start",
    "buckets_between",
    "buckets_of",
    "buckets_or_whole",
]

# A Monday at midnight, so that weeks begin on Mondays (ISO 8601), and days at midnight.
_ORIGIN: Final = datetime(1970, 1, 5, tzinfo=UTC)
_LOCAL_ORIGIN: Final = datetime(1970, 1, 5)  # noqa: DTZ001 - local time of any time zone
_LOCAL_BOUNDS: Final = (datetime(1, 1, 1), datetime(9999, 12, 31))  # noqa: DTZ001
_EARLIEST: Final = datetime.min.replace(tzinfo=UTC)
_LATEST: Final = datetime.max.replace(tzinfo=UTC)
_DAY: Final = timedelta(days=1)
_DAYS: Final = {"day": 1, "week": 7}
_MONTHS: Final = {"month": 1, "quarter": 3, "year": 12}

CALENDAR_UNITS: Final = (*_DAYS, *_MONTHS)
# Seconds, a timedelta, or a unit of the calendar.
BucketSize = validation.Number | timedelta | Literal["day", "week", "month", "quarter", "year"]


def bucket_start(width: timedelta, moment: Any) -> ColumnElement[datetime]:
    """The start of the bucket that contains a time, in SQL."""
    return func.date_bin(literal(width, Interval()), moment, literal(_ORIGIN, moment.type))


def bucket_floor(width: timedelta, moment: datetime) -> datetime:
    """The start of the bucket that contains a time.

    Raises:
        OverflowError: before the year 1.
    """
    return _ORIGIN + (moment - _ORIGIN) // width * width


def bucket_count(width: timedelta, start: datetime, end: datetime) -> int:
    """The number of buckets that [start, end) touches."""
    if start >= end:
        return 0
    return (end - _ORIGIN - timedelta.resolution) // width - (start - _ORIGIN) // width + 1


def buckets_between(width: timedelta, start: datetime, end: datetime) -> Iterator[datetime]:
    """The starts of the buckets that [start, end) touches."""
    first = bucket_floor(width, start)
    for number in range(bucket_count(width, start, end)):
        yield first + number * width


@dataclass(frozen=True, slots=True)
class WholeRange:
    """The whole range of a query, without buckets. Results have no time."""

    def column(self, _moment: Any, _start: datetime | None, _end: datetime | None) -> Label[Any]:
        """The column ``bucket``, of NULL."""
        return literal(None, DateTime(timezone=True)).label("bucket")

    def read(self, value: Any) -> None:
        """The start of a bucket, from a value of the column."""


@dataclass(frozen=True, slots=True)
class EqualBuckets:
    """Buckets of one width."""

    width: timedelta

    def column(self, moment: Any, _start: datetime | None, _end: datetime | None) -> Label[Any]:
        """The column ``bucket`` for the moments of another column, in [start, end)."""
        return bucket_start(self.width, moment).label("bucket")

    def read(self, value: datetime) -> datetime:
        """The start of a bucket, from a value of the column."""
        return value

    def floor(self, moment: datetime) -> datetime:
        """The start of the bucket that contains a time.

        Raises:
            OverflowError: before the year 1.
        """
        return bucket_floor(self.width, moment)

    def end(self, start: datetime) -> datetime:
        """The start of the next bucket; the last moment of the year 9999 if that is later."""
        return start + self.width if self.width < _LATEST - start else _LATEST

    def count(self, start: datetime, end: datetime) -> int:
        """The number of buckets that [start, end) touches."""
        return bucket_count(self.width, start, end)

    def starts(self, start: datetime, end: datetime) -> list[datetime]:
        """The starts of the buckets that [start, end) touches.

        Raises:
            OverflowError: the first one is before the year 1.
        """
        return list(buckets_between(self.width, start, end))


@dataclass(frozen=True, slots=True)
class CalendarBuckets:
    """Buckets that begin with a day of a time zone: a number of days, or of months.

    A moment belongs to the date that clocks show. A day begins when clocks first show its date: at
    the first midnight if clocks are set back over midnight, and when clocks are set forward if they
    skip midnight.
    """

    zone: time_zones.TimeZone
    days: int | None = None
    months: int | None = None

    def column(self, moment: Any, start: datetime | None, end: datetime | None) -> Label[Any]:
        """The column ``bucket`` for the moments of another column, in [start, end)."""
        local = time_zones.local_times(self.zone, moment, start, end)
        if self.months is not None:
            unit = next(unit for unit, months in _MONTHS.items() if months == self.months)
            first: ColumnElement[datetime] = func.date_trunc(literal(unit), local, type_=DateTime())
        else:
            width = literal(timedelta(days=self.days or 1), Interval())
            origin = literal(_LOCAL_ORIGIN, DateTime())
            first = func.date_bin(width, local, origin, type_=DateTime())
        if isinstance(self.zone, str):
            first = time_zones.first_instant_by_server(self.zone, first)
        elif start is None or end is None:
            # For rows at the ends of the years 1 and 9999, the local year may be out of range.
            lowest, highest = (literal(bound, DateTime()) for bound in _LOCAL_BOUNDS)
            first = func.least(func.greatest(first, lowest), highest)
        return first.label("bucket")

    def read(self, value: datetime) -> datetime:
        """The start of a bucket, from a value of the column."""
        if value.tzinfo is not None:
            return value
        try:
            return time_zones.first_instant(self._zone, value)
        except OverflowError:
            return _EARLIEST if value.year == 1 else _LATEST

    def floor(self, moment: datetime) -> datetime:
        """The start of the bucket that contains a time.

        Raises:
            OverflowError: before the year 1.
        """
        return self._start(self._number(moment))

    def end(self, start: datetime) -> datetime:
        """The start of the next bucket; the last moment of the year 9999 if that is later."""
        number = self._number(start)
        try:
            while True:
                number += 1
                # Clocks may skip whole days. Such a day is not a bucket.
                if (found := self._start(number)) > start:
                    return found
        except (OverflowError, ValueError):
            return _LATEST

    def count(self, start: datetime, end: datetime) -> int:
        """The number of buckets that [start, end) touches, and of those skipped by clocks there."""
        if start >= end:
            return 0
        return self._number(end - timedelta.resolution) - self._number(start) + 1

    def starts(self, start: datetime, end: datetime) -> list[datetime]:
        """The starts of the buckets that [start, end) touches.

        Raises:
            OverflowError: the first one is before the year 1.
        """
        found = []
        following = self.floor(start) if start < end else end
        while following < end:
            found.append(following)
            following = self.end(following)
        return found

    @property
    def _zone(self) -> tzinfo:
        if isinstance(self.zone, str):
            rule = "is not known to Python: install tzdata"
            raise ValidationError("time_zone", self.zone.removeprefix(":"), rule)
        return self.zone

    def _number(self, moment: datetime) -> int:
        try:
            local = time_zones.local_time(self._zone, moment)
        except OverflowError:
            if moment.year == 1:
                raise
            local = datetime.max  # noqa: DTZ901 - clocks show the year 10000 already
        if self.months is not None:
            return (local.year * 12 + local.month - 1) // self.months
        return (local - _LOCAL_ORIGIN).days // (self.days or 1)

    def _start(self, number: int) -> datetime:
        if self.months is not None:
            year, month = divmod(number * self.months, 12)
            local = datetime(year, month + 1, 1)  # noqa: DTZ001 - local time of the zone
        else:
            local = _LOCAL_ORIGIN + number * timedelta(days=self.days or 1)
        return time_zones.first_instant(self._zone, local)


# Buckets with a start and an end.
Buckets = EqualBuckets | CalendarBuckets


def buckets_of(size: BucketSize, zone_name: str | None = None) -> Buckets:
    """The buckets of a size.

    Args:
        size: ``bucket_size_secs``: the width in seconds or as a timedelta, or a unit of the
            calendar.
        zone_name: ``time_zone``: the time zone in which days begin, such as "Asia/Tokyo"; UTC
            without one.

    Raises:
        ValidationError: the size is invalid, a time zone is given and the width is not a number of
            whole days, or there is no such time zone.
    """
    zone = time_zones.time_zone(zone_name)
    if isinstance(size, str):
        validation.choice("bucket_size_secs", size, CALENDAR_UNITS)
        if size in _MONTHS:
            return CalendarBuckets(zone or UTC, months=_MONTHS[size])
        size = _DAYS[size] * _DAY
    width = validation.bucket("bucket_size_secs", size)
    if zone is None:
        return EqualBuckets(width)
    if width % _DAY:
        # When clocks are set back, an hour repeats, and both would be counted in one bucket.
        rule = "must be whole days (86400 seconds) in a time zone"
        raise ValidationError("bucket_size_secs", size, rule)
    return CalendarBuckets(zone, days=width.days)


def buckets_or_whole(size: BucketSize | None, zone_name: str | None) -> Buckets | WholeRange:
    """The `buckets_of` a size; without a size, the whole range of the query."""
    if size is not None:
        return buckets_of(size, zone_name)
    if zone_name is not None:
        raise ValidationError("time_zone", zone_name, "needs bucket_size_secs")
    return WholeRange()
