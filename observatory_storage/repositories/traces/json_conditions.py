"""Conditions on JSON: an attribute, or words or a substring of prompts and completions.

A span meets such a condition by its own columns, or by those of one of its events. A condition on
prompts and completions can also be met by a log record that names the span. In a closed partition
each of these places has an index, but no index serves an OR of them. Therefore the places can also
be searched one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    FromClause,
    and_,
    bindparam,
    column,
    exists,
    false,
    func,
    literal,
    or_,
    select,
    tuple_,
)
from sqlalchemy.dialects.postgresql import ARRAY

from observatory_storage.by_layout import ByLayout
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
from observatory_storage.repositories.reading.content_conditions import (
    contains_words,
    has_substring,
    has_words,
)
from observatory_storage.repositories.reading.filter_fields import Conditions, Given, within
from observatory_storage.repositories.reading.text_search import TextSearch

__all__ = [
    "AttributeCondition",
    "ContentCondition",
    "JsonCondition",
    "SpanKey",
    "as_table",
    "attribute_conditions",
    "logged_between",
    "logged_parameters",
    "logged_within",
    "on_span_or_events",
    "substring_condition",
    "words_condition",
]


# The bind parameters of times for which there are others with the bounds of log records.
_STARTS: Final = ("start_time", "slice_start")
_ENDS: Final = ("end_time", "slice_end")
_LOGGED: Final = "logged_"
_EARLIEST: Final = datetime.min.replace(tzinfo=UTC)
_LATEST: Final = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class AttributeCondition:
    """One attribute of a span, of its resource or scope, or of its links or events."""

    attribute: Attribute

    def on_span(self) -> ColumnElement[bool]:
        return or_(
            self.attribute.is_in(TraceSpan.attributes, TraceSpan.payload_digests),
            self.attribute.is_in(TraceSpan.resource_attributes),
            self.attribute.is_in(TraceSpan.scope_attributes),
            self.attribute.is_in_one_of(TraceSpan.links),
        )

    def on_event(self) -> ColumnElement[bool]:
        return self.attribute.is_in(TraceEvent.attributes, TraceEvent.payload_digests)

    def on_trace(self, trace: type[Trace] = Trace) -> ColumnElement[bool]:
        columns = (trace.attributes, trace.resource_attributes)
        return or_(*(self.attribute.is_in(column) for column in columns))


class SpanKey(NamedTuple):
    """The primary key of a span."""

    trace_id: UUID
    span_id: str
    start_time: datetime
    start_ns: int


def as_table(keys: Sequence[SpanKey]) -> FromClause:
    """The keys as a table, whose columns have the names of the fields."""
    own = [getattr(TraceSpan, name) for name in SpanKey._fields]
    arrays = [
        literal(list(values), ARRAY(each.type))
        for values, each in zip(zip(*keys, strict=True), own, strict=True)
    ]
    columns = (column(each.key, each.type) for each in own)
    return func.unnest(*arrays).table_valued(*columns).render_derived("wanted")


@dataclass(frozen=True, slots=True)
class ContentCondition:
    """A condition on the prompts and completions of a span, its events or its log records.

    Args:
        name: the field of the filters that it is made of.
        on: the condition on the content of a row.
        framed: the spans that meet it by values in payload frames. Columns with previews of such
            values do not decide. None if no row has a frame.
    """

    name: str
    on: Callable[[Content], ColumnElement[bool]]
    framed: Sequence[SpanKey] | None = None

    def on_span(self) -> ColumnElement[bool]:
        return self._inline(TraceSpan, self.on(content_of_attributes(TraceSpan.attributes)))

    def on_event(self) -> ColumnElement[bool]:
        content = content_of_event(TraceEvent.name, TraceEvent.attributes)
        return self._inline(TraceEvent, self.on(content))

    def on_log(self) -> ColumnElement[bool]:
        found = self._inline(LogRecord, self.on(content_of_log(LogRecord)))
        return and_(LogRecord.is_structured(), is_message_log(LogRecord), found)

    def on_trace(self, trace: type[Trace] = Trace) -> ColumnElement[bool]:
        return self.on(content_of_attributes(trace.attributes))

    def by_frames(self) -> ColumnElement[bool]:
        """The condition that the span meets it by values in frames."""
        if not self.framed:
            return false()
        wanted = as_table(self.framed)
        own = (getattr(TraceSpan, name) for name in SpanKey._fields)
        return tuple_(*own).in_(select(*wanted.c))

    def _inline(
        self, row: type[TraceSpan | TraceEvent | LogRecord], condition: ColumnElement[bool]
    ) -> ColumnElement[bool]:
        return condition if self.framed is None else and_(row.payload_frame.is_(None), condition)


# What a span, an event or a trace without spans may meet.
JsonCondition = AttributeCondition | ContentCondition


def attribute_conditions(given: Given) -> list[JsonCondition]:
    """The conditions of all attributes that are given."""
    return [AttributeCondition(one) for one in attributes_of("attributes", given)]


def words_condition(given: Given) -> list[JsonCondition]:
    """The condition on words, if a text is given."""
    if "words" in given:
        words, letters = given["words"], given.get("letters")
        return [ContentCondition("text", partial(contains_words, words=words, letters=letters))]
    if "text" not in given:
        return []
    return [ContentCondition("text", partial(has_words, search=TextSearch(given["text"])))]


def substring_condition(given: Given) -> list[JsonCondition]:
    """The condition on a substring, if one is given."""
    if "content" not in given:
        return []
    return [ContentCondition("contains", partial(has_substring, value=given["content"]))]


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
    matching = [json.on_log(), *logged_within(start, end)]
    columns = (LogRecord.trace_id, LogRecord.span_id, LogRecord.timestamp)
    # The records of a span are on other shards: those that match are found first.
    found = select(*columns).where(LogRecord.span_id.is_not(None), *matching)
    matched = found.cte().prefix_with("MATERIALIZED")
    record = ByLayout(
        exists().where(_is_of_span(LogRecord), *matching), exists().where(_is_of_span(matched.c))
    )
    return or_(json.on_span(), event, record, json.by_frames())


def _is_of_span(record: Any) -> ColumnElement[bool]:
    return and_(
        record.trace_id == TraceSpan.trace_id,
        record.span_id == TraceSpan.span_id,
        record.timestamp >= TraceSpan.start_time - LOGGED_BEFORE,
        record.timestamp < TraceSpan.start_time + LOGGED_AFTER,
    )


def logged_within(start: Any, end: Any) -> Conditions:
    """The condition on the times of log records whose spans start in [start, end).

    Args:
        start, end: times, or bind parameters. PostgreSQL would compute the bounds only after it has
            planned for all partitions, so those of a bind parameter without a value are bind
            parameters too, if `logged_parameters` has their values.
    """
    return within(LogRecord.timestamp, *logged_between(start, end))


def logged_between(start: Any, end: Any) -> tuple[Any, Any]:
    """The times of `logged_within`."""
    return _shifted(start, -LOGGED_BEFORE), _shifted(end, LOGGED_AFTER)


def logged_parameters(**times: datetime | None) -> dict[str, datetime]:
    """The values of the bind parameters of `logged_within` for those of these names."""
    return {
        f"{_LOGGED}{name}": _moved(time, LOGGED_AFTER if name in _ENDS else -LOGGED_BEFORE)
        for name, time in times.items()
        if time is not None
    }


def _shifted(time: Any, by: timedelta) -> Any:
    if isinstance(time, BindParameter):
        if time.value is None and time.key in (*_STARTS, *_ENDS):
            return bindparam(f"{_LOGGED}{time.key}", type_=LogRecord.timestamp.type)
        time = time.value
    return None if time is None else _moved(time, by)


def _moved(time: datetime, by: timedelta) -> datetime:
    try:
        return time + by
    except OverflowError:
        return _LATEST if by > timedelta(0) else _EARLIEST
