"""LLM columns from the events of a span, where its attributes do not give them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from observatory_storage.llm.aliases import plain_readers_of
from observatory_storage.llm.dialects import USAGE_COLUMNS
from observatory_storage.llm.first_token import is_first_token, milliseconds_until
from observatory_storage.llm.readers import read_finish_reason, read_text
from observatory_storage.llm.token_details import TOKEN_DETAILS

__all__ = ["error_message", "fill_from_events"]

# An event may name the tools and agents that a call could use, and results of evaluations.
_NOT_OF_EVENTS: Final = frozenset({"tool_name", "agent_name", "environment", "error_type"})
# Attributes with the message of an error.
_MESSAGES: Final = ("langfuse.observation.status_message", "error.message", "exception.message")
_USAGE: Final = frozenset({*USAGE_COLUMNS, *TOKEN_DETAILS})


def fill_from_events(
    found: dict[str, Any],
    events: Sequence[Any],
    start_time: Any,
    duration_us: int | None,
    is_error: bool,
) -> None:
    """Add the facts that only the events of a span tell.

    Args:
        found: the facts of the span's attributes.
        events: `TraceEvent`s, or mappings with their columns.
        start_time: when the span started.
        duration_us: how long the span took; None if it is unknown.
        is_error: whether the span failed. Exceptions that were handled are not its error.
    """
    has_usage = not _USAGE.isdisjoint(found)
    first_token: float | None = None
    for name, attributes, timestamp in _read(events):
        if name == "exception":
            kind = read_text(attributes.get("exception.type")) if is_error else None
            if kind is not None:
                found.setdefault("error_type", kind)
            continue
        if is_first_token(name):
            passed = milliseconds_until(timestamp, start_time, duration_us)
            if passed is not None and (first_token is None or passed < first_token):
                first_token = passed
        if name.startswith("gen_ai.evaluation"):
            continue
        _take(found, attributes, has_usage)
        if name == "gen_ai.choice" and "finish_reason" not in found:
            reason = read_finish_reason(attributes.get("finish_reason"))
            if reason is not None:
                found["finish_reason"] = reason
    if first_token is not None:
        found.setdefault("ttft_ms", first_token)


def error_message(attributes: object, events: object) -> str | None:
    """The message of an error, from the attributes of its span or from the last exception in it."""
    message = None
    for name, of_event, _ in _read(events):
        if name == "exception":
            message = of_event.get("exception.message") or message
    if not message and isinstance(attributes, Mapping):
        message = next((attributes[key] for key in _MESSAGES if attributes.get(key)), None)
    return message if isinstance(message, str) else None


def _take(found: dict[str, Any], attributes: Mapping[str, Any], has_usage: bool) -> None:
    for key, (column, _, read, *_) in plain_readers_of(attributes):
        if column in found or column in _NOT_OF_EVENTS or (has_usage and column in _USAGE):
            continue
        value = read(attributes[key])
        if value is not None:
            found[column] = value


def _read(events: object) -> Iterator[tuple[str, Mapping[str, Any], Any]]:
    """The name, the attributes and the time of each event. Events are not checked yet."""
    if not isinstance(events, (list, tuple)):
        return
    for event in events:
        if isinstance(event, Mapping):
            name, attributes = event.get("name"), event.get("attributes")
            timestamp = event.get("timestamp")
        else:
            name, attributes = getattr(event, "name", None), getattr(event, "attributes", None)
            timestamp = getattr(event, "timestamp", None)
        if isinstance(name, str):
            yield name, attributes if isinstance(attributes, Mapping) else {}, timestamp
