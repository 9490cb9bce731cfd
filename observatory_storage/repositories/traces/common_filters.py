"""The fields that filters of traces and of spans share: what a span can meet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypedDict

from sqlalchemy import func

from observatory_storage.errors import ValidationError
from observatory_storage.models import STATUSES, TraceSpan
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
    InBoth,
    at_least,
    at_most,
    before,
    bound,
    equals,
    limit_field,
    no_condition,
)
from observatory_storage.repositories.reading.operators import Not, TextFilter
from observatory_storage.repositories.reading.validation import AttributeFilter, Number
from observatory_storage.repositories.traces import json_conditions, span_durations
from observatory_storage.repositories.traces.span_conditions import (
    SpanConditions,
    SpanFieldRule,
    span_field,
)

__all__ = ["CommonFilters", "CommonKeywords"]


class CommonKeywords(TypedDict, total=False):
    """The fields of `CommonFilters`, for methods that take them as keywords."""

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


def _status(name: str, value: Any) -> dict[str, Any]:
    found = operators.parameters(name, value)
    # The trace of a failed span always has the status error. For any other status of a span, the
    # status of its trace may differ.
    return {**found, "trace_status": value} if value == "error" else found


def _is_root(span: Any, given: Given) -> Conditions:
    return [span.parent_span_id.is_(None)] if "root" in given else []


def _is_a_root(span: Mapping[str, Any], given: Given) -> bool | None:
    return span["parent_span_id"] is None if "root" in given else None


def _root(name: str, value: bool) -> dict[str, Any]:
    # The name of the parameter distinguishes True from False; its value is not used.
    return operators.parameters(name, value or Not(value))


def _ends_after_start(trace: Any, given: Given) -> Conditions:
    if "start_time" not in given:
        return []
    return [func.coalesce(trace.last_span_start, trace.start_time) >= given["start_time"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CommonFilters(Filters):
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
        InBoth(span_durations.lasts_at_least, span_durations.took_at_least),
        spanless=at_least("duration_us", "min_spanless_duration_us"),
        implied=span_durations.may_last_so_long,
        parameters=span_durations.least_duration,
    )
    max_duration_us: Number | timedelta | None = span_field(
        validation.duration_us,
        InBoth(span_durations.lasts_at_most, span_durations.took_at_most),
        spanless=at_most("duration_us", "max_spanless_duration_us"),
        parameters=span_durations.greatest_duration,
    )
    attributes: Mapping[str, AttributeFilter] | None = span_field(
        attribute_conditions.checked_movable,
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

    root: bool | None = span_field(validation.flag, InBoth(_is_root, _is_a_root), parameters=_root)
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
