"""The metrics of a time series, and the conditions that select their points."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Text, and_, any_, cast, func, literal, literal_column, or_
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from observatory_storage.errors import ValidationError
from observatory_storage.models import Metric, MetricDataPoint
from observatory_storage.repositories.metrics.filters import TimeSeriesQuery
from observatory_storage.repositories.metrics.running_totals import Point, hashable

__all__ = ["DISTRIBUTIONS", "Selection"]

DISTRIBUTIONS: Final = ("histogram", "exponential_histogram", "summary")
_HISTOGRAMS: Final = {"histogram", "exponential_histogram"}
_POINT: Final = MetricDataPoint


class Selection:
    """The metrics of one query. They can be aggregated together.

    Raises:
        ValidationError: the metrics are of several types or units.
    """

    def __init__(self, metrics: Sequence[Metric], query: TimeSeriesQuery) -> None:
        self.metrics = metrics
        self._query = query
        types = sorted({metric.metric_type for metric in metrics})
        if len(types) > 1 and not _HISTOGRAMS.issuperset(types):
            rule = f"names metrics of several types ({', '.join(types)}): give metric_type"
            raise ValidationError("name", query.name, rule)
        units = sorted({metric.unit for metric in metrics if metric.unit})
        if len(units) > 1:
            rule = f"names metrics of several units ({', '.join(units)}): give a metric_id"
            raise ValidationError("name", query.name, rule)
        self._resources = {metric.id: _resource(metric) for metric in metrics}

    @property
    def metric_type(self) -> str:
        """The type of the metrics; one of the two types if both kinds of histograms are mixed."""
        return self.metrics[0].metric_type

    @property
    def is_of_one(self) -> bool:
        """Whether there is only one metric."""
        return len(self.metrics) == 1

    @property
    def temporalities(self) -> set[str | None]:
        """The temporalities of the metrics."""
        return {metric.temporality for metric in self.metrics}

    def totals(self) -> list[Metric]:
        """The metrics whose points are running totals."""
        return [metric for metric in self.metrics if _is_total(metric)]

    def others(self) -> list[Metric]:
        """The metrics whose points are not running totals."""
        return [metric for metric in self.metrics if not _is_total(metric)]

    def points_of(self, metrics: Iterable[Metric]) -> ColumnElement[bool]:
        """The condition for points of these metrics that have the query's attributes."""
        wanted = self._query.attributes or {}
        by_rest: dict[Any, tuple[dict[str, Any], list[UUID]]] = {}
        for metric in metrics:
            has = self._resources[metric.id]
            rest = {
                key: value
                for key, value in wanted.items()
                if key not in has or hashable(has[key]) != hashable(value)
            }
            by_rest.setdefault(hashable(rest), (rest, []))[1].append(metric.id)
        return or_(*(_has(ids, rest) for rest, ids in by_rest.values()))

    def group_key(self, key: str) -> ColumnElement[Any]:
        """The value by which a point is grouped; NULL if the point has none."""
        # An attribute that is null belongs to the same group as a missing one.
        null = literal_column("'null'::jsonb", JSONB())
        value = func.nullif(_POINT.attributes[key], null, type_=JSONB())
        of_metrics = {
            str(metric_id): has[key]
            for metric_id, has in self._resources.items()
            if has.get(key) is not None
        }
        if not of_metrics:
            return value
        at_metric = literal(of_metrics, JSONB()).op("->", return_type=JSONB())
        of_metric = at_metric(cast(_POINT.metric_id, Text))
        return func.coalesce(value, of_metric, type_=JSONB())

    def metric_of(self, point: Point) -> UUID:
        """The id of a point's metric."""
        return point.metric_id or self.metrics[0].id

    def group_of(self, point: Point) -> dict[str, Any]:
        """The group of a point."""
        if not self._query.group_by:
            return {}
        has, group = self._resources[self.metric_of(point)], {}
        for key in self._query.group_by:
            value = point.attributes.get(key)
            group[key] = has.get(key) if value is None else value
        return group


def _is_total(metric: Metric) -> bool:
    return metric.temporality == "cumulative" or metric.metric_type == "summary"


def _resource(metric: Metric) -> dict[str, Any]:
    return {"service_name": metric.service_name, **metric.resource_attributes}


def _has(ids: list[UUID], attributes: dict[str, Any]) -> ColumnElement[bool]:
    one = _POINT.metric_id.type
    of_metrics = (
        _POINT.metric_id == ids[0]
        if len(ids) == 1
        else _POINT.metric_id == any_(literal(ids, ARRAY(one)))
    )
    return and_(of_metrics, _POINT.attributes.contains(attributes)) if attributes else of_metrics
