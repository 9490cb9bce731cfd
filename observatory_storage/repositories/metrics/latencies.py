"""Percentiles of the durations of spans, from the spans or from rollups."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import func, select

from observatory_storage.models import (
    LatencyRollupDay,
    LatencyRollupHour,
    SpanRollupMinute,
    TraceSpan,
)
from observatory_storage.repositories.metrics.duration_histogram import (
    ZERO_CELL,
    DurationHistogram,
    cell_of,
)
from observatory_storage.repositories.metrics.results import LatencyPercentiles
from observatory_storage.repositories.metrics.rollup_families import rolled_conditions
from observatory_storage.repositories.reading import aggregates, time_buckets
from observatory_storage.repositories.reading.filter_fields import Conditions
from observatory_storage.repositories.reading.reader import Reader, fenced
from observatory_storage.repositories.reading.rollup_pieces import (
    Pieces,
    Source,
    Unit,
    pieces_of,
    within_any,
)
from observatory_storage.repositories.reading.weights import (
    are_weighted,
    distribution,
    weighted_count,
)
from observatory_storage.repositories.traces.filters import SpanFilters
from observatory_storage.repositories.traces.statistics import DURATION_US

__all__ = ["latency_percentiles"]

_HISTOGRAM: Final = (
    *("duration_indexes", "duration_counts", "duration_zeros"),
    *("duration_min_us", "duration_max_us"),
)
_ANSWER: Final = ("duration_count", *(f"{name}_us" for name in aggregates.PERCENTILES))

_ROLLUPS: Final[dict[Unit, Any]] = {
    "minute": SpanRollupMinute,
    "hour": LatencyRollupHour,
    "day": LatencyRollupDay,
}


def latency_percentiles(
    reader: Reader, filters: SpanFilters, buckets: time_buckets.Buckets, source: str
) -> list[LatencyPercentiles]:
    """Percentiles of durations by bucket; see `MetricRepository.get_latency_percentiles`."""
    pieces = None
    if source != "raw":
        pieces = pieces_of(
            reader, filters.start_time, filters.end_time, buckets, ("minute", "hour", "day")
        )
    if pieces is not None:
        return _rolled(reader, filters, buckets, pieces)
    return _exact(reader, filters, buckets, filters.conditions())


def _exact(
    reader: Reader,
    filters: SpanFilters,
    buckets: time_buckets.Buckets,
    conditions: Conditions,
) -> list[LatencyPercentiles]:
    """Percentiles of the spans themselves."""
    bucket = buckets.column(TraceSpan.start_time, filters.start_time, filters.end_time)
    conditions = [*conditions, TraceSpan.duration_us.is_not(None)]
    records = reader.records(
        select(
            bucket,
            weighted_count(TraceSpan.sample_weight).label("span_count"),
            are_weighted(TraceSpan.sample_weight).label("are_weighted"),
            aggregates.percentile_array(DURATION_US).label("percentiles"),
        )
        .where(*conditions)
        .group_by("bucket")
        .order_by("bucket")
    )
    found = []
    weighted: dict[Any, dict[str, Any]] = {}
    if any(record["are_weighted"] for record in records):
        values = select(
            bucket, DURATION_US.label("value"), TraceSpan.sample_weight.label("weight")
        ).where(*conditions)
        for record in reader.records(distribution(values.subquery("spans"), ["bucket"])):
            weighted[record["bucket"]] = {
                f"{name}_us": record[name] for name in aggregates.PERCENTILES
            }
    for record in records:
        columns = aggregates.with_percentiles(record, "_us")
        if columns.pop("are_weighted"):
            # Another transaction may have deleted the spans between the two statements.
            columns |= weighted.get(columns["bucket"], {})
        timestamp = buckets.read(columns.pop("bucket"))
        found.append(LatencyPercentiles(timestamp=timestamp, **columns))
    return found


def _rolled(
    reader: Reader, filters: SpanFilters, buckets: time_buckets.Buckets, pieces: Pieces
) -> list[LatencyPercentiles]:
    histograms: dict[datetime, DurationHistogram] = {}
    sources: dict[datetime, set[Source]] = {}

    def note(bucket: datetime, source: Source) -> DurationHistogram:
        sources.setdefault(bucket, set()).add(source)
        return histograms.setdefault(bucket, DurationHistogram())

    if pieces.raw:
        of_spans = select(
            buckets.column(TraceSpan.start_time, filters.start_time, filters.end_time),
            DURATION_US.label("took"),
            TraceSpan.sample_weight,
        ).where(
            within_any(TraceSpan.start_time, pieces.raw),
            *rolled_conditions(filters, TraceSpan),
            TraceSpan.duration_us.is_not(None),
        )
        spans = fenced(of_spans, is_sharded=reader.is_sharded).subquery("spans").c
        cell = cell_of(spans.took).label("cell")
        counted = select(
            spans.bucket,
            cell,
            weighted_count(spans.sample_weight),
            func.min(spans.took),
            func.max(spans.took),
        ).group_by(spans.bucket, "cell")
        for bucket, index, count, least, greatest in reader.rows(counted):
            zeros = count if index == ZERO_CELL else 0
            indexes = [] if zeros else [index]
            note(bucket, "raw").add(indexes, [count][: len(indexes)], zeros, least, greatest)
    found: list[LatencyPercentiles] = []
    for unit, ranges in pieces.rolled.items():
        model = _ROLLUPS[unit]
        is_answer = _is_one_row(filters, buckets, unit)
        columns = _ANSWER if is_answer else _HISTOGRAM
        rows = select(
            buckets.column(model.bucket, filters.start_time, filters.end_time),
            *(getattr(model, column) for column in columns),
        ).where(
            within_any(model.bucket, ranges),
            model.duration_count > 0,
            *rolled_conditions(filters, model),
        )
        if unit != "minute":
            has_names = filters.operation is not None
            has_services = has_names or filters.service_name is not None
            rows = rows.where(
                model.service_name.is_not(None) if has_services else model.service_name.is_(None),
                model.name.is_not(None) if has_names else model.name.is_(None),
            )
        if is_answer:
            for bucket, count, p50, p90, p95, p99 in reader.rows(rows):
                timestamp = buckets.read(bucket)
                found.append(LatencyPercentiles(timestamp, count, p50, p90, p95, p99, "rollup"))
            continue
        for bucket, *values in reader.rows(rows):
            note(bucket, "rollup").add(*values)
    if {"raw"} in sources.values():  # what no rollup is part of is exact
        conditions = [within_any(TraceSpan.start_time, pieces.raw)]
        conditions += rolled_conditions(filters, TraceSpan)
        exact = _exact(reader, filters, buckets, conditions)
        mixed = {buckets.read(bucket) for bucket, names in sources.items() if names != {"raw"}}
        found += [each for each in exact if each.timestamp not in mixed]
    for bucket, histogram in histograms.items():
        names = sources[bucket]
        if names == {"raw"}:
            continue
        record = {"percentiles": histogram.percentiles(), "span_count": histogram.count}
        found.append(
            LatencyPercentiles(
                timestamp=buckets.read(bucket),
                source="both" if len(names) > 1 else next(iter(names)),
                **aggregates.with_percentiles(record, "_us"),
            )
        )
    return sorted(found, key=lambda each: each.timestamp)


def _is_one_row(filters: SpanFilters, buckets: time_buckets.Buckets, unit: Unit) -> bool:
    """Whether a row of a rollup is the answer for its bucket, so that it has the percentiles."""
    if unit == "minute" or not isinstance(buckets, time_buckets.EqualBuckets):
        return False
    service, name = filters.service_name, filters.operation
    is_whole = buckets.width == (timedelta(hours=1) if unit == "hour" else timedelta(days=1))
    is_named = isinstance(service, str | None) and isinstance(name, str | None)
    return is_whole and is_named and (name is None or service is not None)
