"""Which metrics, and which series of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from observatory_storage import ids
from observatory_storage.errors import ValidationError
from observatory_storage.models import METRIC_TYPES, Metric
from observatory_storage.repositories.reading import validation
from observatory_storage.repositories.reading.conditions import Conditions, equal, put
from observatory_storage.repositories.reading.time_buckets import bucket_count, bucket_floor
from observatory_storage.repositories.reading.validation import Number

__all__ = ["AGGREGATIONS", "FILLS", "MOST_FILLED", "MetricFilters", "TimeSeriesQuery"]

AGGREGATIONS: Final = (
    "avg",
    "sum",
    "min",
    "max",
    "count",
    "last",
    "rate",
    "increase",
    "p50",
    "p90",
    "p95",
    "p99",
)
FILLS: Final = ("null", "zero", "previous")
# More points than this no chart shows.
MOST_FILLED: Final = 200_000


@dataclass(frozen=True, slots=True)
class MetricFilters:
    """Which metrics: those that meet every condition.

    Raises:
        ValidationError: a value is of the wrong type or out of range.
    """

    service_name: str | None = None
    metric_type: str | None = None
    name: str | None = None
    limit: int = 50

    def __post_init__(self) -> None:
        put(self, "service_name", validation.text("service_name", self.service_name))
        validation.choice("metric_type", self.metric_type, METRIC_TYPES)
        put(self, "name", validation.text("name", self.name))
        validation.limit(self.limit)

    def conditions(self) -> Conditions:
        """The conditions on `Metric`."""
        return equal(self, Metric.service_name, Metric.metric_type, Metric.name)


@dataclass(frozen=True, slots=True)
class TimeSeriesQuery:
    """One metric over time: see `MetricRepository.query_time_series`.

    Args:
        metric_id: the metric's id, UUID or text.
        start_time: points of this time or later.
        end_time: points before this time.
        aggregation: one of ``avg sum min max count last rate increase p50 p90 p95 p99``.
        bucket_size_secs: the width of a bucket of time in seconds; may be a fraction.
        group_by: keys of the points' attributes; each combination of values is a group.
        fill: what stands in buckets that have no value: ``"null"`` for None, ``"zero"``, or
            ``"previous"`` for the value of the bucket before (None where there was none yet). Then
            every group that has a point in the range has every bucket, 200,000 in all at most;
            without ``group_by`` there is one group, points or not. By default such buckets are
            absent.

    Raises:
        ValidationError: a value is of the wrong type or out of range, or a time has no zone.
    """

    metric_id: str | UUID
    start_time: datetime
    end_time: datetime
    aggregation: str = "avg"
    bucket_size_secs: Number = 60
    group_by: Sequence[str] = ()
    fill: str | None = None

    def __post_init__(self) -> None:
        put(self, "metric_id", ids.uuid_of(self.metric_id, "metric_id"))
        start, end = validation.required_times(self.start_time, self.end_time)
        put(self, "start_time", start)
        put(self, "end_time", end)
        validation.required_text("aggregation", self.aggregation)
        validation.choice("aggregation", self.aggregation, AGGREGATIONS)
        width = validation.bucket("bucket_size_secs", self.bucket_size_secs)
        try:
            bucket_floor(width, start)
        except OverflowError:
            rule = "must not make the first bucket begin before the year 1"
            raise ValidationError("bucket_size_secs", self.bucket_size_secs, rule) from None
        put(self, "group_by", validation.names("group_by", self.group_by))
        validation.choice("fill", self.fill, FILLS)
        if self.fill is not None and bucket_count(width, start, end) > MOST_FILLED:
            rule = f"must not make more than {MOST_FILLED} buckets in the range, to be filled in"
            raise ValidationError("bucket_size_secs", self.bucket_size_secs, rule)

    @property
    def bucket(self) -> timedelta:
        """The width of a bucket."""
        return validation.bucket("bucket_size_secs", self.bucket_size_secs)
