"""Log records of the SDK as messages of OTLP, from which `otlp` makes rows."""

from __future__ import annotations

from opentelemetry.sdk._logs import ReadableLogRecord

from observatory_storage.otel.sdk_values import plain_attributes, plain_sdk_value
from observatory_storage.otlp import message_types

__all__ = ["log_message"]


def log_message(given: ReadableLogRecord) -> message_types.LogRecord:
    """The message of a log record, with its attributes and body as JSON.

    Raises:
        ValidationError: a value is nested too deeply.
        Exception: the record is not as the SDK makes records.
    """
    record = given.log_record
    severity, trace_id, span_id = record.severity_number, record.trace_id, record.span_id
    return message_types.LogRecord(
        time_unix_nano=record.timestamp or 0,
        observed_time_unix_nano=record.observed_timestamp or 0,
        severity_number=severity.value if severity else 0,
        severity_text=record.severity_text or "",
        body=plain_sdk_value(record.body, "body"),  # type: ignore[arg-type]  # read already
        attributes=plain_attributes(record.attributes, "attributes"),  # type: ignore[arg-type]  # read already
        dropped_attributes_count=given.dropped_attributes,
        flags=int(record.trace_flags or 0),
        trace_id=f"{trace_id:032x}" if trace_id else "",
        span_id=f"{span_id:016x}" if span_id else "",
        event_name=record.event_name or "",
    )
