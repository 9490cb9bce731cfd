"""Makes rows of the SDK's spans directly, which costs less than messages of OTLP in between.

A span with events or links, or with anything unusual, is left to `sdk_spans`, whose messages make
equal rows of spans that are plain here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from opentelemetry.sdk.trace import ReadableSpan

from observatory_storage import ids
from observatory_storage.models import KINDS
from observatory_storage.otel.sdk_spans import fields_of, flags_of
from observatory_storage.otel.sdk_values import plain_attributes
from observatory_storage.otlp.message_types import STATUSES
from observatory_storage.otlp.plain_spans import Noted, PlainSpans
from observatory_storage.otlp.protojson import moment, named
from observatory_storage.otlp.resource_scope import Group
from observatory_storage.rows import Row

__all__ = ["plain_sdk_rows"]

_MAX_TRACE_ID: Final = 2**128 - 1
_MAX_SPAN_ID: Final = 2**64 - 1


def plain_sdk_rows(spans: Sequence[ReadableSpan], group: Group) -> list[Row | None]:
    """The rows of spans of a group; None for each that is not plain."""
    nothing: list[Row | None] = [None] * len(spans)
    if group.error is not None:
        return nothing
    found = PlainSpans(len(spans), group.origin)
    for index, span in enumerate(spans if found.are_possible else ()):
        try:
            read = _read(span)
        except Exception:  # noqa: BLE001, S112 - the conversion to messages tells what is wrong
            continue
        if read is not None:
            found.add(index, *read)
    try:
        return found.rows()
    except Exception:  # noqa: BLE001 - as above
        return nothing


def _read(span: ReadableSpan) -> tuple[tuple[Any, ...], Noted, dict[str, Any]] | None:
    """What `PlainSpans.add` takes, or None if the span is not plain.

    Raises:
        Exception: the span is not as the SDK makes spans, or an attribute is nested too deeply.
    """
    context, parent, given, kind, start, end, own, events, links, status = fields_of(span)
    name, whole_name = named(given)
    if (
        events
        or links
        or context.trace_state
        or not start
        or not end
        or end < start
        or type(given) is not str
        or whole_name is not None
        or not 0 < context.trace_id <= _MAX_TRACE_ID
        or not 0 < context.span_id <= _MAX_SPAN_ID
        or (parent and not 0 < parent.span_id <= _MAX_SPAN_ID)
    ):
        return None
    plain, note = plain_attributes(own, "attributes")
    if note is not None:
        return None
    values = (
        ids.trace_uuid(f"{context.trace_id:032x}"),
        f"{context.span_id:016x}",
        f"{parent.span_id:016x}" if parent else None,
        name,
        KINDS[kind.value + 1],  # OTLP has one more kind, for spans of unknown kind
        STATUSES[status.status_code.value],
        status.description or None,
        *moment(start),
        *moment(end),
    )
    noted = (
        *(False, "", flags_of(parent)),
        *(getattr(own, "dropped", 0), getattr(events, "dropped", 0), getattr(links, "dropped", 0)),
    )
    return values, noted, plain
