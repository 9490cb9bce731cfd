"""Reads attributes from the wire format of protobuf.

The objects that protobuf makes of a KeyValue and its AnyValue cost more than all the rest of a
span. Therefore requests are parsed with `lean_class`, to which attributes are bytes, and the bytes
are read here. What is not plain is left to protobuf itself.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module
from struct import Struct
from typing import Any, Final

from observatory_storage.errors import ValidationError
from observatory_storage.otlp import protojson
from observatory_storage.otlp.broken_text import IDS, message_as_json
from observatory_storage.otlp.message_classes import class_named, lean_class

__all__ = ["as_json", "lean_class", "pairs_as_json", "plain_any", "plain_pairs"]

_TWO_BYTES: Final = (1 << 14) - 1
_SIGN: Final = 1 << 63
_double: Final = Struct("<d").unpack_from
# Short attributes that were read before, since most spans have many in common. At most about 1 MB.
_KNOWN_PAIRS: Final[dict[bytes, tuple[str, Any]]] = {}
_MOST_PAIRS: Final = 4096
_MOST_PAIR_BYTES: Final = 64
_CONTAINERS: Final = (dict, list)


class _NotPlain(ValueError):
    """Plain JSON does not represent the value unchanged, or its bytes are unusual or wrong."""


def plain_pairs(pairs: Iterable[bytes]) -> dict[str, Any]:
    """KeyValues as a JSON object.

    Raises:
        ValueError, IndexError: JSON does not represent all of them unchanged.
    """
    plain: dict[str, Any] = {}
    count = 0
    for pair in pairs:
        count += 1
        known = _KNOWN_PAIRS.get(pair)
        if known is not None:
            plain[known[0]] = known[1]
        elif len(pair) > _MOST_PAIR_BYTES:
            _take_pair(plain, pair, 0, len(pair))
        else:
            _take_short_pair(plain, pair)
    if len(plain) < count:
        raise _NotPlain
    return plain


def _take_short_pair(plain: dict[str, Any], pair: bytes, depth: int = 0) -> None:
    """Add a KeyValue, and remember it if its value is no list or map, which a caller may change."""
    key = _take_pair(plain, pair, 0, len(pair), depth)
    if type(plain[key]) not in _CONTAINERS:
        if len(_KNOWN_PAIRS) >= _MOST_PAIRS:
            _KNOWN_PAIRS.clear()
        _KNOWN_PAIRS[pair] = key, plain[key]


def plain_any(value: bytes) -> Any:
    """An AnyValue as JSON.

    Raises:
        ValueError, IndexError: JSON does not represent it unchanged.
    """
    return _any(value, 0, len(value))


# Lengths of one and two bytes are read in place, and texts: calls would double the cost.
def _take_pair(plain: dict[str, Any], data: bytes, at: int, end: int, depth: int = 0) -> str:
    """Add a KeyValue, whose fields 1 and 2 are its key and its value; return its key."""
    size = data[at + 1]
    if data[at] != 0x0A or size > 0x7F:  # longer keys are not plain
        raise _NotPlain
    value = at + 2 + size
    key = data[at + 2 : value].decode()
    size = data[value + 1]
    if data[value] != 0x12:
        raise _NotPlain
    at = value + 2
    if size > 0x7F:
        size, at = size - 0x80 + (data[at] << 7), at + 1
        if size > _TWO_BYTES:
            size, at = _varint(data, at - 2)
    if at + size != end:
        raise _NotPlain
    if data[at] != 0x0A:
        plain[key] = _any(data, at, end, depth)
        return key
    size = data[at + 1]
    at += 2
    if size > 0x7F:
        size, at = size - 0x80 + (data[at] << 7), at + 1
        if size > _TWO_BYTES:
            size, at = _varint(data, at - 2)
    if at + size != end:
        raise _NotPlain
    plain[key] = data[at:end].decode()
    return key


def _any(data: bytes, at: int, end: int, depth: int = 0) -> Any:
    """An AnyValue, whose only member ends at `end`."""
    tag = data[at]
    if tag == 0x21 and at + 9 == end:  # double_value
        (number,) = _double(data, at + 1)
        if protojson.is_exact(number):
            return number
        raise _NotPlain
    size = data[at + 1]
    at += 2
    if size > 0x7F:
        size, at = size - 0x80 + (data[at] << 7), at + 1
        if size > _TWO_BYTES:
            size, at = _varint(data, at - 2)
    if at == end:
        if tag == 0x18:  # int_value
            return size if size < _SIGN else size - 2 * _SIGN
        if tag == 0x10:  # bool_value
            return size != 0
    if at + size != end:
        raise _NotPlain
    if tag == 0x0A:  # string_value
        return data[at:end].decode()
    if depth < protojson.MAX_DEPTH:
        if tag == 0x2A:  # array_value
            return _items(data, at, end, depth + 1)
        if tag == 0x32:  # kvlist_value
            return _pairs(data, at, end, depth + 1)
    raise _NotPlain


# The two functions below have the same lines for sizes, since they run for every value.
# The messages of an ArrayValue and of a KeyValueList are in field 1, their only one.
def _items(data: bytes, at: int, end: int, depth: int) -> list[Any]:
    """The values of an ArrayValue."""
    plain: list[Any] = []
    while at < end:
        size = data[at + 1]
        # An empty value is not plain.
        if data[at] != 0x0A or not size:
            raise _NotPlain
        at += 2
        if size > 0x7F:
            size, at = size - 0x80 + (data[at] << 7), at + 1
            if size > _TWO_BYTES:
                size, at = _varint(data, at - 2)
        start, at = at, at + size
        plain.append(_any(data, start, at, depth))
    if at != end:
        raise _NotPlain
    return plain


def _pairs(data: bytes, at: int, end: int, depth: int) -> dict[str, Any]:
    """The pairs of a KeyValueList."""
    plain: dict[str, Any] = {}
    count = 0
    while at < end:
        size = data[at + 1]
        if data[at] != 0x0A:
            raise _NotPlain
        at += 2
        if size > 0x7F:
            size, at = size - 0x80 + (data[at] << 7), at + 1
            if size > _TWO_BYTES:
                size, at = _varint(data, at - 2)
        start, at = at, at + size
        count += 1
        if size > _MOST_PAIR_BYTES or at > end:
            _take_pair(plain, data, start, at, depth)
            continue
        pair = data[start:at]
        known = _KNOWN_PAIRS.get(pair)
        if known is not None:
            plain[known[0]] = known[1]
        else:
            _take_short_pair(plain, pair, depth)
    if at != end or len(plain) < count:
        raise _NotPlain
    return plain


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A varint, and where it ends."""
    number = shift = 0
    while shift < 70:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number & 0xFFFF_FFFF_FFFF_FFFF, at
        shift += 7
    raise _NotPlain


def pairs_as_json(pairs: Iterable[bytes], field: str) -> list[Any]:
    """KeyValues as OTLP/JSON.

    Raises:
        ValidationError: the bytes are not KeyValues.
    """
    decode_error = import_module("google.protobuf.message").DecodeError
    key_value = import_module("opentelemetry.proto.common.v1.common_pb2").KeyValue
    try:
        return [_pair_as_json(key_value, pair) for pair in pairs]
    except decode_error as error:
        raise ValidationError(field, b"".join(pairs), f"must be attributes: {error}") from None


def _pair_as_json(key_value: type[Any], pair: bytes) -> Any:
    try:
        message = key_value.FromString(pair)
    except import_module("google.protobuf.message").DecodeError:
        return message_as_json(key_value, pair)
    return as_json(message)


def as_json(message: Any) -> Any:
    """A message, or one of a `lean_class`, as OTLP/JSON."""
    kind = class_named(message.DESCRIPTOR.full_name)
    content = message.SerializeToString()
    decode_error = import_module("google.protobuf.message").DecodeError
    try:
        message = kind.FromString(content)
    except decode_error:
        with suppress(decode_error):  # wrong attributes stay bytes, in base64
            return message_as_json(kind, content)
    json_format = import_module("google.protobuf.json_format")
    converted = json_format.MessageToDict(message, use_integers_for_enums=True)
    _ids_in_hex(converted)
    return converted


def _ids_in_hex(value: Any) -> None:
    """Convert the ids in a message from base64 to hex, in place.

    Attributes cannot be mistaken for ids, since the key of an attribute is the value of "key".
    """
    if isinstance(value, list):
        for item in value:
            if isinstance(item, (dict, list)):
                _ids_in_hex(item)
        return
    for name, item in value.items():
        if name in IDS:
            value[name] = base64.b64decode(item).hex()
        elif isinstance(item, (dict, list)):
            _ids_in_hex(item)
