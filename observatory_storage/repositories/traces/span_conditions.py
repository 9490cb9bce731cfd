"""The conditions of trace and span filters in SQL: on spans, on traces, and on JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, false, or_, select, true

from observatory_storage.models import Trace, TraceSpan
from observatory_storage.repositories.reading import operators
from observatory_storage.repositories.reading.filter_fields import (
    Condition,
    Conditions,
    FieldRule,
    Given,
    filter_field,
    negated,
    within,
)
from observatory_storage.repositories.traces.json_conditions import (
    ContentCondition,
    JsonCondition,
    SpanKey,
    on_span_or_events,
)

__all__ = ["NO_BOUNDS", "Bounds", "SpanConditions", "SpanFieldRule", "span_field"]

# A start and an end, each of which may be a bind parameter or None.
Bounds = tuple[Any, Any]
NO_BOUNDS: Final[Bounds] = (None, None)


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
        by_trace: whether no span of the trace may have a negated value. Otherwise each span is
            compared by itself.
    """

    __slots__ = ("_by_trace", "_excluded", "_framed", "_given", "_rules", "needs_a_span")

    def __init__(self, rules: Mapping[str, SpanFieldRule], given: Given, *, by_trace: bool) -> None:
        self._rules = rules
        self._given = given
        self._excluded = operators.excluded(given)
        self._by_trace = by_trace
        self._framed: Mapping[str, Sequence[SpanKey]] | None = None
        self.needs_a_span = any(
            rule.json is None and rule.spanless is None and rule.condition(TraceSpan, given)
            for rule in rules.values()
        )

    def all(self, bounds: Bounds = NO_BOUNDS) -> Conditions:
        """The conditions on `TraceSpan`, all of which one span must meet.

        Args:
            bounds: leave out the partitions of spans that do not start within them.
        """
        of_json = self.bounds() if bounds is NO_BOUNDS else bounds
        json = (on_span_or_events(one, *of_json) for one in self.json())
        return [*self.plain(), *within(TraceSpan.start_time, *bounds), *json]

    def plain(self) -> Conditions:
        """The conditions on a span without those that `json` returns."""
        found = self._on(TraceSpan, *(rule.condition for rule in self._rules.values()))
        if self._excluded and not self._by_trace:
            found += [each.is_not(true()) for each in self._excluding(*self.bounds())]
        return found

    def json(self) -> list[JsonCondition]:
        """The conditions on the JSON of the span or of one of its events."""
        found = [
            one for rule in self._rules.values() if rule.json for one in rule.json(self._given)
        ]
        if self._framed is None:
            return found
        return [
            replace(one, framed=self._framed[one.name])
            if isinstance(one, ContentCondition)
            else one
            for one in found
        ]

    def with_framed(self, framed: Mapping[str, Sequence[SpanKey]]) -> SpanConditions:
        """The conditions, decided for rows with payload frames.

        Args:
            framed: by the name of each `ContentCondition`, the spans that meet it by frames.
        """
        found = copy(self)
        found._framed = framed
        return found

    def of_no_span(self, trace: type[Trace] = Trace, bounds: Bounds = NO_BOUNDS) -> Conditions:
        """The condition that a trace has no span with a negated value.

        It is a subquery with LIMIT, which is evaluated for each trace: to evaluate NOT EXISTS,
        PostgreSQL may read all spans.

        Args:
            bounds: all spans of these traces start within them.
        """
        if not self._excluded or not self._by_trace:
            return []
        span = select(true()).where(
            TraceSpan.trace_id == trace.id,
            TraceSpan.start_time >= trace.start_time,
            TraceSpan.start_time <= trace.last_span_start,
            *within(TraceSpan.start_time, *bounds),
            or_(*self._excluding(*bounds)),
        )
        # Not IS NULL, which the planner takes for so rare that it would read all traces.
        return [span.limit(1).correlate(trace).scalar_subquery().is_not(true())]

    def spanless(self, trace: type[Trace] = Trace) -> ColumnElement[bool]:
        """The conditions that a trace has no spans and matches by its own row."""
        if self.needs_a_span:
            return false()
        by_field = [rule.spanless for rule in self._rules.values() if rule.spanless]
        own = [*self._on(trace, *by_field), *negated(trace, self._given, by_field)]
        in_json = [one.on_trace(trace) for one in self.json()]
        not_in_json = [one.on_trace(trace).is_not(true()) for one in self._excluded_json()]
        return and_(trace.lead_span_id.is_(None), *own, *in_json, *not_in_json)

    def implied(self, trace: type[Trace] = Trace) -> Conditions:
        """The conditions that the row of every matching trace meets."""
        return self._on(trace, *(rule.implied for rule in self._rules.values()))

    def begun(self, trace: type[Trace] = Trace) -> Conditions:
        """The condition that a trace begins before the time range ends."""
        return within(trace.start_time, None, self._given.get("end_time"))

    def within(self, trace: type[Trace] = Trace) -> Conditions:
        """The condition that a trace begins within the time range."""
        return within(trace.start_time, *self.bounds())

    def of_service(self) -> Conditions:
        """The conditions on a span's service and time, which one index serves."""
        of_service = self._on(TraceSpan, self._rules["service_name"].condition)
        return [*of_service, *within(TraceSpan.start_time, *self.bounds())]

    def bounds(self) -> Bounds:
        """The bind parameters of the filters' time range."""
        return self._given.get("start_time"), self._given.get("end_time")

    def _excluding(self, start: Any = None, end: Any = None) -> Conditions:
        """The conditions on `TraceSpan` that are negated: one for each field or attribute."""
        fields = (rule.condition(TraceSpan, self._excluded) for rule in self._rules.values())
        json = (on_span_or_events(one, start, end) for one in self._excluded_json())
        return [*(one for each in fields for one in each), *json]

    def _excluded_json(self) -> list[JsonCondition]:
        return [
            one for rule in self._rules.values() if rule.json for one in rule.json(self._excluded)
        ]

    def _on(self, row: type[Trace | TraceSpan], *conditions: Condition | None) -> Conditions:
        return [each for one in conditions if one for each in one(row, self._given)]
