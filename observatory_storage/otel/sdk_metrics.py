"""Metrics of the SDK as messages of OTLP, from which `otlp` makes rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import (
    Buckets,
    ExponentialHistogram,
    ExponentialHistogramDataPoint,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    Sum,
)

from observatory_storage.errors import ValidationError
from observatory_storage.otel.sdk_values import plain_attributes
from observatory_storage.otlp import message_types

__all__ = ["metric_message"]


def metric_message(metric: Metric) -> message_types.Metric:
    """The message of a metric with its data points.

    Raises:
        ValidationError: the metric has data of an unknown kind, or a value is nested too deeply.
        Exception: the metric is not as the SDK makes metrics.
    """
    message = message_types.Metric(
        name=metric.name, description=metric.description or "", unit=metric.unit or ""
    )
    data: Any = metric.data
    if isinstance(data, Gauge):
        message.gauge = _data(map(_number, data.data_points))
    elif isinstance(data, Sum):
        message.sum = _data(
            map(_number, data.data_points), data.aggregation_temporality, data.is_monotonic
        )
    elif isinstance(data, Histogram):
        message.histogram = _data(map(_histogram, data.data_points), data.aggregation_temporality)
    elif isinstance(data, ExponentialHistogram):
        message.exponential_histogram = _data(
            map(_exponential, data.data_points), data.aggregation_temporality
        )
    else:
        kind = type(data).__name__
        raise ValidationError("data", kind, "must be a gauge, a sum or a histogram")
    return message


def _data(
    points: Iterable[Any], temporality: int = 0, is_monotonic: bool = False
) -> message_types.Data:
    return message_types.Data(
        data_points=list(points),
        aggregation_temporality=int(temporality),
        is_monotonic=is_monotonic,
    )


def _number(point: NumberDataPoint) -> message_types.NumberDataPoint:
    value = point.value
    is_whole = isinstance(value, int)
    return message_types.NumberDataPoint(
        attributes=plain_attributes(point.attributes, "attributes"),  # type: ignore[arg-type]  # read already
        start_time_unix_nano=point.start_time_unix_nano or 0,
        time_unix_nano=point.time_unix_nano,
        as_int=int(value) if is_whole else None,
        as_double=None if is_whole else float(value),
        exemplars=_exemplars(point.exemplars),
    )


def _histogram(point: HistogramDataPoint) -> message_types.HistogramDataPoint:
    return message_types.HistogramDataPoint(
        attributes=plain_attributes(point.attributes, "attributes"),  # type: ignore[arg-type]  # read already
        start_time_unix_nano=point.start_time_unix_nano or 0,
        time_unix_nano=point.time_unix_nano,
        count=point.count,
        sum=point.sum,
        bucket_counts=list(point.bucket_counts),
        explicit_bounds=list(point.explicit_bounds),
        exemplars=_exemplars(point.exemplars),
        min=point.min,
        max=point.max,
    )


def _exponential(
    point: ExponentialHistogramDataPoint,
) -> message_types.ExponentialHistogramDataPoint:
    return message_types.ExponentialHistogramDataPoint(
        attributes=plain_attributes(point.attributes, "attributes"),  # type: ignore[arg-type]  # read already
        start_time_unix_nano=point.start_time_unix_nano or 0,
        time_unix_nano=point.time_unix_nano,
        flags=point.flags,
        count=point.count,
        sum=point.sum,
        scale=point.scale,
        zero_count=point.zero_count,
        positive=_buckets(point.positive),
        negative=_buckets(point.negative),
        exemplars=_exemplars(point.exemplars),
        min=point.min,
        max=point.max,
    )


def _buckets(buckets: Buckets) -> message_types.Buckets | None:
    counts = list(buckets.bucket_counts)
    return message_types.Buckets(offset=buckets.offset, bucket_counts=counts) if counts else None


def _exemplars(exemplars: Sequence[Exemplar]) -> list[message_types.Exemplar]:
    return [_exemplar(one, index) for index, one in enumerate(exemplars)] if exemplars else []


def _exemplar(exemplar: Exemplar, index: int) -> message_types.Exemplar:
    value, span_id, trace_id = exemplar.value, exemplar.span_id, exemplar.trace_id
    is_whole = isinstance(value, int)
    has_span = span_id is not None and trace_id is not None
    return message_types.Exemplar(
        filtered_attributes=plain_attributes(  # type: ignore[arg-type]  # read already
            exemplar.filtered_attributes, f"exemplars[{index}].filteredAttributes"
        ),
        time_unix_nano=exemplar.time_unix_nano,
        as_int=int(value) if is_whole else None,
        as_double=None if is_whole else float(value),
        span_id=f"{span_id:016x}" if has_span else "",
        trace_id=f"{trace_id:032x}" if has_span else "",
    )
