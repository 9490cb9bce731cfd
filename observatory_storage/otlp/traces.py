"""Converts spans of OTLP to rows of `trace_spans` and `trace_events`, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from observatory_storage import ids
from observatory_storage.errors import ValidationError
from observatory_storage.models import KINDS
from observatory_storage.otlp import protojson
from observatory_storage.otlp.any_values import key_values, plain_map
from observatory_storage.otlp.resource_scope import Item, Origin, groups

__all__ = ["KEYS", "span_of", "span_rows"]

KEYS: Final = ("resourceSpans", "scopeSpans", "spans")

_NO_TRACE: Final = "0" * 32
_NO_SPAN: Final = "0" * 16
_KIND_NAMES: Final = {f"SPAN_KIND_{kind.upper()}": number for number, kind in enumerate(KINDS)}
_STATUSES: Final = ("unset", "ok", "error")  # by their number in OTLP
_STATUS_NAMES: Final = {
    f"STATUS_CODE_{status.upper()}": number for number, status in enumerate(_STATUSES)
}
_DROPPED: Final = (
    ("droppedAttributesCount", "dropped_attributes_count"),
    ("droppedEventsCount", "dropped_events_count"),
    ("droppedLinksCount", "dropped_links_count"),
)


def span_rows(request: Mapping[str, Any]) -> Iterator[Item]:
    """The spans of a request. Each row has its events under ``events``.

    Raises:
        ValidationError: the request is invalid outside of the spans.
    """
    for group in groups(request, KEYS):
        for index, span in enumerate(group.items):
            try:
                yield Item(span, _span_row(span, group.origin))
            except ValidationError as error:
                field = f"{group.path}[{index}].{error.field}".rstrip(".")
                yield Item(span, None, ValidationError(field, error.value, error.rule))


def _span_row(span: Any, origin: Origin) -> dict[str, Any]:
    if not isinstance(span, Mapping):
        raise ValidationError("", span, "must be a span: an object")
    get = span.get
    otlp = dict(origin.otlp)
    start_time, start_ns = protojson.moment(
        protojson.uint64(get("startTimeUnixNano"), "startTimeUnixNano")
    )
    end = protojson.uint64(get("endTimeUnixNano"), "endTimeUnixNano")
    end_time, end_ns = protojson.moment(end) if end else (None, 0)
    name, whole_name = protojson.named(protojson.text(get("name"), "name"))
    if whole_name is not None:
        otlp["name"] = whole_name
    attributes, note = plain_map(get("attributes"), "attributes")
    if note is not None:
        otlp["attributes"] = note
    row = {
        **origin.columns,
        "trace_id": _required_id(get("traceId"), "traceId", _NO_TRACE),
        "span_id": _required_id(get("spanId"), "spanId", _NO_SPAN),
        "name": name,
        "start_time": start_time,
        "start_ns": start_ns,
        "end_time": end_time,
        "end_ns": end_ns,
        "attributes": attributes,
        "events": [],
    }
    parent = protojson.hex_id(get("parentSpanId"), "parentSpanId", 16)
    if parent == _NO_SPAN:
        otlp["parent_span_id"] = parent
    elif parent:
        row["parent_span_id"] = parent
    kind = protojson.enum(get("kind"), "kind", _KIND_NAMES)
    if 0 <= kind < len(KINDS):
        row["kind"] = KINDS[kind]
    else:
        row["kind"], otlp["kind"] = KINDS[0], kind
    _take_status(get("status"), row, otlp)
    if "links" in span:
        row["links"] = _links(span["links"], otlp)
    if "events" in span:
        events = protojson.items(span["events"], "events")
        row["events"] = [_event(event, f"events[{index}]") for index, event in enumerate(events)]
    # Most spans have none of these fields. One check of the keys replaces five lookups.
    if not _RARE_FIELDS.isdisjoint(span):
        _take_rare_fields(span, otlp)
    row["otlp"] = otlp or None
    return row


_RARE_FIELDS: Final = frozenset({"traceState", "flags", *(name for name, _ in _DROPPED)})


def _take_rare_fields(span: Mapping[str, Any], otlp: dict[str, Any]) -> None:
    state = protojson.text(span.get("traceState"), "traceState")
    if state:
        otlp["trace_state"] = state
    flags = protojson.uint32(span.get("flags"), "flags")
    if flags:
        otlp["flags"] = flags
    for name, key in _DROPPED:
        count = protojson.uint32(span.get(name), name)
        if count:
            otlp[key] = count


def _take_status(given: Any, row: dict[str, Any], otlp: dict[str, Any]) -> None:
    status = protojson.message(given, "status")
    if status is None:
        # SDKs and the Collector always send a status, even an empty one, so its absence is noted.
        otlp["status"] = "absent"
        return
    code = protojson.enum(status.get("code"), "status.code", _STATUS_NAMES)
    if 0 <= code < len(_STATUSES):
        row["status"] = _STATUSES[code]
    else:
        otlp["status"] = code
    row["status_message"] = protojson.text(status.get("message"), "status.message") or None


def _required_id(value: Any, field: str, zeros: str) -> str:
    given = protojson.hex_id(value, field, len(zeros))
    if not given or given == zeros:
        raise ValidationError(field, value, f"must be {len(zeros)} hex digits, not all zeros")
    return given


def _event(event: Any, field: str) -> dict[str, Any]:
    given = protojson.message(event, field) or {}
    time = protojson.uint64(given.get("timeUnixNano"), f"{field}.timeUnixNano")
    timestamp, timestamp_ns = protojson.moment(time)
    name, whole_name = protojson.named(protojson.text(given.get("name"), f"{field}.name"))
    attributes, note = plain_map(given.get("attributes"), f"{field}.attributes")
    otlp: dict[str, Any] = {}
    if whole_name is not None:
        otlp["name"] = whole_name
    if note is not None:
        otlp["attributes"] = note
    dropped = protojson.uint32(
        given.get("droppedAttributesCount"), f"{field}.droppedAttributesCount"
    )
    if dropped:
        otlp["dropped_attributes_count"] = dropped
    return {
        "name": name,
        "timestamp": timestamp,
        "timestamp_ns": timestamp_ns,
        "attributes": attributes,
        "otlp": otlp or None,
    }


def _links(given: Any, otlp: dict[str, Any]) -> list[dict[str, Any]]:
    links: list[dict[str, Any]] = []
    notes: dict[str, Any] = {}
    for index, link in enumerate(protojson.items(given, "links")):
        field = f"links[{index}]"
        given_link = protojson.message(link, field) or {}
        attributes, note = plain_map(given_link.get("attributes"), f"{field}.attributes")
        if note is not None:
            notes[str(index)] = note
        row: dict[str, Any] = {
            "trace_id": protojson.hex_id(given_link.get("traceId"), f"{field}.traceId"),
            "span_id": protojson.hex_id(given_link.get("spanId"), f"{field}.spanId"),
            "attributes": attributes,
        }
        state = protojson.text(given_link.get("traceState"), f"{field}.traceState")
        if state:
            row["trace_state"] = state
        for name, key in (("flags", "flags"), _DROPPED[0]):
            number = protojson.uint32(given_link.get(name), f"{field}.{name}")
            if number:
                row[key] = number
        links.append(row)
    if notes:
        otlp["links"] = notes
    return links


def span_of(row: Mapping[str, Any], events: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """The OTLP/JSON of a span, from rows with all columns; the events are in their order."""
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
    span["startTimeUnixNano"] = str(protojson.nanoseconds(row["start_time"], row["start_ns"]))
    span["endTimeUnixNano"] = str(protojson.nanoseconds(row["end_time"], row["end_ns"]))
    _add_attributes(span, row["attributes"], otlp.get("attributes"))
    if events:
        span["events"] = [_event_of(event) for event in events]
    if row["links"]:
        notes = otlp.get("links", {})
        span["links"] = [
            _link_of(link, notes.get(str(index))) for index, link in enumerate(row["links"])
        ]
    for name, key in _DROPPED:
        if key in otlp:
            span[name] = otlp[key]
    status = _status_of(row, otlp.get("status"))
    if status is not None:
        span["status"] = status
    return span


def _status_of(row: Mapping[str, Any], note: Any) -> dict[str, Any] | None:
    message = row["status_message"]
    code = note if isinstance(note, int) else _STATUSES.index(row["status"])
    if note == "absent" and not code and not message:
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
    event: dict[str, Any] = {
        "timeUnixNano": str(protojson.nanoseconds(row["timestamp"], row["timestamp_ns"])),
        "name": otlp.get("name", row["name"]),
    }
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
