"""Converts OTLP requests from protobuf to OTLP/JSON.

This is the only module that needs the ``otel`` extra. It imports the extra when the first protobuf
request arrives.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

from observatory_storage.errors import ConfigError, ValidationError
from observatory_storage.otlp.broken_text import request_as_json
from observatory_storage.otlp.message_classes import lean_class, textless_class
from observatory_storage.otlp.message_types import snake
from observatory_storage.otlp.signals import METRIC_SIGNAL, SIGNALS, TRACE_SIGNAL, Signal

__all__ = ["is_message", "request_of_bytes", "request_of_message", "signal_of_bytes"]

_Change = Callable[[type[Any]], type[Any]]
_MAX_INSPECTED_ITEMS = 20  # enough to recognise the signal of a request


def is_message(payload: object) -> bool:
    """Whether the payload is a protobuf message. This does not import protobuf."""
    return hasattr(payload, "SerializeToString") and hasattr(payload, "DESCRIPTOR")


def request_of_message(message: Any) -> tuple[Signal, Any]:
    """The signal of a protobuf message, and the request of it, with attributes as bytes.

    Raises:
        ValidationError: the message is not an export request of OTLP.
    """
    name = message.DESCRIPTOR.full_name
    for signal in SIGNALS:
        # File exporters write TracesData, MetricsData and LogsData, which have the same fields.
        if name in (signal.message, _data_message(signal)):
            return signal, _parsed(message.SerializeToString(), signal, lean_class)
    known = ", ".join(signal.message for signal in SIGNALS)
    raise ValidationError("payload", name, f"must be one of {known}")


def request_of_bytes(payload: bytes, signal: Signal) -> Any:
    """A binary protobuf request of this signal, with attributes as bytes.

    Raises:
        ValidationError: the bytes are not such a request. If they carry another signal, the error
            names it.
        ConfigError: the extra is not installed.
    """
    message = _parsed(payload, signal, lean_class)
    # The bytes do not name their signal, and often parse as another one: check the items.
    if message is None or (_items(message, signal) and not _plausible(message, signal)):
        others = [other for other in SIGNALS if other is not signal]
        found = next((other for other in others if _is_of(payload, other)), None)
        if found is not None:
            rule = f"must be a request of {signal.name}, and is one of {found.name}"
            raise ValidationError("payload", payload, rule)
    if message is None:
        broken = _parsed(payload, signal, textless_class)
        if broken is not None and _plausible(broken, signal):
            return request_as_json(broken, signal.keys)
    if message is None or (payload and not _fits(message)):
        raise ValidationError("payload", payload, f"must be an OTLP request of {signal.name}")
    return message


def signal_of_bytes(payload: bytes) -> Signal:
    """The signal of a binary protobuf request.

    Raises:
        ValidationError: the bytes are not an OTLP request.
        ConfigError: the extra is not installed.
    """
    for change in (None, textless_class):
        for signal in SIGNALS:
            if _is_of(payload, signal, change):
                return signal
    raise ValidationError("payload", payload, "must be an OTLP request with at least one item")


def _is_of(payload: bytes, signal: Signal, change: _Change | None = None) -> bool:
    message = _parsed(payload, signal, change)
    return message is not None and _plausible(message, signal)


def _parsed(payload: bytes, signal: Signal, change: _Change | None = None) -> Any:
    """The message, or None if the bytes do not parse as one.

    Args:
        change: makes the class that parses them.
    """
    module = _imported(_module_name(signal))
    decode_error = _imported("google.protobuf.message").DecodeError
    kind = getattr(module, signal.message.rpartition(".")[2])
    message = kind() if change is None else change(kind)()
    try:
        message.ParseFromString(payload)
    except decode_error:
        return None
    return message


def _module_name(signal: Signal) -> str:
    package = signal.message.rpartition(".")[0]
    return f"{package}.{_package(signal)}_service_pb2"


def _package(signal: Signal) -> str:
    return signal.message.split(".")[3]


def _data_message(signal: Signal) -> str:
    return f"opentelemetry.proto.{_package(signal)}.v1.{signal.name.capitalize()}Data"


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            "OTLP in protobuf needs the extra: pip install 'observatory-storage[otel]'"
        ) from error


def _items(message: Any, signal: Signal) -> list[Any]:
    """The first items of a request."""
    resources, scopes, items = (snake(key) for key in signal.keys)
    found: list[Any] = []
    for resource in getattr(message, resources):
        for scope in getattr(resource, scopes):
            found.extend(getattr(scope, items)[: _MAX_INSPECTED_ITEMS - len(found)])
            if len(found) >= _MAX_INSPECTED_ITEMS:
                return found
    return found


def _plausible(message: Any, signal: Signal) -> bool:
    """Whether one of the first items looks like an item of its signal."""
    items = _items(message, signal)
    if signal is TRACE_SIGNAL:
        # A metric has texts in the fields where a span has its ids, but rarely of the same lengths.
        items = [item for item in items if len(item.trace_id) == 16 and len(item.span_id) == 8]
    elif signal is METRIC_SIGNAL:
        items = [item for item in items if item.name]
    return any(_fits(item) for item in items)


def _fits(message: Any) -> bool:
    """Whether the message has a known field, and no known field with a wrong wire type.

    Unknown field numbers are allowed, since a newer sender may use them.
    """
    known = message.DESCRIPTOR.fields_by_number
    unknown = _imported("google.protobuf.unknown_fields").UnknownFieldSet(message)
    mistyped = any(field.field_number in known for field in unknown)
    return bool(message.ListFields()) and not mistyped
