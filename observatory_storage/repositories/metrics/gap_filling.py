"""Adds the buckets without points to a time series, if its query has `fill`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from observatory_storage.repositories.metrics.filters import TimeSeriesQuery
from observatory_storage.repositories.metrics.results import TimeSeriesPoint
from observatory_storage.repositories.metrics.running_totals import hashable
from observatory_storage.repositories.reading.empty_buckets import buckets_within

__all__ = ["fill_gaps"]

# Finds the points before the range, sorted by time. The last value of each group is repeated within
# the range.
LookBack = Callable[[], Sequence[TimeSeriesPoint]]


def fill_gaps(
    points: Sequence[TimeSeriesPoint],
    query: TimeSeriesQuery,
    look_back: LookBack = tuple,
) -> list[TimeSeriesPoint]:
    """Every bucket of the range for each group that has a point, by time and group.

    Without ``group_by`` there is one group, even without points.

    Args:
        look_back: called if a group has no value in the first bucket, and needs the previous one.

    Raises:
        ValidationError: there would be too many points.
    """
    groups: dict[Any, Mapping[str, Any]] = {} if query.group_by else {(): {}}
    values: dict[tuple[datetime, Any], float | None] = {}
    for point in points:
        key = hashable(point.group)
        groups.setdefault(key, point.group)
        values[point.timestamp, key] = point.value
    starts = buckets_within(
        query.buckets, query.start_time, query.end_time, len(groups), query.group_by
    )
    ordered = sorted(groups.items(), key=lambda item: repr(item[1]))
    last: dict[Any, float | None] = {}
    first = starts[:1] if query.fill == "previous" else []
    if any((start, key) not in values for start in first for key in groups):
        last.update((hashable(point.group), point.value) for point in look_back())
    result = []
    for start in starts:
        for key, group in ordered:
            value = values.get((start, key))
            if value is None and query.fill == "zero":
                value = 0.0
            elif value is None and query.fill == "previous":
                value = last.get(key)
            last[key] = value
            result.append(TimeSeriesPoint(start, value, group))
    return result
