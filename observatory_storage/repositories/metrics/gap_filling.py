"""Adds the buckets in which nothing was measured, if a query asks for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from observatory_storage.errors import ValidationError
from observatory_storage.repositories.metrics.filters import MOST_FILLED, TimeSeriesQuery
from observatory_storage.repositories.metrics.results import TimeSeriesPoint
from observatory_storage.repositories.metrics.running_totals import hashable
from observatory_storage.repositories.reading.time_buckets import bucket_count, buckets_between

__all__ = ["fill_gaps"]


def fill_gaps(points: Sequence[TimeSeriesPoint], query: TimeSeriesQuery) -> list[TimeSeriesPoint]:
    """Every bucket of the range for each group that has a point, by time and group.

    Without ``group_by`` there is one group, even without points.

    Raises:
        ValidationError: there would be too many points.
    """
    groups: dict[Any, Mapping[str, Any]] = {} if query.group_by else {(): {}}
    values: dict[tuple[datetime, Any], float | None] = {}
    for point in points:
        key = hashable(point.group)
        groups.setdefault(key, point.group)
        values[point.timestamp, key] = point.value
    count = bucket_count(query.bucket, query.start_time, query.end_time)
    if count * len(groups) > MOST_FILLED:
        rule = (
            f"gives {len(groups)} groups of {count} buckets, and at most {MOST_FILLED} points"
            " are filled in: take wider buckets or fewer groups"
        )
        raise ValidationError("group_by", query.group_by, rule)
    ordered = sorted(groups.items(), key=lambda item: repr(item[1]))
    last: dict[Any, float | None] = {}
    result = []
    for start in buckets_between(query.bucket, query.start_time, query.end_time):
        for key, group in ordered:
            value = values.get((start, key))
            if value is None and query.fill == "zero":
                value = 0.0
            elif value is None and query.fill == "previous":
                value = last.get(key)
            last[key] = value
            result.append(TimeSeriesPoint(start, value, group))
    return result
