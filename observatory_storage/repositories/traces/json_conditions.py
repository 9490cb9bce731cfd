"""Conditions on JSON: an attribute, or words or a substring of prompts and completions.

A span meets such a condition by its own columns, or by those of one of its events. A condition on
prompts and completions can also be met by a log record that names the span. In a closed partition
each of these places has an index, but no index serves an OR of them. Therefore the places can also
be searched one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, or_

from observatory_storage.llm.content_search import (
    Content,
    content_of_attributes,
    content_of_event,
    content_of_log,
    is_message_log,
)
from observatory_storage.llm.log_facts import LOGGED_AFTER, LOGGED_BEFORE
from observatory_storage.models import LogRecord, Trace, TraceEvent, TraceSpan
from observatory_storage.repositories.reading.attribute_conditions import Attribute, attributes_of
from observatory_storage.repositories.reading.content_conditions import has_substring, has_words
from observatory_storage.repositories.reading.filter_fields import Conditions, Given, within
from observatory_storage.repositories.reading.text_search import TextSearch

__all__ = [
    "AttributeCondition",
    "ContentCondition",
    "JsonCondition",
    "attribute_conditions",
    "logged_between",
    "logged_within",
    "on_span_or_events",
    "substring_condition",
    "words_condition",
]


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
    """A condition on the prompts and completions of a span, its events or its log records.

    Args:
        on: the condition on the content of a row.
    """

    on: Callable[[Content], ColumnElement[bool]]

    def on_span(self) -> ColumnElement[bool]:
        return self.on(content_of_attributes(TraceSpan.attributes))

    def on_event(self) -> ColumnElement[bool]:
        return self.on(content_of_event(TraceEvent.name, TraceEvent.attributes))

    def on_log(self) -> ColumnElement[bool]:
        return and_(
            LogRecord.is_structured(), is_message_log(LogRecord), self.on(content_of_log(LogRecord))
        )

    def on_trace(self, trace: type[Trace] = Trace) -> ColumnElement[bool]:
        return self.on(content_of_attributes(trace.attributes))


# What a span, an event or a trace without spans may meet.
JsonCondition = AttributeCondition | ContentCondition


def attribute_conditions(given: Given) -> list[JsonCondition]:
    """The conditions of all attributes that are given."""
    return [AttributeCondition(one) for one in attributes_of("attributes", given)]


def words_condition(given: Given) -> list[JsonCondition]:
    """The condition on words, if a text is given."""
    if "text" not in given:
        return []
    return [ContentCondition(partial(has_words, search=TextSearch(given["text"])))]


def substring_condition(given: Given) -> list[JsonCondition]:
    """The condition on a substring, if one is given."""
    if "content" not in given:
        return []
    return [ContentCondition(partial(has_substring, value=given["content"]))]


def on_span_or_events(
    json: JsonCondition, start: Any = None, end: Any = None
) -> ColumnElement[bool]:
    """The condition that a span, one of its events or of its log records meets a condition on JSON.

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
    if isinstance(json, AttributeCondition):
        return or_(json.on_span(), event)
    record = exists().where(
        LogRecord.trace_id == TraceSpan.trace_id,
        LogRecord.span_id == TraceSpan.span_id,
        LogRecord.timestamp >= TraceSpan.start_time - LOGGED_BEFORE,
        LogRecord.timestamp < TraceSpan.start_time + LOGGED_AFTER,
        json.on_log(),
        *logged_within(start, end),
    )
    return or_(json.on_span(), event, record)


def logged_within(start: Any, end: Any) -> Conditions:
    """The condition on the times of log records whose spans start in [start, end).

    Args:
        start, end: times, or bind parameters with their values: PostgreSQL would compute the bounds
            only after it has planned for all partitions.
    """
    start, end = (getattr(time, "value", time) for time in (start, end))
    return within(LogRecord.timestamp, *logged_between(start, end))


def logged_between(
    start: datetime | None, end: datetime | None
) -> tuple[datetime | None, datetime | None]:
    """The times of log records whose spans start in [start, end)."""
    return _shifted(start, -LOGGED_BEFORE), _shifted(end, LOGGED_AFTER)


def _shifted(time: datetime | None, by: timedelta) -> datetime | None:
    try:
        return None if time is None else time + by
    except OverflowError:
        return None
