"""Searches a time range slice by slice, which is fast for rare and for frequent values.

For a frequent value it is fastest to read rows in order of time and check each; for a rare value,
to use an index. No statistics say how frequent a value is. Therefore the range is searched in
slices, each twice as wide as the one before, until the page is full. If a slice has few candidates,
they are sorted. If it has many, the slice is halved; a slice of one day is read in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final, TypeVar

__all__ = ["moment_after", "slices", "through_slices", "until_full"]

T = TypeVar("T")

# Takes start, end and limit; returns at most `limit` rows of [start, end), in the list's order.
Walk = Callable[[datetime, datetime, int], list[T]]
# The same as `Walk`, but returns None if there are too many candidates.
LookUp = Callable[[datetime, datetime, int], list[T] | None]

_DAY: Final = timedelta(days=1)
_MICROSECOND: Final = timedelta(microseconds=1)


def through_slices(
    start: datetime,
    end: datetime,
    limit: int,
    look_up: LookUp[T],
    walk: Walk[T],
    *,
    descending: bool,
) -> list[T]:
    """The first rows of [start, end); if descending, beginning at the end.

    Args:
        look_up: finds the rows of a slice by an index.
        walk: finds them by reading rows in order.
    """

    def of_slice(start: datetime, end: datetime, row_limit: int) -> list[T]:
        found = look_up(start, end, row_limit)
        if found is not None:
            return found
        if end - start <= _DAY:
            return walk(start, end, row_limit)
        middle = _middle(start, end)
        halves = ((start, middle), (middle, end))
        return through(halves[::-1] if descending else halves, row_limit)

    def through(ranges: Iterable[tuple[datetime, datetime]], row_limit: int) -> list[T]:
        return until_full((partial(of_slice, *one) for one in ranges), row_limit)

    # In UTC, so that days always have 24 hours.
    whole = start.astimezone(UTC), end.astimezone(UTC)
    return through(slices(*whole, descending=descending), limit)


def until_full(steps: Iterable[Callable[[int], list[T]]], row_limit: int) -> list[T]:
    """The rows of the steps, one step after the other, until there are `row_limit` rows.

    Args:
        steps: each takes a number of rows, and returns at most that many.
    """
    rows: list[T] = []
    for step in steps:
        if len(rows) == row_limit:
            break
        rows += step(row_limit - len(rows))
    return rows


def slices(
    start: datetime, end: datetime, *, descending: bool
) -> Iterator[tuple[datetime, datetime]]:
    """Half-open slices that cover [start, end); if descending, beginning at the end."""
    width = _DAY
    while end > start:
        low, high = start, end
        if end - start > width:  # slices begin with days, as partitions do
            if descending:
                low = _day_of(end - _MICROSECOND) - (width - _DAY)
            else:
                high = _day_of(start) + width
        yield low, high
        start, end, width = (start, low, 2 * width) if descending else (high, end, 2 * width)


def moment_after(moment: datetime) -> datetime | None:
    """The next microsecond; None after the last one that a datetime holds."""
    try:
        return moment + _MICROSECOND
    except OverflowError:
        return None


def _day_of(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


def _middle(start: datetime, end: datetime) -> datetime:
    middle = start + (end - start) / 2
    return _day_of(middle) if end - start > 2 * _DAY else middle
