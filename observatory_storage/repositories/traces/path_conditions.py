"""Conditions of operators on the attributes of spans, such as several values for a key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, or_

from observatory_storage.models import Trace, TraceEvent, TraceSpan
from observatory_storage.repositories.reading.attribute_paths import (
    has_path,
    paths_given,
    some_has_path,
    with_operators,
)
from observatory_storage.repositories.reading.filter_fields import Given
from observatory_storage.repositories.traces.json_conditions import (
    JsonCondition,
    attribute_conditions,
    attribute_parameters,
)

__all__ = ["PathCondition", "conditions_of_attributes", "parameters_of_attributes"]


@dataclass(frozen=True, slots=True)
class PathCondition:
    """A path in the attributes of a span, of its resource or scope, or of its links or events."""

    path: Any

    def on_span(self) -> ColumnElement[bool]:
        return or_(
            has_path(TraceSpan.attributes, self.path),
            has_path(TraceSpan.resource_attributes, self.path),
            has_path(TraceSpan.scope_attributes, self.path),
            some_has_path(TraceSpan.links, self.path),
        )

    def on_event(self) -> ColumnElement[bool]:
        return has_path(TraceEvent.attributes, self.path)

    def on_trace(self, trace: type[Trace] = Trace) -> ColumnElement[bool]:
        return or_(*(has_path(c, self.path) for c in (trace.attributes, trace.resource_attributes)))


parameters_of_attributes = with_operators(attribute_parameters)


def conditions_of_attributes(given: Given) -> list[JsonCondition]:
    """The conditions of all attributes that are given."""
    return [*attribute_conditions(given), *map(PathCondition, paths_given(given))]
