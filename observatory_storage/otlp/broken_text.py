"""Reads messages of protobuf whose texts are not UTF-8, such as texts cut within a character.

Protobuf's own classes refuse such a message, and with it the whole request. Here it becomes parsed
OTLP/JSON, in which each wrong byte is a lone surrogate. Lone surrogates are replaced and counted
where rows are prepared, wherever they come from.
"""

from __future__ import annotations

import base64
from functools import cache
from importlib import import_module
from typing import Any, Final

from observatory_storage.otlp.message_classes import class_named, lean_class, textless_class

__all__ = ["IDS", "message_as_json", "request_as_json"]

# Fields of type bytes that OTLP/JSON writes in hex, where protobuf's own mapping has base64.
IDS: Final = frozenset({"traceId", "spanId", "parentSpanId"})


def request_as_json(message: Any, keys: tuple[str, ...]) -> Any:
    """A request as parsed OTLP/JSON, whose items stay messages unless they have such texts.

    Args:
        message: the request, of a `textless_class`.
        keys: the names of its lists of resources, scopes and items in OTLP/JSON.
    """
    if not keys:
        return _item(message)
    lists, *rest = keys
    return {
        field.json_name: [request_as_json(one, tuple(rest)) for one in value]
        if field.json_name == lists
        else _plain(field, value)
        for field, value in message.ListFields()
    }


def message_as_json(kind: type[Any], content: bytes) -> dict[str, Any]:
    """A message as parsed OTLP/JSON.

    Args:
        kind: its usual class.
        content: its bytes.

    Raises:
        DecodeError: the bytes are not such a message.
    """
    return _as_json(textless_class(kind).FromString(content))


def _item(message: Any) -> Any:
    """The message, of a `lean_class`; or as parsed OTLP/JSON if it has a text that is not UTF-8."""
    lean = lean_class(class_named(message.DESCRIPTOR.full_name))
    try:
        return lean.FromString(message.SerializeToString())
    except import_module("google.protobuf.message").DecodeError:
        return _as_json(message)


def _as_json(message: Any) -> dict[str, Any]:
    return {field.json_name: _plain(field, value) for field, value in message.ListFields()}


def _plain(field: Any, value: Any) -> Any:
    if isinstance(value, bytes):
        if field.name in _texts(field.containing_type.full_name):
            return value.decode("utf-8", "surrogateescape")
        return value.hex() if field.json_name in IDS else base64.b64encode(value).decode()
    if isinstance(value, (bool, int, float)):
        return value
    if hasattr(value, "ListFields"):
        return _as_json(value)
    return [_plain(field, one) for one in value]


@cache
def _texts(message: str) -> frozenset[str]:
    """The names of a message's fields that are texts."""
    fields = class_named(message).DESCRIPTOR.fields
    return frozenset(field.name for field in fields if field.type == field.TYPE_STRING)
