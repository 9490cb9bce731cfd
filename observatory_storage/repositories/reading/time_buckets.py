"""Buckets of time: all have one width, and every query counts them from the same origin.

So the bounds of a bucket depend neither on the requested range nor on the session's time zone.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from sqlalchemy import ColumnElement, DateTime, Label, func, literal
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.types import Interval

from observatory_storage.errors import ValidationError
from observatory_storage.repositories.reading import validation

__all__ = [
    "BucketSize",
    "bucket_column",
    "bucket_count",
    "bucket_floor",
    "bucket_start",
    "buckets_between",
]

# A Monday at midnight, so that weeks begin on Mondays (ISO 8601), and days at midnight.
_ORIGIN: Final = datetime(1970, 1, 5, tzinfo=UTC)
_LOCAL_ORIGIN: Final = datetime(1970, 1, 5)  # noqa: DTZ001 - local time of any time zone
_DAY: Final = timedelta(days=1)

# Seconds, or a timedelta.
BucketSize = validation.Number | timedelta


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


def bucket_column(
    moment: ColumnElement[Any] | InstrumentedAttribute[Any],
    bucket_size_secs: BucketSize | None,
    time_zone: str | None = None,
) -> Label[Any]:
    """The column ``bucket``: the start of the bucket of a time; NULL without buckets.

    Args:
        time_zone: the time zone in which days begin, such as "Asia/Tokyo".

    Raises:
        ValidationError: the bucket width is invalid, a time zone is given and the width is not a
            number of whole days, or there is no such time zone.
    """
    zone = _time_zone(time_zone)
    if bucket_size_secs is None:
        if zone is not None:
            raise ValidationError("time_zone", time_zone, "needs bucket_size_secs")
        return literal(None, DateTime(timezone=True)).label("bucket")
    width = validation.bucket("bucket_size_secs", bucket_size_secs)
    if zone is None:
        return bucket_start(width, moment).label("bucket")
    if width % _DAY:
        # When clocks are set back, an hour repeats, and both would be counted in one bucket.
        rule = "must be whole days (86400 seconds) in a time zone"
        raise ValidationError("bucket_size_secs", bucket_size_secs, rule)
    local = func.date_bin(
        literal(width, Interval()),
        func.timezone(zone, moment),
        literal(_LOCAL_ORIGIN, DateTime()),
    )
    return func.timezone(zone, local, type_=DateTime(timezone=True)).label("bucket")


def _time_zone(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, ZoneInfo) and value.key is not None:
        return value.key
    if not isinstance(value, str):
        raise ValidationError("time_zone", value, "must be a name, as 'Asia/Tokyo'")
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        # If Python has no time zone data, the server checks the name.
        if available_timezones() or not value.isascii():
            raise ValidationError("time_zone", value, "is not the name of a time zone") from None
    return value
