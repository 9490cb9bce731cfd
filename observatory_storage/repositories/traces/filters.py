"""Filters of traces and spans: frozen dataclasses. A field that is None does not filter.

Values and keys are matched literally: there are no wildcards and no paths. Other comparisons are
operators, such as `Prefix`. Time ranges are half-open, [start_time, end_time).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from observatory_storage.models import KINDS
from observatory_storage.repositories.reading import operators, validation
from observatory_storage.repositories.reading.filter_fields import (
    equals,
    rules_of,
    trace_parameters,
    unbound,
)
from observatory_storage.repositories.reading.operators import Operator, TextFilter
from observatory_storage.repositories.reading.validation import TraceFilter
from observatory_storage.repositories.traces.common_filters import CommonFilters, CommonKeywords
from observatory_storage.repositories.traces.span_conditions import SpanConditions, span_field

__all__ = [
    "SpanFilters",
    "SpanKeywords",
    "SpanSearchKeywords",
    "TraceFilters",
    "TraceKeywords",
    "template",
]


class TraceKeywords(CommonKeywords, total=False):
    """The fields of `TraceFilters`, for methods that take them as keywords."""

    text: str | None


class SpanSearchKeywords(CommonKeywords, total=False):
    """The fields of `SpanFilters` except `text`."""

    trace_id: TraceFilter | None
    kind: TextFilter | None
    name: TextFilter | None


class SpanKeywords(SpanSearchKeywords, total=False):
    """The fields of `SpanFilters`, for methods that take them as keywords."""

    text: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceFilters(CommonFilters):
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
class SpanFilters(CommonFilters):
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
