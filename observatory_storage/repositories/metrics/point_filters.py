"""Filters of data points, for the live stream and the tail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypedDict
from uuid import UUID

from observatory_storage import ids
from observatory_storage.models import MetricDataPoint
from observatory_storage.repositories.reading import attribute_conditions, validation
from observatory_storage.repositories.reading.filter_fields import (
    Conditions,
    Filters,
    Given,
    at_least,
    before,
    equals,
    filter_field,
    limit_field,
)
from observatory_storage.repositories.reading.operators import Operator
from observatory_storage.repositories.reading.validation import AttributeFilter

__all__ = ["DataPointFilters", "DataPointKeywords"]

MetricId = str | UUID | Operator


class DataPointKeywords(TypedDict, total=False):
    """The fields of `DataPointFilters`, for methods that take them as keywords."""

    metric_id: MetricId | None
    start_time: datetime | None
    end_time: datetime | None
    attributes: Mapping[str, AttributeFilter] | None
    limit: int


def _has_attributes(point: Any, given: Given) -> Conditions:
    wanted = attribute_conditions.attributes_of("attributes", given)
    return [one.is_in(point.attributes) for one in wanted]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataPointFilters(Filters):
    """Selects the data points that meet every condition. A field that is None does not filter.

    Args:
        metric_id: the metric's id, UUID or text, or an operator such as `OneOf`.
        start_time: only points of this time or later.
        end_time: only points before this time.
        attributes: a mapping of attribute keys to text, numbers, bools or lists, which the point
            must have itself.
        limit: the maximum number of rows in a page.

    Raises:
        ValidationError: a value is of the wrong type or out of range, or a time has no zone.
    """

    metric_id: MetricId | None = filter_field(
        lambda field, value: ids.uuid_of(value, field), equals("metric_id")
    )
    start_time: datetime | None = filter_field(
        validation.moment, at_least("timestamp", "start_time")
    )
    end_time: datetime | None = filter_field(validation.moment, before("timestamp", "end_time"))
    attributes: Mapping[str, AttributeFilter] | None = filter_field(
        validation.attributes,
        _has_attributes,
        parameters=attribute_conditions.attribute_parameters,
        is_hashable=False,
    )
    limit: int = limit_field()

    def _check_together(self) -> None:
        validation.in_order(self.start_time, self.end_time)

    def listed(self) -> Any:
        return MetricDataPoint
