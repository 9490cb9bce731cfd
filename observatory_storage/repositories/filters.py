"""Which logs, metrics and points: frozen dataclasses in which None means any.

As with those of traces and spans, values and keys are literal, and time ranges half-open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import and_, or_

from observatory_storage import ids
from observatory_storage.errors import ValidationError
from observatory_storage.models import METRIC_TYPES, LogRecord, Metric
from observatory_storage.repositories import arguments
from observatory_storage.repositories.arguments import AttributeValue, Number
from observatory_storage.repositories.buckets import bucket_count, bucket_floor
from observatory_storage.repositories.conditions import Conditions, equal, put, within
from observatory_storage.repositories.text_search import has_substring, has_words

__all__ = [
    "AGGREGATIONS",
    "FILLS",
    "LEVELS",
    "MOST_FILLED",
    "LogFilters",
    "MetricFilters",
    "TimeSeriesQuery",
]

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
# The least severity number of each level of OpenTelemetry.
LEVELS: Final = {"TRACE": 1, "DEBUG": 5, "INFO": 9, "WARN": 13, "ERROR": 17, "FATAL": 21}


@dataclass(frozen=True, slots=True)
class LogFilters:
    """Which log records: those that meet every condition.

    Args:
        min_severity: a severity number (1 to 24) or the name of a level (``"WARN"``). A record
            without a severity number does not meet it.
        trace_id: hex text or UUID.
        start_time: records of this time or later.
        end_time: records before this time.
        attributes: keys to text, numbers or bools, each to be met by the record's own attributes,
            its resource's or its scope's.
        text: words that the body must have, as in a web search: all of them, ``"a phrase"``,
            ``or``, ``-not``, ``begin*``. Words are taken as written, without regard to case.
        contains: what the body must have in it, as it stands but for upper and lower case. No
            index helps: all bodies of the time range are read, so ``start_time`` must be given.
        limit: the most rows in a page.

    Raises:
        ValidationError: a value is of the wrong type or out of range, or a time has no zone.
    """

    service_name: str | None = None
    min_severity: int | str | None = None
    trace_id: str | UUID | None = None
    span_id: str | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    attributes: Mapping[str, AttributeValue] | None = None
    text: str | None = None
    limit: int = 50
    contains: str | None = None

    def __post_init__(self) -> None:
        put(self, "service_name", arguments.text("service_name", self.service_name))
        severity = arguments.severity("min_severity", self.min_severity, LEVELS)
        put(self, "min_severity", severity)
        if self.trace_id is not None:
            put(self, "trace_id", ids.trace_uuid(self.trace_id))
        if self.span_id is not None:
            put(self, "span_id", ids.span_id(self.span_id))
        start, end = arguments.times(self.start_time, self.end_time)
        put(self, "start_time", start)
        put(self, "end_time", end)
        put(self, "attributes", arguments.attributes("attributes", self.attributes))
        put(self, "text", arguments.search("text", self.text))
        put(self, "contains", arguments.substring("contains", self.contains))
        if self.contains is not None and start is None:
            raise ValidationError("start_time", None, "is required where contains is given")
        arguments.limit(self.limit)

    def conditions(self) -> Conditions:
        """The conditions on `LogRecord`."""
        found = equal(self, LogRecord.service_name, LogRecord.trace_id, LogRecord.span_id)
        if self.min_severity is not None:
            found.append(LogRecord.severity_number >= self.min_severity)
        found += within(LogRecord.timestamp, self.start_time, self.end_time)
        for key, value in (self.attributes or {}).items():
            pair = {key: value}
            found.append(
                or_(
                    LogRecord.attributes.contains(pair),
                    LogRecord.resource_attributes.contains(pair),
                    LogRecord.scope_attributes.contains(pair),
                )
            )
        if self.text is not None:
            words = has_words(LogRecord.search_vector(LogRecord.__table__.c.body), self.text)
            # The index has only rows with a body, and the planner wants to be told.
            found.append(and_(LogRecord.body.is_not(None), words))
        if self.contains is not None:
            found.append(has_substring(LogRecord.body, self.contains))
        return found


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
        put(self, "service_name", arguments.text("service_name", self.service_name))
        arguments.choice("metric_type", self.metric_type, METRIC_TYPES)
        put(self, "name", arguments.text("name", self.name))
        arguments.limit(self.limit)

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
        start, end = arguments.required_times(self.start_time, self.end_time)
        put(self, "start_time", start)
        put(self, "end_time", end)
        arguments.required_text("aggregation", self.aggregation)
        arguments.choice("aggregation", self.aggregation, AGGREGATIONS)
        width = arguments.bucket("bucket_size_secs", self.bucket_size_secs)
        try:
            bucket_floor(width, start)
        except OverflowError:
            rule = "must not make the first bucket begin before the year 1"
            raise ValidationError("bucket_size_secs", self.bucket_size_secs, rule) from None
        put(self, "group_by", arguments.names("group_by", self.group_by))
        arguments.choice("fill", self.fill, FILLS)
        if self.fill is not None and bucket_count(width, start, end) > MOST_FILLED:
            rule = f"must not make more than {MOST_FILLED} buckets in the range, to be filled in"
            raise ValidationError("bucket_size_secs", self.bucket_size_secs, rule)

    @property
    def bucket(self) -> timedelta:
        """The width of a bucket."""
        return arguments.bucket("bucket_size_secs", self.bucket_size_secs)
