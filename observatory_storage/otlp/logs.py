"""Converts log records of OTLP to rows of `logs`, and back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Final
from uuid import UUID

from observatory_storage import ids
from observatory_storage.errors import ValidationError
from observatory_storage.otlp import protojson
from observatory_storage.otlp.any_values import any_value, key_values, plain_map, plain_value
from observatory_storage.otlp.resource_scope import Item, Origin, groups

__all__ = ["ID_ATTRIBUTE", "KEYS", "keep_ids", "log_of", "log_rows"]

KEYS: Final = ("resourceLogs", "scopeLogs", "logRecords")

_LEVELS: Final = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")
_SEVERITY_NAMES: Final = {"SEVERITY_NUMBER_UNSPECIFIED": 0} | {
    f"SEVERITY_NUMBER_{level}{step or ''}": index * 4 + max(step, 1)
    for index, level in enumerate(_LEVELS)
    for step in (0, 2, 3, 4)
}
_MOST_SEVERE: Final = 24
_EMPTY_BODY: Final = "empty"
# An exported record has its id here where ingesting it would compute another one.
ID_ATTRIBUTE: Final = "observatory_storage.log.id"


def log_rows(request: Mapping[str, Any]) -> Iterator[Item]:
    """The log records of a request.

    Raises:
        ValidationError: the request is invalid outside of the records.
    """
    equals: Counter[Any] = Counter()
    for group in groups(request, KEYS):
        for index, record in enumerate(group.items):
            own_id, content = _take_id(record)
            try:
                row = _log_row(content, group.origin)
            except ValidationError as error:
                field = f"{group.path}[{index}].{error.field}".rstrip(".")
                yield Item(record, None, ValidationError(field, error.value, error.rule))
                continue
            if own_id is not None:
                row["id"] = own_id
                yield Item(record, row)
                continue
            # Log records have no id. Equal records of one request differ by their ordinal.
            first = ids.log_id(row, 0)
            ordinal = equals[first]
            equals[first] += 1
            row["id"] = ids.log_id(row, ordinal) if ordinal else first
            yield Item(record, row)


def keep_ids(request: Mapping[str, Any], own_ids: Mapping[int, UUID]) -> None:
    """Add the ids to the exported records to which ingesting the request would give others.

    These are records that a writer gave a random id, and equal records of several requests.

    Args:
        own_ids: the id of each record, by the `id` of the object.
    """
    items = list(log_rows(request))
    if {item.row["id"] if item.row else None for item in items} == set(own_ids.values()):
        return
    for record, row, _ in items:
        own_id = own_ids[id(record)]
        # An ordinal depends on which other records are without an id.
        content = {name: value for name, value in (row or {}).items() if name != "id"}
        if ids.log_id(content, 0) != own_id:
            value = {"stringValue": str(own_id)}
            record.setdefault("attributes", []).append({"key": ID_ATTRIBUTE, "value": value})


def _take_id(record: Any) -> tuple[UUID | None, Any]:
    """The id that `keep_ids` has added to a record, and the record without it."""
    # Anything that is not a list of attributes is told of when the record becomes a row.
    with suppress(AttributeError, KeyError, TypeError, ValidationError):
        pairs = record["attributes"]
        keys = [pair.get("key") for pair in pairs]
        if ID_ATTRIBUTE in keys:
            index = keys.index(ID_ATTRIBUTE)
            own_id = ids.uuid_of(pairs[index]["value"]["stringValue"], ID_ATTRIBUTE)
            return own_id, {**record, "attributes": pairs[:index] + pairs[index + 1 :]}
    return None, record


def _log_row(record: Any, origin: Origin) -> dict[str, Any]:
    if not isinstance(record, Mapping):
        raise ValidationError("", record, "must be a log record: an object")
    get = record.get
    otlp = dict(origin.otlp)
    time = protojson.uint64(get("timeUnixNano"), "timeUnixNano")
    observed = protojson.uint64(get("observedTimeUnixNano"), "observedTimeUnixNano")
    observed_timestamp, observed_ns = protojson.moment(observed) if observed else (None, 0)
    if observed_ns:
        otlp["observed_ns"] = observed_ns
    if observed and not time:
        otlp["time"] = "absent"
    timestamp, timestamp_ns = protojson.moment(time or observed)
    attributes, note = plain_map(get("attributes"), "attributes")
    if note is not None:
        otlp["attributes"] = note
    row: dict[str, Any] = {
        **origin.columns,
        "timestamp": timestamp,
        "timestamp_ns": timestamp_ns,
        "observed_timestamp": observed_timestamp,
        "severity_text": protojson.text(get("severityText"), "severityText") or None,
        "event_name": protojson.text(get("eventName"), "eventName") or None,
        "trace_flags": protojson.uint32(get("flags"), "flags") or None,
        "attributes": attributes,
    }
    severity = protojson.enum(get("severityNumber"), "severityNumber", _SEVERITY_NAMES)
    if 0 <= severity <= _MOST_SEVERE:
        row["severity_number"] = severity or None
    else:
        otlp["severity_number"] = severity
    _take_body(get("body"), row, otlp)
    for column, name, digits in (("trace_id", "traceId", 32), ("span_id", "spanId", 16)):
        identifier = protojson.hex_id(get(name), name, digits)
        if identifier.strip("0"):
            row[column] = identifier
        elif identifier:
            otlp[column] = identifier
    dropped = protojson.uint32(get("droppedAttributesCount"), "droppedAttributesCount")
    if dropped:
        otlp["dropped_attributes_count"] = dropped
    row["otlp"] = otlp or None
    return row


def _take_body(body: Any, row: dict[str, Any], otlp: dict[str, Any]) -> None:
    plain, note = plain_value(body, "body")
    if isinstance(plain, str) and note is None:
        row["body"] = plain
    elif plain is not None:
        row["body_json"] = plain
        if note is not None:
            otlp["body"] = note
    elif body is not None:
        otlp["body"] = _EMPTY_BODY


def log_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The OTLP/JSON of a log record, from a row with all columns."""
    otlp = row["otlp"] or {}
    record: dict[str, Any] = {}
    time = protojson.nanoseconds(row["timestamp"], row["timestamp_ns"])
    if otlp.get("time") != "absent" and time:
        record["timeUnixNano"] = str(time)
    observed = protojson.nanoseconds(row["observed_timestamp"], otlp.get("observed_ns", 0))
    if row["observed_timestamp"] is not None and observed:
        record["observedTimeUnixNano"] = str(observed)
    severity = otlp.get("severity_number", row["severity_number"])
    if severity:
        record["severityNumber"] = severity
    if row["severity_text"]:
        record["severityText"] = row["severity_text"]
    body = _body_of(row, otlp.get("body"))
    if body is not None:
        record["body"] = body
    pairs = key_values(row["attributes"], otlp.get("attributes"))
    if pairs:
        record["attributes"] = pairs
    if "dropped_attributes_count" in otlp:
        record["droppedAttributesCount"] = otlp["dropped_attributes_count"]
    if row["trace_flags"]:
        record["flags"] = row["trace_flags"]
    trace_id = row["trace_id"].hex if row["trace_id"] else otlp.get("trace_id")
    if trace_id:
        record["traceId"] = trace_id
    span_id = row["span_id"] or otlp.get("span_id")
    if span_id:
        record["spanId"] = span_id
    if row["event_name"]:
        record["eventName"] = row["event_name"]
    return record


def _body_of(row: Mapping[str, Any], note: Any) -> dict[str, Any] | None:
    if row["body"] is not None:
        return {"stringValue": row["body"]}
    if row["body_json"] is not None:
        return any_value(row["body_json"], note)
    return {} if note == _EMPTY_BODY else None
