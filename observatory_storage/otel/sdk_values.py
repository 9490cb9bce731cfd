"""Attributes and bodies of the SDK's objects as JSON with notes, as those of OTLP are stored."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Final

from observatory_storage.errors import ValidationError
from observatory_storage.otlp.any_values import Note, PlainMap, PlainValue, plain_double
from observatory_storage.otlp.protojson import MAX_DEPTH, is_exact

__all__ = ["plain_attributes", "plain_sdk_value"]

_NO_ATTRIBUTES: Final = PlainMap({}, None)
_UNCHANGED: Final = frozenset({str, int, bool, type(None)})
_ONLY_TEXTS: Final = frozenset({str})


def plain_attributes(attributes: Mapping[str, Any] | None, field: str) -> PlainMap:
    """Attributes as a JSON object, and its note.

    Raises:
        ValidationError: a value is nested too deeply. The error names the attribute.
    """
    if attributes is None:
        return _NO_ATTRIBUTES
    # The SDK's own class copies its dict, whose items cost a fifth of its own.
    copy = getattr(attributes, "copy", None)
    plain: Any = dict(attributes) if copy is None else copy()
    if type(plain) is not dict:
        plain = dict(plain)
    if not plain:
        return _NO_ATTRIBUTES
    if _UNCHANGED.issuperset(map(type, plain.values())):
        return PlainMap(plain, None)
    notes: dict[str, Note] = {}
    for key, value in plain.items():
        kind = type(value)
        if kind in _UNCHANGED or (kind is float and is_exact(value)):
            continue
        if kind is tuple and _ONLY_TEXTS.issuperset(map(type, value)):
            plain[key] = list(value)
            continue
        plain[key], note = _plain(value, f"{field}.{key}", 0)
        if note is not None:
            notes[key] = note
    return PlainMap(plain, notes or None)


def plain_sdk_value(value: Any, field: str) -> PlainValue:
    """The body of a log record as JSON, and its note.

    Raises:
        ValidationError: the value is nested too deeply.
    """
    return PlainValue(*_plain(value, field, 0))


def _plain(value: Any, field: str, depth: int) -> tuple[Any, Note]:
    # Instances of subclasses, such as members of enums, are stored as what they are underneath.
    if value is None or isinstance(value, bool):
        return value, None
    if isinstance(value, str):
        return str.__str__(value), None
    if isinstance(value, int):
        return int(value), None
    if isinstance(value, float):
        return plain_double(float(value))
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode(), "bytes"
    if depth >= MAX_DEPTH:
        raise ValidationError(field, "…", f"is nested more than {MAX_DEPTH} deep")
    if isinstance(value, Mapping):
        return _plain_mapping(value, field, depth + 1)
    if isinstance(value, Sequence):
        return _plain_sequence(value, field, depth + 1)
    return str(value), None  # as the SDK itself does with attributes


def _plain_mapping(value: Mapping[Any, Any], field: str, depth: int) -> tuple[Any, Note]:
    plain: dict[str, Any] = {}
    notes: dict[str, Note] = {}
    for given, item in value.items():
        key = str(given)
        plain[key], note = _plain(item, f"{field}.{key}", depth)
        if note is not None:
            notes[key] = note
    return plain, notes or None


def _plain_sequence(value: Sequence[Any], field: str, depth: int) -> tuple[Any, Note]:
    plain: list[Any] = []
    notes: dict[str, Note] = {}
    for index, item in enumerate(value):
        one, note = _plain(item, f"{field}[{index}]", depth)
        plain.append(one)
        if note is not None:
            notes[str(index)] = note
    return plain, notes or None
