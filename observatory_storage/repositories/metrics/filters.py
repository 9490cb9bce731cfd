"""Filters of metrics, and the definition of a time series query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, TypedDict
from uuid import UUID

from observatory_storage import ids
from observatory_storage.errors import ValidationError
from observatory_storage.models import METRIC_TYPES, Metric
from observatory_storage.repositories.reading import time_buckets, validation
from observatory_storage.repositories.reading.aggregates import PERCENTILES
from observatory_storage.repositories.reading.empty_buckets import MOST_FILLED
from observatory_storage.repositories.reading.filter_fields import (
    Filters,
    equals,
    filter_field,
    limit_field,
)
from observatory_storage.repositories.reading.operators import TextFilter

__all__ = [
    "AGGREGATIONS",
    "FILLS",
    "MetricFilters",
    "MetricKeywords",
    "TimeSeriesKeywords",
    "TimeSeriesQuery",
]

AGGREGATIONS: Final = (
    *("avg", "sum", "min", "max", "count", "last", "rate", "increase"),
    *PERCENTILES,
)
FILLS: Final = ("null", "zero", "previous")


class MetricKeywords(TypedDict, total=False):
    """The fields of `MetricFilters`, for methods that take them as keywords."""

    service_name: TextFilter | None
    metric_type: TextFilter | None
    name: TextFilter | None
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricFilters(Filters):
    """Selects the metrics that meet every condition. A field that is None does not filter.

    The fields take the same operators as the fields of `TraceFilters`.

    Args:
        metric_type: ``counter``, ``updowncounter``, ``gauge``, ``histogram``,
            ``exponential_histogram`` or ``summary``.
        limit: the maximum number of rows in a page.

    Raises:
        ValidationError: a value is of the wrong type or out of range.
    """

    service_name: TextFilter | None = filter_field(validation.text, equals("service_name"))
    metric_type: TextFilter | None = filter_field(
        validation.one_of(METRIC_TYPES), equals("metric_type")
    )
    name: TextFilter | None = filter_field(validation.text, equals("name"))
    limit: int = limit_field()

    def listed(self) -> Any:
        return Metric


class TimeSeriesKeywords(TypedDict, total=False):
    """The fields of `TimeSeriesQuery`, for methods that take them as keywords."""

    metric_id: str | UUID | None
    start_time: datetime
    end_time: datetime
    aggregation: str
    bucket_size_secs: time_buckets.BucketSize
    group_by: str | Sequence[str]
    fill: str | None
    time_zone: str | None
    name: str | None
    service_name: TextFilter | None
    metric_type: TextFilter | None
    attributes: Mapping[str, str | float | bool] | None


# The times are required. They have a default because the first argument, the id, may be replaced by
# a name.
_REQUIRED: Final[Any] = None


@dataclass(frozen=True, slots=True)
class TimeSeriesQuery:
    """Selects the points of one metric, or of all metrics with the same name.

    `MetricRepository.query_time_series` explains the result.

    Args:
        metric_id: the metric's id, UUID or text. Give either this or `name`.
        start_time: only points of this time or later.
        end_time: only points before this time.
        aggregation: one of ``avg sum min max count last rate increase p50 p90 p95 p99``.
        bucket_size_secs: the width of a bucket of time, in seconds (may be a fraction) or as a
            timedelta; or ``"day"``, ``"week"`` (from Monday), ``"month"``, ``"quarter"`` or
            ``"year"``.
        group_by: an attribute key of the points, or several keys. Each combination of values is a
            group. If a point does not have the key, the attribute of its resource is used, such as
            ``service.instance.id``. ``service_name`` is the metric's service.
        fill: the value of buckets without points: ``"null"`` for None, ``"zero"``, or
            ``"previous"`` for the value of the last earlier bucket with a value (None if there is
            none). With ``fill``, the result has all buckets of every group that has a point in the
            range, at most 200,000 in total. Without ``group_by`` there is always one group, even
            without points. By default, buckets without points are absent. ``"previous"`` also looks
            before ``start_time``: for the latest point of the metrics, or, with ``group_by`` or
            ``attributes``, as far back as the range is long, at least an hour.
        time_zone: the time zone in which days begin, such as "Asia/Tokyo", in upper or lower case;
            UTC by default. With a time zone, buckets must be whole days or a unit of the calendar.
            A day on which the clocks change has 23 or 25 hours.
        name: the name of the metrics. Each service, and each instance of one, reports a metric of
            its own, and the points of all of them are aggregated together.
        service_name: only metrics of this service, or an operator such as `OneOf`. It needs `name`.
        metric_type: only metrics of this type, or an operator. It needs `name`.
        attributes: a mapping of attribute keys to text, numbers or bools. Each pair must be in the
            attributes of the point or of its resource.

    Raises:
        ValidationError: a value is of the wrong type or out of range, a time has no zone, or not
            exactly one of `metric_id` and `name` is given.
    """

    metric_id: str | UUID | None = None
    start_time: datetime = _REQUIRED
    end_time: datetime = _REQUIRED
    aggregation: str = "avg"
    bucket_size_secs: time_buckets.BucketSize = 60
    group_by: str | Sequence[str] = ()
    fill: str | None = None
    time_zone: str | None = None
    name: str | None = field(default=None, kw_only=True)
    service_name: TextFilter | None = field(default=None, kw_only=True)
    metric_type: TextFilter | None = field(default=None, kw_only=True)
    attributes: Mapping[str, str | float | bool] | None = field(
        default=None, kw_only=True, hash=False
    )

    def __post_init__(self) -> None:
        self._check_metrics()
        start, end = validation.required_times(self.start_time, self.end_time)
        self._keep("start_time", start)
        self._keep("end_time", end)
        validation.required_text("aggregation", self.aggregation)
        validation.choice("aggregation", self.aggregation, AGGREGATIONS)
        buckets = self.buckets
        try:
            buckets.floor(start)
        except OverflowError:
            rule = "must not make the first bucket begin before the year 1"
            raise ValidationError("bucket_size_secs", self.bucket_size_secs, rule) from None
        self._keep("group_by", validation.names("group_by", self.group_by))
        validation.choice("fill", self.fill, FILLS)
        if self.fill is not None and buckets.count(start, end) > MOST_FILLED:
            rule = f"must not make more than {MOST_FILLED} buckets in the range, to be filled in"
            raise ValidationError("bucket_size_secs", self.bucket_size_secs, rule)

    @property
    def buckets(self) -> time_buckets.Buckets:
        """The buckets, in the time zone."""
        return time_buckets.buckets_of(self.bucket_size_secs, self.time_zone)

    @property
    def metrics(self) -> MetricFilters:
        """The filters that select the metrics of the name."""
        return MetricFilters(
            name=self.name, service_name=self.service_name, metric_type=self.metric_type
        )

    @property
    def bucket(self) -> timedelta:
        """The width of a bucket.

        Raises:
            ValidationError: the buckets are of a unit of the calendar.
        """
        return validation.bucket("bucket_size_secs", self.bucket_size_secs)

    def _check_metrics(self) -> None:
        if self.name is None:
            for needs_name in ("service_name", "metric_type"):
                if getattr(self, needs_name) is not None:
                    raise ValidationError(needs_name, getattr(self, needs_name), "needs name")
            if self.metric_id is None:
                raise ValidationError("metric_id", None, "is required, or name")
            self._keep("metric_id", ids.uuid_of(self.metric_id, "metric_id"))
        elif self.metric_id is not None:
            raise ValidationError("name", self.name, "must not be given together with metric_id")
        if self.name is not None and not isinstance(self.name, str):
            raise ValidationError("name", self.name, "must be text")
        for column in ("name", "service_name", "metric_type"):
            self._keep(column, getattr(self.metrics, column))
        checked = validation.attributes("attributes", self.attributes)
        for key, value in (checked or {}).items():
            if not isinstance(value, (str, int, float)):
                rule = f"must have text, a number or a bool at {key!r}"
                raise ValidationError("attributes", value, rule)
        self._keep("attributes", checked)

    def _keep(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)
