"""The event dict of structlog as the columns of a log record."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from observatory_storage.recording.exception_attributes import exception_attributes

__all__ = ["row_of_event"]

# What structlog's processors add -> the attribute that it becomes.
_ATTRIBUTES: Final = {
    "pathname": "code.file.path",
    "lineno": "code.line.number",
    "func_name": "code.function.name",
    "qual_name": "code.function.name",
    "thread": "thread.id",
    "thread_name": "thread.name",
    "stack": "code.stacktrace",
}
_LEFT_OUT: Final = frozenset(
    {"event", "level", "level_number", "logger", "logger_name", "exc_info", "exception"}
    | {"timestamp", "process", "stack_info"}
)


def row_of_event(event: Mapping[str, Any], attributes: dict[str, Any]) -> dict[str, Any]:
    """The columns that an event dict tells; its other keys are added to the attributes."""
    row: dict[str, Any] = {}
    message = event.get("event")
    if isinstance(message, str):
        row["body"] = message
    elif isinstance(message, (Mapping, list)):
        row["body_json"] = message
    elif message is not None:
        row["body"] = str(message)
    for name in ("logger", "logger_name"):
        if isinstance(event.get(name), str):
            row["scope_name"] = event[name]
    time = _time(event.get("timestamp"))
    if time is not None:
        row["timestamp"] = time
    elif event.get("timestamp") is not None:
        attributes["timestamp"] = event["timestamp"]  # in a form of the application's own
    for name, value in event.items():
        if name not in _LEFT_OUT and not str(name).startswith("_"):
            attributes[_ATTRIBUTES.get(name, name)] = value
    _add_exception(event, attributes)
    return row


def _add_exception(event: Mapping[str, Any], attributes: dict[str, Any]) -> None:
    given = event.get("exc_info")
    if given is True:
        given = sys.exc_info()
    error = given[1] if isinstance(given, tuple) and len(given) == 3 else given
    if isinstance(error, BaseException):
        attributes |= exception_attributes(error)
    rendered = event.get("exception")
    if isinstance(rendered, str):
        attributes.setdefault("exception.stacktrace", rendered)
    elif rendered is not None:  # of `dict_tracebacks`
        attributes["exception"] = rendered


def _time(value: Any) -> datetime | None:
    """The time that `TimeStamper` has written: ISO 8601, or seconds. Without a zone, it is UTC."""
    try:
        if isinstance(value, datetime):
            time = value
        elif isinstance(value, str):
            time = datetime.fromisoformat(value)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
        else:
            return None
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return None
