"""Adds empty buckets to the results of queries with `fill`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final, Protocol, TypeVar

from observatory_storage.errors import ValidationError
from observatory_storage.repositories.reading import validation
from observatory_storage.repositories.reading.time_buckets import Buckets, WholeRange

__all__ = ["COUNT_FILLS", "MOST_FILLED", "buckets_within", "check_fill", "with_empty_buckets"]

# The values of `fill` for counts. ``previous`` is not among them: a repeated cost would be added up
# twice.
COUNT_FILLS: Final = ("null", "zero")
# The maximum number of rows with `fill`, more than any chart shows.
MOST_FILLED: Final = 200_000


class _Counted(Protocol):
    """A row of a result: the counts of one group in one bucket."""

    @property
    def timestamp(self) -> datetime | None: ...
    @property
    def group(self) -> Mapping[str, str | None]: ...


class _Range(Protocol):
    @property
    def start_time(self) -> datetime | None: ...
    @property
    def end_time(self) -> datetime | None: ...


R = TypeVar("R", bound=_Counted)


def check_fill(fill: str | None, buckets: Buckets | WholeRange) -> None:
    """Refuse a fill that is unknown, or that has no buckets to fill.

    Raises:
        ValidationError: the fill is unknown, or there are no buckets.
    """
    validation.choice("fill", fill, COUNT_FILLS)
    if fill is not None and isinstance(buckets, WholeRange):
        raise ValidationError("fill", fill, "needs bucket_size_secs")


def with_empty_buckets(
    rows: Sequence[R],
    buckets: Buckets | WholeRange,
    filters: _Range,
    group_by: str | Sequence[str],
    empty: Callable[[Mapping[str, str | None], datetime], R],
) -> list[R]:
    """The rows, with an empty row for each group and bucket of the range that has none.

    If the range has no start or end, the first or last row bounds it. Without ``group_by`` there is
    one group, even if there are no rows.

    Args:
        rows: sorted by bucket. Empty rows follow the rows of their bucket.
        filters: the filters of the query, which bound the range.
        empty: makes an empty row of a group and the start of a bucket.

    Raises:
        ValidationError: there would be too many rows.
    """
    assert not isinstance(buckets, WholeRange), "see check_fill"
    groups: dict[tuple[str | None, ...], Mapping[str, str | None]] = {}
    if not group_by:
        groups[()] = {}
    found: dict[datetime | None, dict[tuple[str | None, ...], R]] = {}
    for row in rows:
        key = tuple(row.group.values())
        groups.setdefault(key, row.group)
        found.setdefault(row.timestamp, {})[key] = row
    starts = [start for start in found if start is not None]
    start, end = filters.start_time, filters.end_time
    if start is None and starts:
        start = min(starts)
    if end is None and starts:
        end = buckets.end(max(starts))
    if start is None or end is None:
        return []
    # As in PostgreSQL, groups are sorted by code points, and groups without a value come last.
    ordered = sorted(groups, key=lambda key: [(name is None, name or "") for name in key])
    result: list[R] = []
    for bucket in buckets_within(buckets, start, end, len(groups), group_by):
        there = found.get(bucket, {})
        result.extend(there.values())
        result.extend(empty(groups[key], bucket) for key in ordered if key not in there)
    return result


def buckets_within(
    buckets: Buckets,
    start: datetime,
    end: datetime,
    group_count: int,
    group_by: str | Sequence[str],
) -> list[datetime]:
    """The starts of the buckets that [start, end) touches.

    Raises:
        ValidationError: there would be too many rows, or the first bucket begins before the year 1.
    """
    try:
        count = buckets.count(start, end)
        if count * max(group_count, 1) > MOST_FILLED:
            rule = (
                f"gives {group_count} groups of {count} buckets, and at most {MOST_FILLED} points"
                " are filled in: take wider buckets or fewer groups"
            )
            raise ValidationError("group_by", group_by, rule)
        return buckets.starts(start, end)
    except OverflowError:
        rule = "is too early for buckets of this size, which would begin before the year 1"
        raise ValidationError("start_time", start, rule) from None
