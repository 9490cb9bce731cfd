"""Filters of traces and spans: frozen dataclasses. A field that is None does not filter.

Values and keys are matched literally: there are no wildcards and no paths. Other comparisons are
operators, such as `Prefix`. Time ranges are half-open, [start_time, end_time).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, TypedDict

from sqlalchemy import func

from observatory_storage.errors import ValidationError
from observatory_storage.models import KINDS, STATUSES, TraceSpan
from observatory_storage.repositories.reading import (
    attribute_conditions,
    content_conditions,
    operators,
    validation,
)
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
    rules_of,
    trace_parameters,
    unbound,
)
from observatory_storage.repositories.reading.operators import Not, Operator, TextFilter
from observatory_storage.repositories.reading.validation import (
    AttributeFilter,
    Number,
    TraceFilter,
)
from observatory_storage.repositories.traces import (
    json_conditions,
    span_durations,
)
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
    service_name: TextFilter | None
    operation: TextFilter | None
    status: TextFilter | None
    start_time: datetime | None
    end_time: datetime | None
    min_duration_us: Number | timedelta | None
    max_duration_us: Number | timedelta | None
    attributes: Mapping[str, AttributeFilter] | None
    provider: TextFilter | None
    model: TextFilter | None
    user_id: TextFilter | None
    session_id: TextFilter | None
    environment: TextFilter | None
    limit: int
    min_tokens: int | None
    max_tokens: int | None
    min_cost_usd: Number | None
    max_cost_usd: Number | None
    contains: str | None
    root: bool | None
    ended_after: datetime | None
    ended_before: datetime | None
    gen_ai_operation: TextFilter | None
    response_model: TextFilter | None
    agent_name: TextFilter | None
    tool_name: TextFilter | None
    finish_reason: TextFilter | None
    error_type: TextFilter | None
    prompt_name: TextFilter | None


class TraceKeywords(_CommonKeywords, total=False):
    """The fields of `TraceFilters`, for methods that take them as keywords."""

    text: str | None


class SpanSearchKeywords(_CommonKeywords, total=False):
    """The fields of `SpanFilters` except `text`."""

    trace_id: TraceFilter | None
    kind: TextFilter | None
    name: TextFilter | None


class SpanKeywords(SpanSearchKeywords, total=False):
    """The fields of `SpanFilters`, for methods that take them as keywords."""

    text: str | None


def _status(name: str, value: Any) -> dict[str, Any]:
    found = operators.parameters(name, value)
    # The trace of a failed span always has the status error. For any other status of a span, the
    # status of its trace may differ.
    return {**found, "trace_status": value} if value == "error" else found


def _is_root(span: Any, given: Given) -> Conditions:
    return [span.parent_span_id.is_(None)] if "root" in given else []


def _root(name: str, value: bool) -> dict[str, Any]:
    # The name of the parameter distinguishes True from False; its value is not used.
    return operators.parameters(name, value or Not(value))


def _ends_after_start(trace: Any, given: Given) -> Conditions:
    if "start_time" not in given:
        return []
    return [func.coalesce(trace.last_span_start, trace.start_time) >= given["start_time"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _CommonFilters(Filters):
    """The conditions that a span can meet, for traces and spans alike.

    The tokens and costs of a trace are sums over its spans, so they are never less than those of
    one span.
    """

    service_name: TextFilter | None = span_field(
        validation.text, equals("service_name"), spanless=True
    )
    operation: TextFilter | None = span_field(validation.text, equals("name", "operation"))
    status: TextFilter | None = span_field(
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
        span_durations.lasts_at_least,
        spanless=at_least("duration_us", "min_spanless_duration_us"),
        implied=span_durations.may_last_so_long,
        parameters=span_durations.least_duration,
    )
    max_duration_us: Number | timedelta | None = span_field(
        validation.duration_us,
        span_durations.lasts_at_most,
        spanless=at_most("duration_us", "max_spanless_duration_us"),
        parameters=span_durations.greatest_duration,
    )
    attributes: Mapping[str, AttributeFilter] | None = span_field(
        attribute_conditions.checked_for_spans,
        no_condition,
        json=json_conditions.attribute_conditions,
        parameters=attribute_conditions.attribute_parameters,
        is_hashable=False,
    )
    provider: TextFilter | None = span_field(validation.text, equals("provider"))
    model: TextFilter | None = span_field(validation.text, equals("model"), is_indexed=True)
    user_id: TextFilter | None = span_field(validation.text, equals("user_id"), is_indexed=True)
    session_id: TextFilter | None = span_field(
        validation.text, equals("session_id"), is_indexed=True
    )
    environment: TextFilter | None = span_field(validation.text, equals("environment"))
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
        validation.search,
        no_condition,
        json=json_conditions.words_condition,
        parameters=content_conditions.words_parameters,
    )
    contains: str | None = span_field(
        validation.substring,
        no_condition,
        json=json_conditions.substring_condition,
        parameters=lambda _, value: {"content": value},
    )

    root: bool | None = span_field(validation.flag, _is_root, parameters=_root)
    # A trace ends with its last span, so it ends no earlier than the span that matches.
    ended_after: datetime | None = span_field(
        validation.moment, at_least("end_time", "ended_after"), spanless=True, implied=True
    )
    ended_before: datetime | None = span_field(
        validation.moment, before("end_time", "ended_before"), spanless=True
    )
    gen_ai_operation: TextFilter | None = span_field(
        validation.text, equals("operation", "gen_ai_operation")
    )
    response_model: TextFilter | None = span_field(validation.text, equals("response_model"))
    agent_name: TextFilter | None = span_field(validation.text, equals("agent_name"))
    tool_name: TextFilter | None = span_field(validation.text, equals("tool_name"))
    finish_reason: TextFilter | None = span_field(validation.text, equals("finish_reason"))
    error_type: TextFilter | None = span_field(validation.text, equals("error_type"))
    prompt_name: TextFilter | None = span_field(validation.text, equals("prompt_name"))

    def _check_together(self) -> None:
        validation.in_order(self.start_time, self.end_time)
        validation.ordered("ended_after", self.ended_after, "ended_before", self.ended_before)
        for name in ("duration_us", "tokens", "cost_usd"):
            least, greatest = f"min_{name}", f"max_{name}"
            validation.ordered(least, getattr(self, least), greatest, getattr(self, greatest))
        if self.contains is not None and self.start_time is None:
            raise ValidationError("start_time", None, "is required where contains is given")

    def parameters(self) -> dict[str, Any]:
        """The values of the bind parameters of the fields that are set."""
        found = Filters.parameters(self)
        if "words" in found:
            times = {"start_time": self.start_time, "end_time": self.end_time}
            found |= json_conditions.logged_parameters(**times)
        return found

    def listed(self) -> Any:
        return TraceSpan

    def conditions(self) -> Conditions:
        """The conditions on `TraceSpan`, all of which one span must meet."""
        return self.in_sql().all()

    def in_sql(self, *, by_trace: bool = False) -> SpanConditions:
        """The conditions on a span and on its trace, with the values; see `SpanConditions`."""
        return SpanConditions(self._rules, bound(self.parameters()), by_trace=by_trace)

    def searches_json(self) -> bool:
        """Whether spans must meet a condition on JSON."""
        wanted = (self.attributes or {}).values()
        return self.searches_content() or not all(isinstance(each, Not) for each in wanted)

    def searches_content(self) -> bool:
        """Whether a condition is on the text of prompts and completions."""
        return self.text is not None or self.contains is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceFilters(_CommonFilters):
    """Selects the traces that have a span which meets every condition.

    All conditions must be met by the same span, except those with `Not`: these must hold for all
    spans of the trace. So ``Not("test")`` selects the traces that ``"test"`` does not select. A
    field that is None does not filter. A trace that has no spans yet matches by its own row: its
    service, status, start, end, duration, tokens, cost, attributes and resource attributes. It has
    no operation, root, or fact of a model call such as the provider, model, user or session.

    A field of text takes one value, a list of values (any of them matches) or an operator: `OneOf`,
    `Prefix`, `Exists`, or `Not` of any of these. A key of ``attributes`` takes operators too.

    Args:
        service_name, provider, model, user_id, session_id, environment: the value of the span's
            column of this name.
        response_model, agent_name, tool_name, finish_reason, error_type, prompt_name: the same.
        operation: the name of the span.
        gen_ai_operation: the value of the span's column ``operation``, such as ``chat``.
        status: ``ok``, ``error`` or ``unset``.
        start_time: the matching span starts at this time or later.
        end_time: the matching span starts before this time.
        min_duration_us: in microseconds, inclusive; a number (may be a fraction) or a timedelta.
        max_duration_us: in microseconds, inclusive; a number or a timedelta.
        attributes: a mapping of attribute keys to text, numbers, bools or lists. Each pair must be
            in the attributes of the span, of its resource or scope, or of one of its events or
            links. A number matches an equal number (1 matches 1.0), never text or a bool. A value
            also matches a list that contains it. A list matches an equal list. A `Prefix` has at
            most 100 characters.
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
        root: True: the span has no parent. False: the trace has no span without a parent.
        ended_after: the matching span ends at this time or later. No index contains the ends of
            spans, so give a time range too.
        ended_before: the matching span ends before this time.

    Raises:
        ValidationError: a value is of the wrong type or out of range, or a time has no zone.
    """

    def is_indexed(self) -> bool:
        """Whether an index finds the matching spans by a value that is likely to be rare."""
        return self._has_index(operators.is_selective)

    def has_newest_spans(self) -> bool:
        """Whether an index has the matching spans in the order of their starts."""
        errors = _is_value(self.service_name) and self.status == "error"
        return (self._has_index(_is_value) or errors) and not self.searches_json()

    def _has_index(self, serves: Callable[[Any], bool]) -> bool:
        """Whether there is an index for the fields whose values it serves."""
        if serves(self.service_name) and serves(self.operation):
            return True
        rules = rules_of(TraceFilters).items()
        return any(rule.is_indexed and serves(getattr(self, name)) for name, rule in rules)

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
        root: True: the span has no parent. False: it has one.

    `Not` compares each span by itself. Other spans of its trace do not matter.

    Raises:
        ValidationError: a value is of the wrong type or out of range, or a time has no zone.
    """

    trace_id: TraceFilter | None = span_field(
        validation.trace_key, equals("trace_id"), parameters=trace_parameters
    )
    kind: TextFilter | None = span_field(validation.one_of(KINDS), equals("kind"))
    name: TextFilter | None = span_field(validation.text, equals("name"))


def _is_value(value: Any) -> bool:
    return value is not None and not isinstance(value, Operator)


@lru_cache(maxsize=256)
def template(names: frozenset[str]) -> SpanConditions:
    """The conditions of trace filters with parameters of these names, without their values."""
    return SpanConditions(rules_of(TraceFilters), unbound(names), by_trace=True)
