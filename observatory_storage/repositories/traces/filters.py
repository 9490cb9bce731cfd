"""Filters of traces and spans: frozen dataclasses. A field that is None does not filter.

Values and keys are matched literally: there are no wildcards and no paths. Time ranges are
half-open, [start_time, end_time).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any, TypedDict

from sqlalchemy import bindparam, func, or_, tuple_, type_coerce

from observatory_storage.errors import ValidationError
from observatory_storage.models import KINDS, STATUSES, TraceSpan
from observatory_storage.repositories.reading import attribute_conditions, validation
from observatory_storage.repositories.reading.filter_fields import (
    Conditions,
    Filters,
    Given,
    at_least,
    at_most,
    before,
    bound,
    equals,
    limit_field,
    no_condition,
    of_trace,
    rules_of,
    trace_parameters,
)
from observatory_storage.repositories.reading.validation import AttributeValue, Number, TraceId
from observatory_storage.repositories.traces import json_conditions
from observatory_storage.repositories.traces.span_conditions import (
    SpanConditions,
    SpanFieldRule,
    span_field,
)

__all__ = [
    "SpanFilters",
    "SpanKeywords",
    "SpanSearchKeywords",
    "TraceFilters",
    "TraceKeywords",
    "template",
]


class _CommonKeywords(TypedDict, total=False):
    service_name: str | None
    operation: str | None
    status: str | None
    start_time: datetime | None
    end_time: datetime | None
    min_duration_us: Number | timedelta | None
    max_duration_us: Number | timedelta | None
    attributes: Mapping[str, AttributeValue] | None
    provider: str | None
    model: str | None
    user_id: str | None
    session_id: str | None
    environment: str | None
    limit: int
    min_tokens: int | None
    max_tokens: int | None
    min_cost_usd: Number | None
    max_cost_usd: Number | None
    contains: str | None


class TraceKeywords(_CommonKeywords, total=False):
    """The fields of `TraceFilters`, for methods that take them as keywords."""

    text: str | None


class SpanSearchKeywords(_CommonKeywords, total=False):
    """The fields of `SpanFilters` except `text`."""

    trace_id: TraceId | None
    kind: str | None
    name: str | None


class SpanKeywords(SpanSearchKeywords, total=False):
    """The fields of `SpanFilters`, for methods that take them as keywords."""

    text: str | None


def _status(name: str, value: str) -> dict[str, Any]:
    # The trace of a failed span always has the status error. For any other status of a span, the
    # status of its trace may differ.
    return {name: value, "trace_status": value} if value == "error" else {name: value}


def _ends_after_start(trace: Any, given: Given) -> Conditions:
    if "start_time" not in given:
        return []
    return [func.coalesce(trace.last_span_start, trace.start_time) >= given["start_time"]]


def _least_duration(name: str, value: Decimal) -> dict[str, Any]:
    whole, nanoseconds = divmod(math.ceil(value * 1000), 1000)
    return {
        name: whole,
        "min_duration_ns": nanoseconds,
        # A trace's times have no nanoseconds, so its duration may be one microsecond too short.
        "min_trace_duration_us": math.floor(value) - 1,
        "min_spanless_duration_us": math.ceil(value),
    }


def _greatest_duration(name: str, value: Decimal) -> dict[str, Any]:
    whole, nanoseconds = divmod(math.floor(value * 1000), 1000)
    floor = {"max_spanless_duration_us": math.floor(value)}
    return {name: whole, "max_duration_ns": nanoseconds, **floor}


def _lasts_at_least(span: Any, given: Given) -> Conditions:
    return [_took(span) >= _duration(given, "min")] if "min_duration_us" in given else []


def _lasts_at_most(span: Any, given: Given) -> Conditions:
    return [_took(span) <= _duration(given, "max")] if "max_duration_us" in given else []


def _took(span: Any) -> Any:
    return tuple_(span.duration_us, span.duration_ns)


def _duration(given: Given, bound_name: str) -> Any:
    columns = (TraceSpan.duration_us, TraceSpan.duration_ns)
    return tuple_(*(type_coerce(given[f"{bound_name}_{c.key}"], c.type) for c in columns))


def _may_last_so_long(trace: Any, given: Given) -> Conditions:
    if "min_trace_duration_us" not in given:
        return []
    return [or_(trace.duration_us >= given["min_trace_duration_us"], trace.duration_us.is_(None))]


@dataclass(frozen=True, slots=True, kw_only=True)
class _CommonFilters(Filters):
    """The conditions that a span can meet, for traces and spans alike.

    The tokens and costs of a trace are sums over its spans, so they are never less than those of
    one span.
    """

    service_name: str | None = span_field(validation.text, equals("service_name"), spanless=True)
    operation: str | None = span_field(validation.text, equals("name", "operation"))
    status: str | None = span_field(
        validation.one_of(STATUSES),
        equals("status"),
        spanless=True,
        implied=equals("status", "trace_status"),
        parameters=_status,
    )
    start_time: datetime | None = span_field(
        validation.moment, at_least("start_time"), spanless=True, implied=_ends_after_start
    )
    end_time: datetime | None = span_field(
        validation.moment, before("start_time", "end_time"), spanless=True, implied=True
    )
    min_duration_us: Number | timedelta | None = span_field(
        validation.duration_us,
        _lasts_at_least,
        spanless=at_least("duration_us", "min_spanless_duration_us"),
        implied=_may_last_so_long,
        parameters=_least_duration,
    )
    max_duration_us: Number | timedelta | None = span_field(
        validation.duration_us,
        _lasts_at_most,
        spanless=at_most("duration_us", "max_spanless_duration_us"),
        parameters=_greatest_duration,
    )
    attributes: Mapping[str, AttributeValue] | None = span_field(
        validation.attributes,
        no_condition,
        json=json_conditions.attribute_conditions,
        parameters=attribute_conditions.attribute_parameters,
        is_hashable=False,
    )
    provider: str | None = span_field(validation.text, equals("provider"))
    model: str | None = span_field(validation.text, equals("model"), is_indexed=True)
    user_id: str | None = span_field(validation.text, equals("user_id"), is_indexed=True)
    session_id: str | None = span_field(validation.text, equals("session_id"), is_indexed=True)
    environment: str | None = span_field(validation.text, equals("environment"))
    limit: int = limit_field(SpanFieldRule)
    min_tokens: int | None = span_field(
        validation.count, at_least("total_tokens", "min_tokens"), spanless=True, implied=True
    )
    max_tokens: int | None = span_field(
        validation.count, at_most("total_tokens", "max_tokens"), spanless=True
    )
    min_cost_usd: Number | None = span_field(
        validation.number, at_least("total_cost_usd", "min_cost_usd"), spanless=True, implied=True
    )
    max_cost_usd: Number | None = span_field(
        validation.number, at_most("total_cost_usd", "max_cost_usd"), spanless=True
    )
    text: str | None = span_field(
        validation.search, no_condition, json=json_conditions.words_condition
    )
    contains: str | None = span_field(
        validation.substring,
        no_condition,
        json=json_conditions.substring_condition,
        parameters=lambda _, value: {"content": value},
    )

    def _check_together(self) -> None:
        validation.in_order(self.start_time, self.end_time)
        for name in ("duration_us", "tokens", "cost_usd"):
            least, greatest = f"min_{name}", f"max_{name}"
            validation.ordered(least, getattr(self, least), greatest, getattr(self, greatest))
        if self.contains is not None and self.start_time is None:
            raise ValidationError("start_time", None, "is required where contains is given")

    def listed(self) -> Any:
        return TraceSpan

    def conditions(self) -> Conditions:
        """The conditions on `TraceSpan`, all of which one span must meet."""
        return self.in_sql().all()

    def in_sql(self) -> SpanConditions:
        """The conditions on a span and on its trace, with the values."""
        return SpanConditions(self._rules, bound(self.parameters()))

    def searches_json(self) -> bool:
        """Whether a condition is on JSON."""
        return bool(self.attributes) or self.searches_content()

    def searches_content(self) -> bool:
        """Whether a condition is on the text of prompts and completions."""
        return self.text is not None or self.contains is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceFilters(_CommonFilters):
    """Selects the traces that have a span which meets every condition.

    All conditions must be met by the same span. A field that is None does not filter. A trace that
    has no spans yet matches by its own row: its service, status, start, duration, tokens, cost,
    attributes and resource attributes. It never matches a condition on operation, provider, model,
    user, session or environment.

    Args:
        service_name, provider, model, user_id, session_id, environment: the value of the span's
            column of this name.
        operation: the name of the span.
        status: ``ok``, ``error`` or ``unset``.
        start_time: the matching span starts at this time or later.
        end_time: the matching span starts before this time.
        min_duration_us: in microseconds, inclusive; a number (may be a fraction) or a timedelta.
        max_duration_us: in microseconds, inclusive; a number or a timedelta.
        attributes: a mapping of attribute keys to text, numbers, bools or lists. Each pair must be
            in the attributes of the span, of its resource or scope, or of one of its events or
            links. A number matches an equal number (1 matches 1.0), never text or a bool. A value
            also matches a list that has it as an element; a list matches an equal list.
        limit: the maximum number of rows in a page.
        min_tokens: the minimum of the span's ``total_tokens``, inclusive.
        max_tokens: the maximum of the span's ``total_tokens``, inclusive.
        min_cost_usd: the minimum of the span's ``total_cost_usd``, inclusive.
        max_cost_usd: the maximum of the span's ``total_cost_usd``, inclusive.
        text: words to search for in prompts and completions, in web search syntax; see
            `TraceRepository.search_text`.
        contains: a substring of a prompt or a completion. Case is ignored; all other characters are
            literal. No index serves it: the query may read all prompts of the time range, so
            ``start_time`` is required.

    Raises:
        ValidationError: a value is of the wrong type or out of range, or a time has no zone.
    """

    def is_indexed(self) -> bool:
        """Whether an index finds the matching spans by a value that is likely to be rare."""
        if self.service_name is not None and self.operation is not None:
            return True
        return any(
            rule.is_indexed and getattr(self, name) is not None
            for name, rule in rules_of(TraceFilters).items()
        )

    def has_newest_spans(self) -> bool:
        """Whether an index has the matching spans in the order of their starts."""
        errors = self.service_name is not None and self.status == "error"
        return (self.is_indexed() or errors) and not self.searches_json()

    def is_likely_common(self) -> bool:
        """Whether the model is the only indexed column. A model is likely to be common."""
        rare = (self.user_id, self.session_id, self.operation, self.status)
        return self.model is not None and all(value is None for value in rare)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanFilters(_CommonFilters):
    """Selects the spans that meet every condition. It has the fields of `TraceFilters` and more.

    Args:
        trace_id: hex text, UUID or the `Trace`.
        kind: ``internal``, ``server``, ``client``, ``producer``, ``consumer``, ``unspecified``.
        name: the same as ``operation``.

    Raises:
        ValidationError: a value is of the wrong type or out of range, or a time has no zone.
    """

    trace_id: TraceId | None = span_field(
        validation.trace_key, of_trace, parameters=trace_parameters
    )
    kind: str | None = span_field(validation.one_of(KINDS), equals("kind"))
    name: str | None = span_field(validation.text, equals("name"))


@lru_cache(maxsize=256)
def template(names: frozenset[str]) -> SpanConditions:
    """The conditions of trace filters with parameters of these names, without their values."""
    return SpanConditions(rules_of(TraceFilters), {name: bindparam(name) for name in names})
