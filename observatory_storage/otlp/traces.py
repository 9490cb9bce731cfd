"""Converts spans of OTLP to rows of `trace_spans` and `trace_events`, and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice, repeat
from typing import Any, Final

from observatory_storage import ids
from observatory_storage.errors import ValidationError
from observatory_storage.models import KINDS
from observatory_storage.otlp import protojson
from observatory_storage.otlp.any_values import ABSENT, Note, key_values, plain_map
from observatory_storage.otlp.json_reader import read_item, within
from observatory_storage.otlp.message_types import STATUSES, Span, present
from observatory_storage.otlp.plain_spans import RARE_FIELDS, plain_span_rows, rare_of
from observatory_storage.otlp.resource_scope import (
    Group,
    Item,
    Origin,
    groups,
    refused_items,
)
from observatory_storage.otlp.span_ids import NO_SPAN, ids_of
from observatory_storage.rows import PART

__all__ = ["COLUMNS", "KEYS", "span_items", "span_of", "span_rows", "span_with"]

KEYS: Final = ("resourceSpans", "scopeSpans", "spans")

# The columns from which a span is exported. All others are computed from these.
COLUMNS: Final = (
    *("trace_id", "span_id", "parent_span_id", "name", "kind", "start_time", "start_ns"),
    *("end_time", "end_ns", "status", "status_message", "attributes", "links", "otlp"),
    *("service_name", "resource_attributes", "scope_name", "scope_version", "scope_attributes"),
)

_DROPPED: Final = (
    ("droppedAttributesCount", "dropped_attributes_count"),
    ("droppedEventsCount", "dropped_events_count"),
    ("droppedLinksCount", "dropped_links_count"),
)


def span_rows(request: Any, *, as_mappings: bool = False) -> Iterator[Item]:
    """The spans of a request. Each row has its events.

    Args:
        request: a message, or parsed OTLP/JSON.
        as_mappings: whether all rows are mappings, which rules can change; otherwise most of them
            are prepared.

    Raises:
        ValidationError: a list of the request is not valid.
    """
    # All groups are read before any item: an invalid request stores nothing.
    for group in list(groups(request, KEYS)):
        if group.error is not None:
            yield from refused_items(group)
        else:
            yield from span_items(group, as_mappings=as_mappings)


def span_items(group: Group, *, as_mappings: bool = False) -> Iterator[Item]:
    """The spans of one resource and scope, as `span_rows` gives them."""
    remaining = iter(group.items)
    first = 0
    while items := list(islice(remaining, PART)):
        spans = list(map(_span_or_error, items))
        prepared = repeat(None) if as_mappings else plain_span_rows(spans, group.origin)
        read = zip(items, spans, prepared, strict=False)
        for index, (item, span, row) in enumerate(read, first):
            path = f"{group.path}[{index}]"
            if row is None:
                yield _mapped(item, span, group.origin, path)
            else:
                yield Item(item, row, None, path)
        first += len(items)


def _span_or_error(item: Any) -> Any:
    try:
        return read_item(Span, item)
    except ValidationError as error:
        return error


def _mapped(item: Any, span: Any, origin: Origin, path: str) -> Item:
    """An item whose row is a mapping.

    Args:
        item: the span as it was sent.
        span: the message, or why it could not be read.
    """
    dropped: list[ValidationError] = []
    try:
        if isinstance(span, ValidationError):
            raise span
        row = _span_row(span, origin, dropped)
    except ValidationError as error:
        return Item(item, None, within(path, error), path)
    return Item(item, row, None, path, [within(path, error) for error in dropped])


def _span_row(span: Any, origin: Origin, dropped: list[ValidationError]) -> dict[str, Any]:
    """The row of a span.

    Args:
        dropped: gets the errors of links that are not valid.
    """
    otlp = origin.otlp.copy()
    trace_id, span_id, parent = ids_of(span)
    start, end = span.start_time_unix_nano, span.end_time_unix_nano
    end_time, end_ns = protojson.moment(end) if end else (None, 0)
    if start:
        start_time, start_ns = protojson.moment(start)
    elif end_time is not None:
        otlp["start"] = ABSENT
        start_time, start_ns = end_time, end_ns
    else:
        raise ValidationError(
            "startTimeUnixNano", start, "is required, or at least endTimeUnixNano"
        )
    name, whole_name = protojson.named(span.name)
    if whole_name is not None:
        otlp["name"] = whole_name
    attributes, note = plain_map(span.attributes, "attributes")
    if note is not None:
        otlp["attributes"] = note
    if parent == NO_SPAN:
        otlp["parent_span_id"] = parent
        parent = ""
    kind = span.kind
    if not 0 <= kind < len(KINDS):
        otlp["kind"], kind = kind, 0
    row = {
        **origin.columns,
        "trace_id": trace_id,
        "span_id": span_id,
        "parent_span_id": parent or None,
        "name": name,
        "kind": KINDS[kind],
        "start_time": start_time,
        "start_ns": start_ns,
        "end_time": end_time,
        "end_ns": end_ns,
        "attributes": attributes,
        "events": [
            _event(event, f"events[{index}]", start_time, start_ns)
            for index, event in enumerate(span.events)
        ],
    }
    _take_status(present(span, "status"), row, otlp)
    if span.links:
        row["links"] = _links(span.links, otlp, dropped)
    rare = zip(RARE_FIELDS, rare_of(span), strict=True)
    otlp |= {field: value for field, value in rare if value}
    row["otlp"] = otlp or None
    return row


def _take_status(status: Any, row: dict[str, Any], otlp: dict[str, Any]) -> None:
    if status is None:
        # SDKs and the Collector always send a status, even an empty one, so its absence is noted.
        otlp["status"] = ABSENT
        return
    code = status.code
    if 0 <= code < len(STATUSES):
        row["status"] = STATUSES[code]
    else:
        otlp["status"] = code
    row["status_message"] = status.message or None


def _event(event: Any, field: str, start_time: datetime, start_ns: int) -> dict[str, Any]:
    """The row of an event. Without a time, it has the start of its span."""
    time = event.time_unix_nano
    timestamp, timestamp_ns = protojson.moment(time) if time else (start_time, start_ns)
    name, whole_name = protojson.named(event.name)
    attributes, note = plain_map(event.attributes, f"{field}.attributes")
    otlp: dict[str, Any] = {} if time else {"time": ABSENT}
    if whole_name is not None:
        otlp["name"] = whole_name
    if note is not None:
        otlp["attributes"] = note
    if event.dropped_attributes_count:
        otlp["dropped_attributes_count"] = event.dropped_attributes_count
    return {
        "name": name,
        "timestamp": timestamp,
        "timestamp_ns": timestamp_ns,
        "attributes": attributes,
        "otlp": otlp or None,
    }


def _links(
    given: Iterable[Any], otlp: dict[str, Any], dropped: list[ValidationError]
) -> list[dict[str, Any]]:
    links: list[dict[str, Any]] = []
    notes: dict[str, Any] = {}
    for index, link in enumerate(given):
        try:
            row, note = _link(link, f"links[{index}]")
        except ValidationError as error:
            dropped.append(error)
            continue
        if note is not None:
            notes[str(len(links))] = note
        links.append(row)
    if notes:
        otlp["links"] = notes
    return links


def _link(link: Any, field: str) -> tuple[dict[str, Any], Note]:
    if isinstance(link, ValidationError):  # found by the reader
        raise link
    attributes, note = plain_map(link.attributes, f"{field}.attributes")
    row: dict[str, Any] = {
        "trace_id": protojson.identifier(link.trace_id, f"{field}.traceId"),
        "span_id": protojson.identifier(link.span_id, f"{field}.spanId"),
        "attributes": attributes,
    }
    for key in ("trace_state", "flags", "dropped_attributes_count"):
        value = getattr(link, key)
        if value:
            row[key] = value
    return row, note


def span_of(row: Mapping[str, Any], events: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """The OTLP/JSON of a span, from rows with all columns; the events are in their order."""
    return span_with(row, row["attributes"], row["links"], events)


def span_with(
    row: Mapping[str, Any],
    attributes: Mapping[str, Any] | None,
    links: Sequence[Mapping[str, Any]] | None,
    events: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """The same, whatever the row has as its attributes and links."""
    otlp = row["otlp"] or {}
    span: dict[str, Any] = {"traceId": row["trace_id"].hex, "spanId": row["span_id"]}
    if "trace_state" in otlp:
        span["traceState"] = otlp["trace_state"]
    parent = row["parent_span_id"] or otlp.get("parent_span_id")
    if parent:
        span["parentSpanId"] = parent
    if "flags" in otlp:
        span["flags"] = otlp["flags"]
    span["name"] = otlp.get("name", row["name"])
    span["kind"] = otlp.get("kind", KINDS.index(row["kind"]))
    if otlp.get("start") != ABSENT:
        span["startTimeUnixNano"] = str(protojson.nanoseconds(row["start_time"], row["start_ns"]))
    span["endTimeUnixNano"] = str(protojson.nanoseconds(row["end_time"], row["end_ns"]))
    _add_attributes(span, attributes, otlp.get("attributes"))
    if events:
        span["events"] = [_event_of(event) for event in events]
    if links:
        notes = otlp.get("links", {})
        span["links"] = [_link_of(link, notes.get(str(index))) for index, link in enumerate(links)]
    for name, key in _DROPPED:
        if key in otlp:
            span[name] = otlp[key]
    status = _status_of(row, otlp)
    if status is not None:
        span["status"] = status
    return span


def _status_of(row: Mapping[str, Any], otlp: Mapping[str, Any]) -> dict[str, Any] | None:
    note = otlp.get("status")
    # The column may have the message of an exception among the events instead.
    message = otlp.get("status_message", row["status_message"])
    code = note if isinstance(note, int) else STATUSES.index(row["status"])
    if note == ABSENT and not code and not message:
        return None
    status: dict[str, Any] = {"message": message} if message else {}
    if code:
        status["code"] = code
    return status


def _add_attributes(target: dict[str, Any], attributes: Any, note: Any) -> None:
    pairs = key_values(attributes, note)
    if pairs:
        target["attributes"] = pairs


def _event_of(row: Mapping[str, Any]) -> dict[str, Any]:
    otlp = row["otlp"] or {}
    event: dict[str, Any] = {}
    if otlp.get("time") != ABSENT:
        event["timeUnixNano"] = str(protojson.nanoseconds(row["timestamp"], row["timestamp_ns"]))
    event["name"] = otlp.get("name", row["name"])
    _add_attributes(event, row["attributes"], otlp.get("attributes"))
    if "dropped_attributes_count" in otlp:
        event["droppedAttributesCount"] = otlp["dropped_attributes_count"]
    return event


def _link_of(link: Mapping[str, Any], note: Any) -> dict[str, Any]:
    result: dict[str, Any] = {
        "traceId": _linked_trace(link.get("trace_id")),
        "spanId": link.get("span_id") or "",
    }
    if "trace_state" in link:
        result["traceState"] = link["trace_state"]
    _add_attributes(result, link.get("attributes"), note)
    for name, key in (_DROPPED[0], ("flags", "flags")):
        if key in link:
            result[name] = link[key]
    return result


def _linked_trace(value: Any) -> str:
    """The trace id of a link in hex. A hand-written row may have a dashed UUID or any text."""
    if not value:
        return ""
    try:
        return protojson.hex_id(value, "trace_id")
    except ValidationError:
        return ids.trace_uuid(value).hex
