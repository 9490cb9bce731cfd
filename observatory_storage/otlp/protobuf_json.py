"""Converts protobuf messages of OTLP to parsed OTLP/JSON, field by field as they are set.

Ids become hex. Attributes become `PlainMap`, the plain JSON that `any_values.plain_map` makes of
OTLP/JSON, where one pass over the messages suffices. Numbers stay numbers.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from functools import cache
from typing import Any, Final

from observatory_storage.otlp.any_values import PlainMap, is_exact, plain_map

__all__ = ["json_of"]

# Fields of type bytes that OTLP/JSON writes in hex, where protobuf's own mapping has base64.
_IDS: Final = frozenset({"trace_id", "span_id", "parent_span_id"})
_PACKAGE: Final = "opentelemetry.proto.common.v1"
_KEY_VALUE: Final = f"{_PACKAGE}.KeyValue"
_ANY_VALUE: Final = f"{_PACKAGE}.AnyValue"

_Convert = Callable[[Any], Any]


def json_of(message: Any, *, plain: bool = True) -> dict[str, Any]:
    """The fields that are set in a message, by their names in JSON.

    Args:
        message: any message of OTLP.
        plain: whether lists of KeyValue may become `PlainMap`; otherwise the result is OTLP/JSON.
    """
    found: dict[str, Any] = {}
    for field, value in message.ListFields():
        name, convert = _rule(field, plain)
        found[name] = value if convert is None else convert(value)
    return found


@cache
def _rule(field: Any, plain: bool) -> tuple[str, _Convert | None]:
    """The name of a field in JSON, and how its value is converted; None where it stays."""
    return field.json_name, _converter(field, plain)


def _converter(field: Any, plain: bool) -> _Convert | None:
    repeated = field.default_value == []  # the same in all versions of protobuf
    message = field.message_type
    if message is not None:
        if repeated and plain and message.full_name == _KEY_VALUE:
            return _plain_pairs
        plain = plain and message.full_name != _ANY_VALUE
        if repeated:
            return lambda values: [json_of(value, plain=plain) for value in values]
        return lambda value: json_of(value, plain=plain)
    if field.type == field.TYPE_BYTES:
        return _hex if field.name in _IDS else _base64
    return list if repeated else None


def _hex(value: bytes) -> str:
    return value.hex()


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _plain_pairs(pairs: Any) -> PlainMap:
    plain = _plain_dict(pairs)
    if plain is not None:
        return PlainMap(plain, None)
    # Something in it that plain JSON does not represent: the thorough way makes a note.
    return PlainMap(*plain_map([json_of(pair, plain=False) for pair in pairs], "attributes"))


def _plain_dict(pairs: Any) -> dict[str, Any] | None:
    """A list of KeyValue as JSON; None where JSON does not represent it unchanged."""
    plain: dict[str, Any] = {}
    for pair in pairs:
        value = _plain_value(pair.value)
        if value is None or pair.key_strindex:
            return None
        plain[pair.key] = value
    return plain if len(plain) == len(pairs) else None


def _plain_value(value: Any) -> Any:
    """An AnyValue as JSON; None where JSON does not represent it unchanged."""
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return value.string_value
    if kind == "int_value":
        return value.int_value
    if kind == "bool_value":
        return value.bool_value
    if kind == "double_value":
        return value.double_value if is_exact(value.double_value) else None
    if kind == "kvlist_value":
        return _plain_dict(value.kvlist_value.values)
    if kind == "array_value":
        items = [_plain_value(item) for item in value.array_value.values]
        return None if None in items else items
    return None
