"""Classes of protobuf's messages that read some fields as bytes, which have the same format."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any, Final

__all__ = ["class_named", "lean_class", "textless_class"]

_KEY_VALUE: Final = ".opentelemetry.proto.common.v1.KeyValue"
_LIST_OF_THESE: Final = "KeyValueList"


def lean_class(message: Any) -> type[Any]:
    """The class of the same messages, with attributes as bytes."""
    return _changed(message, _make_attributes_bytes)


def textless_class(message: Any) -> type[Any]:
    """The class of the same messages, with texts as bytes, which need not be UTF-8."""
    return _changed(message, _make_texts_bytes)


def class_named(name: str) -> type[Any]:
    """The unchanged class of the messages of this name."""
    pool = import_module("google.protobuf.descriptor_pool").Default()
    return _class_of(pool.FindMessageTypeByName(name))


def _class_of(descriptor: Any) -> type[Any]:
    kind: type[Any] = import_module("google.protobuf.message_factory").GetMessageClass(descriptor)
    return kind


@cache
def _changed(message: Any, change: Callable[[Any], None]) -> type[Any]:
    pool = import_module("google.protobuf.descriptor_pool").DescriptorPool()
    _add_file(pool, message.DESCRIPTOR.file, change, set())
    return _class_of(pool.FindMessageTypeByName(message.DESCRIPTOR.full_name))


def _add_file(pool: Any, file: Any, change: Callable[[Any], None], added: set[str]) -> None:
    if file.name in added:
        return
    added.add(file.name)
    for needed in file.dependencies:
        _add_file(pool, needed, change, added)
    described = import_module("google.protobuf.descriptor_pb2").FileDescriptorProto()
    file.CopyToProto(described)
    for message in described.message_type:
        _change(message, change)
    pool.Add(described)


def _change(message: Any, change: Callable[[Any], None]) -> None:
    for nested in message.nested_type:
        _change(nested, change)
    change(message)


def _make_attributes_bytes(message: Any) -> None:
    for field in message.field:
        if field.type_name == _KEY_VALUE and message.name != _LIST_OF_THESE:
            field.type = field.TYPE_BYTES
            field.ClearField("type_name")


def _make_texts_bytes(message: Any) -> None:
    for field in message.field:
        if field.type == field.TYPE_STRING:
            field.type = field.TYPE_BYTES
