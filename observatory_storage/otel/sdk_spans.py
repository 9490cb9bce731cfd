"""Spans of the SDK as messages of OTLP, from which `otlp` makes rows."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Final

from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import Link, SpanContext, Status, StatusCode, TraceState

from observatory_storage.otel.sdk_values import plain_attributes
from observatory_storage.otlp import message_types
from observatory_storage.otlp.any_values import PlainMap

__all__ = ["fields_of", "flags_of", "span_message"]

_HAS_IS_REMOTE, _IS_REMOTE = 0x100, 0x200  # of the flags of spans and links
_UNSET: Final = message_types.Status()
# The properties of a span cost twice as much as the rest of its conversion: those of attributes,
# events and links copy them, and take locks that an ended span does not need.
fields_of: Final = attrgetter(
    *("_context", "_parent", "_name", "_kind", "_start_time", "_end_time"),
    *("_attributes", "_events", "_links", "_status"),
)


def span_message(
    span: ReadableSpan, contents: Mapping[str, str] | None = None
) -> message_types.Span:
    """The message of a span, with its attributes as JSON.

    Args:
        span: the span.
        contents: attributes that are stored with it, instead of its own of these names.

    Raises:
        ValidationError: an attribute is nested too deeply.
        Exception: the span is not as the SDK makes spans.
    """
    context, parent, name, kind, start, end, own, events, links, status = fields_of(span)
    state = context.trace_state
    attributes = plain_attributes(own, "attributes")
    if contents:
        notes = {key: note for key, note in (attributes.note or {}).items() if key not in contents}
        attributes = PlainMap({**attributes.plain, **contents}, notes or None)
    return message_types.Span(
        trace_id=f"{context.trace_id:032x}",
        span_id=f"{context.span_id:016x}",
        trace_state=_state(state) if state else "",
        parent_span_id=f"{parent.span_id:016x}" if parent else "",
        flags=flags_of(parent),
        name=name if type(name) is str else str(name),
        kind=kind.value + 1,  # OTLP has one more kind, for spans of unknown kind
        start_time_unix_nano=start or 0,
        end_time_unix_nano=end or 0,
        attributes=attributes,  # type: ignore[arg-type]  # read already
        dropped_attributes_count=getattr(own, "dropped", 0),
        events=[_event(event, index) for index, event in enumerate(events)] if events else [],
        dropped_events_count=getattr(events, "dropped", 0),
        links=[_link(link, index) for index, link in enumerate(links)] if links else [],
        dropped_links_count=getattr(links, "dropped", 0),
        status=_status(status),
    )


def _state(state: TraceState) -> str:
    return ",".join(f"{key}={value}" for key, value in state.items())


def flags_of(context: SpanContext | None) -> int:
    """The flags of a span with this parent, or of a link to this context."""
    return _HAS_IS_REMOTE | _IS_REMOTE if context and context.is_remote else _HAS_IS_REMOTE


def _status(status: Status | None) -> message_types.Status | None:
    if status is None:
        return None
    code, description = status.status_code, status.description
    if code is StatusCode.UNSET:  # and thus without a description
        return _UNSET
    return message_types.Status(message=description or "", code=code.value)


def _event(event: Event, index: int) -> message_types.Event:
    return message_types.Event(
        time_unix_nano=event.timestamp or 0,
        name=str(event.name),
        attributes=plain_attributes(event.attributes, f"events[{index}].attributes"),  # type: ignore[arg-type]  # read already
        dropped_attributes_count=event.dropped_attributes,
    )


def _link(link: Link, index: int) -> message_types.Link:
    context = link.context
    state = context.trace_state
    return message_types.Link(
        trace_id=f"{context.trace_id:032x}",
        span_id=f"{context.span_id:016x}",
        trace_state=_state(state) if state else "",
        attributes=plain_attributes(link.attributes, f"links[{index}].attributes"),  # type: ignore[arg-type]  # read already
        dropped_attributes_count=link.dropped_attributes,
        flags=flags_of(context),
    )
