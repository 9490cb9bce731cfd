"""Conditions on JSON: an attribute, or words or a substring of prompts and completions.

A span meets such a condition by its own columns, or by those of one of its events. In a closed
partition each of these places has an index, but no index serves an OR of them. Therefore the places
can also be searched one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from sqlalchemy import ColumnElement, SQLColumnExpression, Text, and_, cast, exists, or_

from observatory_storage.llm import content_search
from observatory_storage.models import Trace, TraceEvent, TraceSpan
from observatory_storage.repositories.reading.attribute_conditions import Attribute, attributes_of
from observatory_storage.repositories.reading.filter_fields import Given, within
from observatory_storage.repositories.reading.text_search import TextSearch, longest_run

__all__ = [
    "AttributeCondition",
    "ContentCondition",
    "JsonCondition",
    "attribute_conditions",
    "on_span_or_events",
    "substring_condition",
    "words_condition",
]

# Shorter words rule out too little.
_SHORTEST: Final = 3


@dataclass(frozen=True, slots=True)
class AttributeCondition:
    """One attribute of a span, of its resource or scope, or of its links or events."""

    attribute: Attribute

    def on_span(self) -> ColumnElement[bool]:
        return or_(
            self.attribute.is_in(TraceSpan.attributes),
            self.attribute.is_in(TraceSpan.resource_attributes),
            self.attribute.is_in(TraceSpan.scope_attributes),
            self.attribute.is_in_one_of(TraceSpan.links),
        )

    def on_event(self) -> ColumnElement[bool]:
        return self.attribute.is_in(TraceEvent.attributes)

    def on_trace(self, trace: type[Trace] = Trace) -> ColumnElement[bool]:
        columns = (trace.attributes, trace.resource_attributes)
        return or_(*(self.attribute.is_in(column) for column in columns))


@dataclass(frozen=True, slots=True)
class ContentCondition:
    """A condition on the prompts and completions of a span, or of one of its events.

    Args:
        on: the condition on attributes.
        required: ASCII letters and digits that all matching attributes have, in any case.
    """

    on: Callable[[SQLColumnExpression[Any]], ColumnElement[bool]]
    required: str | None

    def on_span(self) -> ColumnElement[bool]:
        return self._in(TraceSpan.attributes)

    def on_event(self) -> ColumnElement[bool]:
        return self._in(TraceEvent.attributes)

    def on_trace(self, trace: type[Trace] = Trace) -> ColumnElement[bool]:
        return self._in(trace.attributes)

    def _in(self, attributes: SQLColumnExpression[Any]) -> ColumnElement[bool]:
        if self.required is None or len(self.required) < _SHORTEST:
            return self.on(attributes)
        # This helps rows without an index: searching for letters costs a twentieth of parsing.
        return and_(cast(attributes, Text).ilike(f"%{self.required}%"), self.on(attributes))


# What a span, an event or a trace without spans may meet.
JsonCondition = AttributeCondition | ContentCondition


def attribute_conditions(given: Given) -> list[JsonCondition]:
    """The conditions of all attributes that are given."""
    return [AttributeCondition(one) for one in attributes_of("attributes", given)]


def words_condition(given: Given) -> list[JsonCondition]:
    """The condition on words, if a text is given."""
    if "text" not in given:
        return []
    search = TextSearch(given["text"])

    def on(attributes: SQLColumnExpression[Any]) -> ColumnElement[bool]:
        return search.condition(
            content_search.content_vector(attributes),
            partial(content_search.has_literally, attributes),
            content_search.content_vector(attributes, words_twice=False),
        )

    return [ContentCondition(on, search.required_word())]


def substring_condition(given: Given) -> list[JsonCondition]:
    """The condition on a substring, if one is given."""
    if "content" not in given:
        return []
    value = given["content"]
    on = partial(content_search.contains, value=value)
    return [ContentCondition(on, longest_run(value))]


def on_span_or_events(
    json: JsonCondition, start: Any = None, end: Any = None
) -> ColumnElement[bool]:
    """The condition that a span or one of its events meets a condition on JSON.

    Args:
        start: the span starts at this time or later.
        end: the span starts before this time.
    """
    event = exists().where(
        TraceEvent.trace_id == TraceSpan.trace_id,
        TraceEvent.span_id == TraceSpan.span_id,
        TraceEvent.span_start_time == TraceSpan.start_time,
        TraceEvent.span_start_ns == TraceSpan.start_ns,
        # The equality implies this. It keeps the planner from replacing the lookup of each span's
        # events by a hash of all events.
        TraceEvent.span_start_time <= TraceSpan.start_time,
        json.on_event(),
        # The bounds of the span imply this, but the planner does not derive ranges.
        *within(TraceEvent.span_start_time, start, end),
    )
    return or_(json.on_span(), event)
