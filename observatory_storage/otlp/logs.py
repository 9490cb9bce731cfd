"""Log records of OTLP as rows of `logs`, and back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

from observatory_storage import ids
from observatory_storage.errors import ValidationError
from observatory_storage.otlp import wire
from observatory_storage.otlp.origins import Item, Origin, groups
from observatory_storage.otlp.values import any_value, key_values, plain_map, plain_value

__all__ = ["KEYS", "log_of", "log_rows"]

KEYS: Final = ("resourceLogs", "scopeLogs", "logRecords")

_LEVELS: Final = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")
_SEVERITY_NAMES: Final = {"SEVERITY_NUMBER_UNSPECIFIED": 0} | {
    f"SEVERITY_NUMBER_{level}{step or ''}": place * 4 + max(step, 1)
    for place, level in enumerate(_LEVELS)
    for step in (0, 2, 3, 4)
}
_MOST_SEVERE: Final = 24
_EMPTY_BODY: Final = "empty"


def log_rows(request: Mapping[str, Any]) -> Iterator[Item]:
    """The log records of a request.

    Raises:
        ValidationError: something outside the records is no OTLP.
    """
    equals: Counter[Any] = Counter()
    for group in groups(request, KEYS):
        for at, record in enumerate(group.items):
            try:
                row = _log_row(record, group.origin)
            except ValidationError as error:
                field = f"{group.path}[{at}].{error.field}".rstrip(".")
                yield Item(record, None, ValidationError(field, error.value, error.rule))
                continue
            # Records have no id: equal ones of a request are told apart by their order.
            first = ids.log_id(row, 0)
            ordinal = equals[first]
            equals[first] += 1
            row["id"] = ids.log_id(row, ordinal) if ordinal else first
            yield Item(record, row)


def _log_row(record: Any, origin: Origin) -> dict[str, Any]:
    if not isinstance(record, Mapping):
        raise ValidationError("", record, "must be a log record: an object")
    get = record.get
    otlp = dict(origin.otlp)
    time = wire.uint64(get("timeUnixNano"), "timeUnixNano")
    observed = wire.uint64(get("observedTimeUnixNano"), "observedTimeUnixNano")
    observed_timestamp, observed_ns = wire.moment(observed) if observed else (None, 0)
    if observed_ns:
        otlp["observed_ns"] = observed_ns
    if observed and not time:
        otlp["time"] = "absent"
    timestamp, timestamp_ns = wire.moment(time or observed)
    attributes, note = plain_map(get("attributes"), "attributes")
    if note is not None:
        otlp["attributes"] = note
    row: dict[str, Any] = {
        **origin.columns,
        "timestamp": timestamp,
        "timestamp_ns": timestamp_ns,
        "observed_timestamp": observed_timestamp,
        "severity_text": wire.text(get("severityText"), "severityText") or None,
        "event_name": wire.text(get("eventName"), "eventName") or None,
        "trace_flags": wire.uint32(get("flags"), "flags") or None,
        "attributes": attributes,
    }
    severity = wire.enum(get("severityNumber"), "severityNumber", _SEVERITY_NAMES)
    if 0 <= severity <= _MOST_SEVERE:
        row["severity_number"] = severity or None
    else:
        otlp["severity_number"] = severity
    _take_body(get("body"), row, otlp)
    for column, name, digits in (("trace_id", "traceId", 32), ("span_id", "spanId", 16)):
        identifier = wire.hex_id(get(name), name, digits)
        if identifier.strip("0"):
            row[column] = identifier
        elif identifier:
            otlp[column] = identifier
    dropped = wire.uint32(get("droppedAttributesCount"), "droppedAttributesCount")
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
    """A log record as OTLP/JSON, from its row (all columns)."""
    otlp = row["otlp"] or {}
    record: dict[str, Any] = {}
    time = wire.nanoseconds(row["timestamp"], row["timestamp_ns"])
    if otlp.get("time") != "absent" and time:
        record["timeUnixNano"] = str(time)
    observed = wire.nanoseconds(row["observed_timestamp"], otlp.get("observed_ns", 0))
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
