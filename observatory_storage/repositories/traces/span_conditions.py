"""The conditions of trace and span filters in SQL: on spans, on traces, and on JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, false

from observatory_storage.models import Trace, TraceSpan
from observatory_storage.repositories.reading.filter_fields import (
    Condition,
    Conditions,
    FieldRule,
    Given,
    filter_field,
    within,
)
from observatory_storage.repositories.traces.json_conditions import (
    JsonCondition,
    on_span_or_events,
)

__all__ = ["SpanConditions", "SpanFieldRule", "span_field"]


@dataclass(frozen=True, slots=True)
class SpanFieldRule(FieldRule):
    """The meaning of a filter field for spans (`condition`) and for their traces.

    Args:
        spanless: the condition on a trace without spans; None if `traces` has no such column, so
            that such a trace never matches.
        implied: a condition that the row of every trace with a matching span meets. It reduces the
            number of traces whose spans are read.
        json: conditions on the JSON of a span, of its events or of a trace without spans.
        is_indexed: whether an index contains the spans by this column and their start.
    """

    spanless: Condition | None = None
    implied: Condition | None = None
    json: Callable[[Given], list[JsonCondition]] | None = None
    is_indexed: bool = False


def span_field(
    check: Callable[[str, Any], Any],
    condition: Condition,
    *,
    spanless: bool | Condition = False,
    implied: bool | Condition = False,
    **meaning: Any,
) -> Any:
    """A field of span filters; see `SpanFieldRule`.

    Args:
        spanless, implied: True to use the condition itself, if `traces` has the column too.
    """

    def chosen(given: bool | Condition) -> Condition | None:
        if isinstance(given, bool):
            return condition if given else None
        return given

    meaning |= {"spanless": chosen(spanless), "implied": chosen(implied)}
    return filter_field(check, condition, kind=SpanFieldRule, **meaning)


class SpanConditions:
    """The conditions of filters.

    Args:
        rules: the rules of the filters' fields.
        given: the bind parameters of the fields that are set.
    """

    __slots__ = ("_given", "_rules", "needs_a_span")

    def __init__(self, rules: Mapping[str, SpanFieldRule], given: Given) -> None:
        self._rules = rules.values()
        self._given = given
        self.needs_a_span = any(
            name in given and rule.json is None and rule.spanless is None
            for name, rule in rules.items()
        )

    def all(self) -> Conditions:
        """The conditions on `TraceSpan`, all of which one span must meet."""
        bounds = self._given.get("start_time"), self._given.get("end_time")
        return [*self.plain(), *(on_span_or_events(one, *bounds) for one in self.json())]

    def plain(self) -> Conditions:
        """The conditions on columns that are not JSON."""
        return self._on(TraceSpan, *(rule.condition for rule in self._rules))

    def json(self) -> list[JsonCondition]:
        """The conditions on the JSON of the span or of one of its events."""
        return [one for rule in self._rules if rule.json for one in rule.json(self._given)]

    def spanless(self, trace: type[Trace] = Trace) -> ColumnElement[bool]:
        """The conditions that a trace has no spans and matches by its own row."""
        if self.needs_a_span:
            return false()
        own = self._on(trace, *(rule.spanless for rule in self._rules))
        in_json = (one.on_trace(trace) for one in self.json())
        return and_(trace.lead_span_id.is_(None), *own, *in_json)

    def implied(self, trace: type[Trace] = Trace) -> Conditions:
        """The conditions that the row of every matching trace meets."""
        return self._on(trace, *(rule.implied for rule in self._rules))

    def begun(self, trace: type[Trace] = Trace) -> Conditions:
        """The condition that a trace begins before the time range ends."""
        return within(trace.start_time, None, self._given.get("end_time"))

    def of_service(self) -> Conditions:
        """The conditions on a span's service and time, which one index serves."""
        bounds = self._given.get("start_time"), self._given.get("end_time")
        of_service = TraceSpan.service_name == self._given["service_name"]
        return [of_service, *within(TraceSpan.start_time, *bounds)]

    def _on(self, row: type[Trace | TraceSpan], *conditions: Condition | None) -> Conditions:
        return [each for one in conditions if one for each in one(row, self._given)]
