"""The messages of a span, from wherever its instrumentation put them."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import bindparam, inspect, select
from sqlalchemy.orm import defer

from observatory_storage.errors import ValidationError
from observatory_storage.llm.event_messages import MessageEvent
from observatory_storage.llm.log_facts import LOGGED_AFTER, LOGGED_BEFORE
from observatory_storage.llm.message_sources import is_complete, messages_from
from observatory_storage.llm.span_messages import SpanMessages
from observatory_storage.models import LogRecord, TraceEvent, TraceSpan
from observatory_storage.repositories.reading.validation import TraceId
from observatory_storage.repositories.traces.spans import SpanQueries

__all__ = ["MessageQueries"]

_LEFT_OUT: Final = (LogRecord.resource_attributes, LogRecord.scope_attributes, LogRecord.otlp)
_EVENTS: Final = (
    select(TraceEvent)
    .where(
        TraceEvent.trace_id == bindparam("trace_id"),
        TraceEvent.span_id == bindparam("span_id"),
        TraceEvent.span_start_time == bindparam("start_time"),
        TraceEvent.span_start_ns == bindparam("start_ns"),
    )
    .order_by(TraceEvent.position)
)
_LOGS: Final = (
    select(LogRecord)
    .options(*(defer(column, raiseload=True) for column in _LEFT_OUT))
    .where(
        LogRecord.trace_id == bindparam("trace_id"),
        LogRecord.span_id == bindparam("span_id"),
        LogRecord.timestamp >= bindparam("first"),
        LogRecord.timestamp < bindparam("last"),
        LogRecord.is_structured(),
    )
    .order_by(LogRecord.timestamp, LogRecord.timestamp_ns, LogRecord.id)
)


class MessageQueries(SpanQueries):
    """The methods of `TraceRepository` for messages."""

    def get_messages(self, span: TraceSpan | TraceId, span_id: str | None = None) -> SpanMessages:
        """Get what went into a model or a tool, and what came out, in one form.

        The messages may stand in the attributes of the span, in its events, or in log records that
        name it, in the form of any of the conventions that the guide "LLM columns of a span" lists.
        Events and log records are only read if the attributes lack the input or the output. A span
        without messages has an empty result.

        Args:
            span: the span, or the id of its trace.
            span_id: the span's id, if `span` is the id of its trace.

        Raises:
            NotFound: there is no such span.
            ValidationError: an id is invalid, or `span_id` is missing or given beside a span.

        Example:
            >>> for message in uow.traces.get_messages(trace_id, span_id).output:
            ...     print(message.role, message.text, message.finish_reason)
        """
        if isinstance(span, TraceSpan):
            if span_id is not None:
                raise ValidationError("span_id", span_id, "must not be given beside a span")
            # A row that the caller's session has read may have previews.
            if "attributes" in inspect(span).unloaded or vars(span).get("payload_frame"):
                span = self.get_span(span.trace_id, span.span_id)
        elif span_id is None:
            raise ValidationError("span_id", None, "is required unless a span is given")
        else:
            span = self.get_span(span, span_id)
        attributes: dict[str, Any] = dict(span.attributes or {})
        found = messages_from(attributes, (), ())
        if is_complete(found):
            return found
        key = {"trace_id": span.trace_id, "span_id": span.span_id}
        start = {"start_time": span.start_time, "start_ns": span.start_ns or 0}
        stored = self._reader.entities(_EVENTS, {**key, **start})
        events = [MessageEvent(event.name, event.attributes) for event in stored]
        found = messages_from(attributes, events, ())
        if is_complete(found):
            return found
        logged = {"first": span.start_time - LOGGED_BEFORE, "last": span.start_time + LOGGED_AFTER}
        records = [
            MessageEvent.of_log(row.event_name, row.body, row.body_json, row.attributes)
            for row in self._reader.entities(_LOGS, {**key, **logged})
        ]
        return messages_from(attributes, events, records)
