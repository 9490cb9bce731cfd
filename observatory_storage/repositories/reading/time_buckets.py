"""Buckets of time: of one width each, counted from one origin for every query.

So the same bucket has the same bounds whatever range it is asked for with, and whatever the
session's time zone is.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, func, literal
from sqlalchemy.types import Interval

__all__ = ["bucket_count", "bucket_floor", "bucket_start", "buckets_between"]

# A Monday, so that weeks begin on Mondays (ISO 8601); days, hours and minutes begin as they should.
_ORIGIN: Final = datetime(1970, 1, 5, tzinfo=UTC)


def bucket_start(width: timedelta, moment: Any) -> ColumnElement[datetime]:
    """Where the bucket of time begins that a moment lies in, in SQL."""
    return func.date_bin(literal(width, Interval()), moment, literal(_ORIGIN, moment.type))


def bucket_floor(width: timedelta, moment: datetime) -> datetime:
    """Where the bucket of time begins that a moment lies in.

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
    """Where each bucket that [start, end) touches begins."""
    first = bucket_floor(width, start)
    for number in range(bucket_count(width, start, end)):
        yield first + number * width
