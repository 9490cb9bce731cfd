"""Reads messages from parsed OTLP/JSON with all that ProtoJSON allows, and names what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Annotated, Any, Final, TypeVar, get_args, get_origin

import orjson
from msgspec import MsgspecError, Raw, Struct, convert, to_builtins
from msgspec.json import Decoder
from msgspec.structs import fields

from observatory_storage.errors import ValidationError
from observatory_storage.otlp import protojson, wire_format
from observatory_storage.otlp.any_values import PlainMap, PlainValue, plain_map, plain_value
from observatory_storage.otlp.message_types import AnyValue, Exemplar, KeyValue, Link
from observatory_storage.otlp.spelling import check_spelling

__all__ = ["as_json", "parsed_json", "read", "read_item", "within"]

_M = TypeVar("_M", bound=Struct)
_Reader = Callable[[Any, str], Any]
# A bad one of these costs only itself.
_OPTIONAL_ITEMS: Final = frozenset({Link, Exemplar})


def read(kind: type[_M], given: Any, path: str = "") -> _M:
    """A message of parsed OTLP/JSON. In place of a bad link or exemplar, it has the error.

    Raises:
        ValidationError: names the field by its path within `path`.
    """
    if not isinstance(given, Mapping):
        raise ValidationError(path, given, "must be an object")
    prefix = f"{path}." if path else ""
    readers = _readers(kind)
    if not given.keys() <= _names(kind):
        check_spelling(kind, given, path)
    values = {}
    for name, (json_name, reader) in readers.items():
        value = given.get(json_name)
        if value is not None:
            values[name] = reader(value, f"{prefix}{json_name}")
    return kind(**values)


def read_item(kind: type[Struct], item: Any) -> Any:
    """A message of JSON text or of parsed JSON. One that is read, or of protobuf, stays as it is.

    Raises:
        ValidationError: names the field by its path within the item.
    """
    if type(item) is kind:
        return item
    try:
        if type(item) is Raw:
            return _decoder(kind).decode(item)
        if type(item) is dict:
            return convert(item, kind, strict=False)
    except (MsgspecError, UnicodeError, RecursionError):
        pass  # what is unusual but right is read below, or the error says what is wrong
    if type(item) is Raw:
        item = parsed_json(bytes(item))
    elif hasattr(item, "SerializeToString"):
        return item
    return read(kind, item)


def as_json(item: Any) -> Any:
    """An item of a request as parsed OTLP/JSON; as text if it cannot be parsed."""
    if type(item) is Raw:
        text = bytes(item)
        try:
            return parsed_json(text)
        except ValidationError:
            return text.decode("utf-8", "replace")
    if isinstance(item, Struct):  # the outside of items, which has none
        return to_builtins(item)
    return wire_format.as_json(item) if hasattr(item, "SerializeToString") else item


def within(path: str, error: ValidationError) -> ValidationError:
    """The error with the path of its item."""
    return ValidationError(f"{path}.{error.field}".rstrip("."), error.value, error.rule)


@cache
def _decoder(kind: type[Struct]) -> Decoder[Any]:
    return Decoder(kind, strict=False)


def parsed_json(text: str | bytes) -> Any:
    """The parsed JSON.

    Raises:
        ValidationError: it is not JSON.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        pass
    # The parser of the standard library accepts lone surrogates, which are repaired later, and
    # reports the line and column of an error.
    try:
        return _loaded(text)
    except (ValueError, RecursionError) as error:
        rule = f"must be JSON or protobuf of OTLP: {error}"
        raise ValidationError("payload", text, rule) from None


def _loaded(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except UnicodeDecodeError as error:  # these bytes become lone surrogates
        return json.loads(error.object.decode("utf-8", "surrogateescape"))


@cache
def _readers(kind: type[Struct]) -> Mapping[str, tuple[str, _Reader]]:
    """For each field, its name in JSON and its reader."""
    return {field.name: (field.encode_name, _reader(field.type)) for field in fields(kind)}


@cache
def _names(kind: type[Struct]) -> frozenset[str]:
    return frozenset(field.encode_name for field in fields(kind))


def _reader(annotation: Any) -> _Reader:
    if annotation is Any:
        return _unread
    if get_origin(annotation) is Annotated:
        reader: _Reader = annotation.__metadata__[-1].extra["read"]
        return reader
    if get_origin(annotation) is list:
        (item,) = get_args(annotation)
        if item is KeyValue:
            return lambda value, path: PlainMap(*plain_map(value, path))
        if item in _OPTIONAL_ITEMS:
            return partial(_items, _or_error(_reader(item)))
        return protojson.items if item is Raw else partial(_items, _reader(item))
    if annotation is AnyValue:
        return lambda value, path: PlainValue(*plain_value(value, path))
    if isinstance(annotation, type) and issubclass(annotation, Struct):
        return partial(read, annotation)
    # An optional type.
    (present,) = (one for one in get_args(annotation) if one is not type(None))
    return _reader(present)


def _unread(value: Any, _: str) -> Any:
    return value


def _or_error(reader: _Reader) -> _Reader:
    """A reader that returns the error in place of a value that is not valid."""

    def read_one(value: Any, path: str) -> Any:
        try:
            return reader(value, path)
        except ValidationError as error:
            return error

    return read_one


def _items(reader: _Reader, value: Any, path: str) -> list[Any]:
    return [
        reader({} if item is None else item, f"{path}[{index}]")
        for index, item in enumerate(protojson.items(value, path))
    ]
