"""Converts log records of OTLP to rows of `logs`, and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from observatory_storage import ids, jsonb
from observatory_storage.errors import ValidationError
from observatory_storage.otlp import protojson
from observatory_storage.otlp.any_values import (
    ABSENT,
    any_value,
    key_values,
    plain_map,
    plain_value,
)
from observatory_storage.otlp.json_reader import read_item, within
from observatory_storage.otlp.message_types import LogRecord, present
from observatory_storage.otlp.resource_scope import (
    Group,
    Item,
    Origin,
    groups,
    refused_items,
)
from observatory_storage.otlp.timeless_logs import is_timeless

__all__ = ["ID_ATTRIBUTE", "KEYS", "keep_ids", "log_items", "log_of", "log_rows"]

KEYS: Final = ("resourceLogs", "scopeLogs", "logRecords")

_MOST_SEVERE: Final = 24
_EMPTY_BODY: Final = "empty"
_IDENTIFIERS: Final = (("trace_id", "traceId", 32), ("span_id", "spanId", 16))
# An exported record has its id here where ingesting it would compute another one.
ID_ATTRIBUTE: Final = "observatory_storage.log.id"


def log_rows(request: Any) -> Iterator[Item]:
    """The log records of a request.

    Raises:
        ValidationError: a list of the request is not valid.
    """
    # All groups are read before any item: an invalid request stores nothing.
    return log_items(list(groups(request, KEYS)))


def log_items(request: Iterable[Group]) -> Iterator[Item]:
    """The log records of the groups of one request."""
    # By the integer of an id, since a UUID is hashed in Python.
    equals: dict[int, int] = {}
    ingested = datetime.now(UTC)
    for group in request:
        if group.error is not None:
            yield from refused_items(group)
            continue
        origin = group.origin
        shared = {name: jsonb.shared(value) for name, value in origin.columns.items()}
        shared_notes = jsonb.shared(origin.otlp or None)
        for index, record in enumerate(group.items):
            path = f"{group.path}[{index}]"
            try:
                row = _log_row(read_item(LogRecord, record), origin, ingested)
            except ValidationError as error:
                yield Item(record, None, within(path, error), path)
                continue
            if ID_ATTRIBUTE in row["attributes"] and (own_id := _take_id(row)) is not None:
                row["id"] = own_id
                yield Item(record, row, None, path)
                continue
            # Log records have no id. Equal records of one request differ by their ordinal.
            content = _content(row) | shared
            if row["otlp"] is (origin.otlp or None):
                content["otlp"] = shared_notes
            unsure = row["attributes"], row.get("body_json"), content["otlp"]
            first = ids.log_id(content, 0, unsure)
            ordinal = equals.get(first.int, 0)
            equals[first.int] = ordinal + 1
            row["id"] = ids.log_id(content, ordinal) if ordinal else first
            yield Item(record, row, None, path)


def _content(row: dict[str, Any]) -> dict[str, Any]:
    """What the id of a record is computed from: all that was sent, so not the time of ingest."""
    return row | {"timestamp": None} if is_timeless(row) else row


def keep_ids(request: Mapping[str, Any], own_ids: Mapping[int, UUID]) -> None:
    """Add the ids to the exported records to which ingesting the request would give others.

    These are records that a writer gave a random id, and equal records of several requests.

    Args:
        own_ids: the id of each record, by the `id` of the object.
    """
    items = list(log_rows(request))
    if {item.row["id"] if item.row else None for item in items} == set(own_ids.values()):
        return
    for item in items:
        record, row = item.source, item.row or {}
        own_id = own_ids[id(record)]
        # An ordinal depends on which other records are without an id.
        content = {name: value for name, value in row.items() if name != "id"}
        if not row or ids.log_id(_content(content), 0) != own_id:
            value = {"stringValue": str(own_id)}
            record.setdefault("attributes", []).append({"key": ID_ATTRIBUTE, "value": value})


def _take_id(row: dict[str, Any]) -> UUID | None:
    """The id that `keep_ids` has added to a record, which its attributes then lack."""
    with suppress(ValidationError):  # of an application's own attribute of this name
        own_id = ids.uuid_of(row["attributes"][ID_ATTRIBUTE], ID_ATTRIBUTE)
        row["attributes"] = _without_id(row["attributes"])
        note = (row["otlp"] or {}).get("attributes")
        if isinstance(note, list):
            row["otlp"]["attributes"] = [one for one in note if one["key"] != ID_ATTRIBUTE]
        return own_id
    return None


def _without_id(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in attributes.items() if key != ID_ATTRIBUTE}


def _log_row(record: Any, origin: Origin, ingested: datetime) -> dict[str, Any]:
    """The row of a record. Without any time, it has the time of ingest."""
    notes: dict[str, Any] = {}
    time, observed = record.time_unix_nano, record.observed_time_unix_nano
    observed_timestamp, observed_ns = protojson.moment(observed) if observed else (None, 0)
    if observed_ns:
        notes["observed_ns"] = observed_ns
    if time:
        timestamp, timestamp_ns = protojson.moment(time)
    else:
        notes["time"] = ABSENT
        timestamp, timestamp_ns = observed_timestamp or ingested, observed_ns
    attributes, note = plain_map(record.attributes, "attributes")
    if note is not None:
        notes["attributes"] = note
    row: dict[str, Any] = {
        **origin.columns,
        "timestamp": timestamp,
        "timestamp_ns": timestamp_ns,
        "observed_timestamp": observed_timestamp,
        "severity_text": record.severity_text or None,
        "event_name": record.event_name or None,
        "trace_flags": record.flags or None,
        "attributes": attributes,
    }
    severity = record.severity_number
    if 0 <= severity <= _MOST_SEVERE:
        row["severity_number"] = severity or None
    else:
        notes["severity_number"] = severity
    _take_body(present(record, "body"), row, notes)
    for column, field, digits in _IDENTIFIERS:
        identifier = protojson.identifier(getattr(record, column), field, digits)
        if identifier.strip("0"):
            row[column] = identifier
        elif identifier:
            notes[column] = identifier
    if record.dropped_attributes_count:
        notes["dropped_attributes_count"] = record.dropped_attributes_count
    # Mostly the notes of the origin alone: as one object, they are encoded once for all records.
    row["otlp"] = origin.otlp | notes if notes else origin.otlp or None
    return row


def _take_body(body: Any, row: dict[str, Any], notes: dict[str, Any]) -> None:
    if body is None:
        return
    plain, note = plain_value(body, "body")
    if isinstance(plain, str) and note is None:
        row["body"] = plain
    elif plain is not None:
        row["body_json"] = plain
        if note is not None:
            notes["body"] = note
    else:
        notes["body"] = _EMPTY_BODY


def log_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The OTLP/JSON of a log record, from a row with all columns."""
    otlp = row["otlp"] or {}
    record: dict[str, Any] = {}
    time = protojson.nanoseconds(row["timestamp"], row["timestamp_ns"])
    if otlp.get("time") != ABSENT and time:
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
