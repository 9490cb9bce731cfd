"""Converts OTLP's AnyValue to plain JSON for people and SQL, and back.

A *note* records what plain JSON cannot represent. It is None if the JSON alone is enough, which is
nearly always the case. Otherwise it is one of:

* ``"bytes"``: the text is base64;
* ``"double"``: a double that JSON or jsonb would return as something else: NaN and the infinities,
  which are stored by name, and doubles so large that jsonb writes them without a decimal point;
* ``"-0.0"``: negative zero, which jsonb does not have;
* ``"absent"``: a key without a value; a null without a note is an empty AnyValue;
* ``"strindex"``: the number is an index into a table of strings;
* an object: the notes of the items of a map by key, or of an array by index;
* an array of ``{"key", "value"[, "note"][, "key_strindex"]}``: all pairs of a map that JSON cannot
  represent, because a key occurs twice (the JSON has the last value) or is an index.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from msgspec import to_builtins
from msgspec.structs import astuple, fields

from observatory_storage.errors import ValidationError
from observatory_storage.otlp import protojson, wire_format
from observatory_storage.otlp.message_types import AnyValue, ArrayValue, KeyValue
from observatory_storage.otlp.spelling import check_spelling

__all__ = [
    "ABSENT",
    "Note",
    "PlainMap",
    "PlainValue",
    "any_value",
    "key_values",
    "plain_double",
    "plain_map",
    "plain_value",
]

Note = Any  # None | str | dict[str, Note] | list[dict[str, Any]]: see above

ABSENT: Final = "absent"  # in ``otlp``, of a field that was not given although it has a column
_MIN_INT64: Final = -(2**63)
_MAX_INT32: Final = 2**31 - 1
_MEMBERS: Final = tuple(member.encode_name for member in fields(AnyValue))
_MEMBER_NAMES: Final = frozenset(_MEMBERS)
_PAIR_FIELDS: Final = frozenset(pair.encode_name for pair in fields(KeyValue))
_LIST_FIELDS: Final = frozenset({"values"})  # of an array and of a map
_ABSENT_MEMBERS: Final = len(_MEMBERS) - 1


class PlainMap(NamedTuple):
    """A list of KeyValue as a JSON object, and its note."""

    plain: dict[str, Any]
    note: Note


class PlainValue(NamedTuple):
    """An AnyValue as JSON, and its note."""

    plain: Any
    note: Note


def plain_map(pairs: Any, field: str, depth: int = 0) -> tuple[dict[str, Any], Note]:
    """A list of KeyValue as a JSON object, and its note.

    Args:
        pairs: messages, each pair of protobuf as bytes, or parsed OTLP/JSON.

    Raises:
        ValidationError: a pair is not a KeyValue, or is nested more than 50 levels deep.
    """
    if not pairs:
        return {}, None
    if type(pairs) is PlainMap:
        return pairs
    if isinstance(pairs, (list, tuple)):
        if type(pairs[0]) is KeyValue:
            try:
                return _plain_pairs(pairs), None
            except (ValueError, TypeError):
                pairs = to_builtins(pairs)
    elif isinstance(pairs, Sequence) and not isinstance(pairs, (str, bytes)):  # of protobuf
        try:
            return wire_format.plain_pairs(pairs), None
        except (ValueError, IndexError):
            pairs = wire_format.pairs_as_json(pairs, field)
    return _slow_map(pairs, field, depth)


class _NotPlain(ValueError):
    """JSON does not represent the value unchanged."""


# The loops of the two functions below have the same lines, since they run for every value.
def _plain_pairs(pairs: Sequence[KeyValue], depth: int = 0) -> dict[str, Any]:
    """The pairs as JSON.

    Raises:
        ValueError: JSON does not represent all of them unchanged.
        TypeError: a value is absent.
    """
    plain: dict[str, Any] = {}
    for pair in pairs:
        members: tuple[Any, ...] = astuple(pair.value)  # type: ignore[arg-type]  # see above
        if members.count(None) != _ABSENT_MEMBERS or pair.key_strindex:
            raise _NotPlain
        text = members[0]
        plain[pair.key] = _plain_member(members, depth) if text is None else text
    if len(plain) < len(pairs):
        raise _NotPlain
    return plain


def _plain_items(values: Iterable[AnyValue], depth: int) -> list[Any]:
    """The items of an array as JSON.

    Raises:
        ValueError: JSON does not represent all of them unchanged.
    """
    plain: list[Any] = []
    for value in values:
        members: tuple[Any, ...] = astuple(value)
        if members.count(None) != _ABSENT_MEMBERS:
            raise _NotPlain
        text = members[0]
        plain.append(_plain_member(members, depth) if text is None else text)
    return plain


def _plain_member(members: tuple[Any, ...], depth: int) -> Any:
    text, flag, integer, double, array, pairs, _, _ = members
    if text is not None:
        return text
    if integer is not None:
        return integer
    if depth >= protojson.MAX_DEPTH:
        raise _NotPlain
    if pairs is not None:
        return _plain_pairs(pairs.values, depth + 1)
    if array is not None:
        return _plain_items(array.values, depth + 1)
    if type(double) is float and protojson.is_exact(double):
        return double
    if type(flag) is bool:
        return flag
    raise _NotPlain


def _slow_map(pairs: Any, field: str, depth: int) -> tuple[dict[str, Any], Note]:
    """`plain_map` of parsed OTLP/JSON."""
    plain: dict[str, Any] = {}
    notes: dict[str, Note] = {}
    entries: list[dict[str, Any]] = []
    for pair_index, pair in enumerate(protojson.items(pairs, field)):
        pair_field = f"{field}[{pair_index}]"
        given = protojson.message(pair, pair_field) or {}
        if not given.keys() <= _PAIR_FIELDS:
            check_spelling(KeyValue, given, pair_field)
        key = protojson.text(given.get("key"), f"{pair_field}.key")
        strindex = protojson.integer(
            given.get("keyStrindex"), f"{pair_field}.keyStrindex", -_MAX_INT32 - 1, _MAX_INT32
        )
        value, note = plain_value(given.get("value"), f"{field}.{key}", depth)
        plain[key] = value
        entry = {"key": key, "value": value}
        if note is not None:
            notes[key] = entry["note"] = note
        if strindex:
            entry["key_strindex"] = strindex
        entries.append(entry)
    if len(plain) < len(entries) or any("key_strindex" in entry for entry in entries):
        return plain, entries
    return plain, notes or None


def plain_value(value: Any, field: str, depth: int = 0) -> tuple[Any, Note]:
    """An AnyValue as JSON, and its note.

    Raises:
        ValidationError: the value is not an AnyValue, or is nested more than 50 levels deep.
    """
    if value is None:
        return None, ABSENT
    if type(value) is PlainValue:
        return value
    if type(value) is AnyValue:
        try:
            return _plain_items((value,), 0)[0], None
        except (ValueError, TypeError):
            value = to_builtins(value)
    elif hasattr(value, "SerializeToString"):
        try:
            return wire_format.plain_any(value.SerializeToString()), None
        except (ValueError, IndexError):
            value = wire_format.as_json(value)
    if not isinstance(value, Mapping):
        raise ValidationError(field, value, "must be an AnyValue: an object")
    if not value.keys() <= _MEMBER_NAMES:
        check_spelling(AnyValue, value, field)
    known = [name for name in _MEMBERS if value.get(name) is not None]
    if not known:
        return None, None
    if len(known) > 1:
        raise ValidationError(field, value, f"must have one member, not {' and '.join(known)}")
    if depth >= protojson.MAX_DEPTH:
        raise ValidationError(field, "…", f"is nested more than {protojson.MAX_DEPTH} deep")
    kind = known[0]
    content = value[kind]
    if kind == "stringValue":
        return protojson.text(content, field), None
    if kind == "boolValue":
        return protojson.boolean(content, field), None
    if kind == "intValue":
        return protojson.integer(content, field, _MIN_INT64, protojson.MAX_INT64), None
    if kind == "doubleValue":
        return plain_double(protojson.double(content, field))
    if kind == "bytesValue":
        return protojson.base64_text(content, field), "bytes"
    if kind == "stringValueStrindex":
        return protojson.integer(content, field, -_MAX_INT32 - 1, _MAX_INT32), "strindex"
    holder = protojson.message(content, field) or {}
    if not holder.keys() <= _LIST_FIELDS:
        check_spelling(ArrayValue, holder, field)
    inside = protojson.items(holder.get("values"), field)
    if kind == "kvlistValue":
        return plain_map(inside, field, depth + 1)
    return _plain_array(inside, field, depth + 1)


def plain_double(number: float) -> tuple[Any, Note]:
    """A double as JSON, and its note."""
    if protojson.is_exact(number):
        return number, None
    if number == 0:
        return number, "-0.0"
    return protojson.double_json(number), "double"


def _plain_array(values: list[Any], field: str, depth: int) -> tuple[list[Any], Note]:
    plain: list[Any] = []
    notes: dict[str, Note] = {}
    for index, value in enumerate(values):
        # A list in protobuf has no absent items, so null can only mean the empty AnyValue.
        item, note = plain_value(value or {}, f"{field}[{index}]", depth)
        plain.append(item)
        if note is not None:
            notes[str(index)] = note
    return plain, notes or None


def key_values(plain: Mapping[str, Any] | None, note: Note = None) -> list[dict[str, Any]]:
    """The inverse of `plain_map`: a list of KeyValue."""
    if isinstance(note, list):
        pairs = []
        for entry in note:
            pair = _key_value(entry["key"], entry["value"], entry.get("note"))
            if "key_strindex" in entry:
                pair["keyStrindex"] = entry["key_strindex"]
            pairs.append(pair)
        return pairs
    if not note:
        return _pairs(plain) if plain else []
    notes = note if isinstance(note, dict) else {}
    return [_key_value(key, value, notes.get(key)) for key, value in (plain or {}).items()]


def _pairs(plain: Mapping[str, Any]) -> list[dict[str, Any]]:
    """`key_values` of what has no note, and mostly values of a few types. A hot path."""
    pairs: list[dict[str, Any]] = []
    for key, value in plain.items():
        kind = type(value)
        if kind is str:
            pairs.append({"key": key, "value": {"stringValue": value}})
        elif kind is int and _MIN_INT64 <= value <= protojson.MAX_INT64:
            pairs.append({"key": key, "value": {"intValue": str(value)}})
        elif kind is list and value:
            pairs.append({"key": key, "value": {"arrayValue": {"values": _values(value)}}})
        elif kind is dict and value:
            pairs.append({"key": key, "value": {"kvlistValue": {"values": _pairs(value)}}})
        else:
            pairs.append({"key": key, "value": any_value(value)})
    return pairs


def _values(plain: list[Any]) -> list[dict[str, Any]]:
    """The same for the items of an array."""
    values: list[dict[str, Any]] = []
    for item in plain:
        kind = type(item)
        if kind is str:
            values.append({"stringValue": item})
        elif kind is dict and item:
            values.append({"kvlistValue": {"values": _pairs(item)}})
        else:
            values.append(any_value(item))
    return values


def _key_value(key: str, value: Any, note: Note) -> dict[str, Any]:
    if value is None and note == ABSENT:
        return {"key": key}
    return {"key": key, "value": any_value(value, note)}


def any_value(plain: Any, note: Note = None) -> dict[str, Any]:
    """The inverse of `plain_value`: an AnyValue.

    A note that does not fit its value (somebody changed the attributes by SQL) is not followed.
    """
    if isinstance(note, str):
        noted = _noted_scalar(plain, note)
        if noted is not None:
            return noted
    if plain is None:
        return {}
    if isinstance(plain, str):
        return {"stringValue": plain}
    if isinstance(plain, bool):
        return {"boolValue": plain}
    if isinstance(plain, int):
        if _MIN_INT64 <= plain <= protojson.MAX_INT64:
            return {"intValue": str(plain)}
        return {"stringValue": str(plain)}  # of a hand-written row: OTLP has no such integers
    if isinstance(plain, float):
        return {"doubleValue": protojson.double_json(plain)}
    if isinstance(plain, Mapping):
        pairs = key_values(plain, note)
        return {"kvlistValue": {"values": pairs} if pairs else {}}
    if isinstance(plain, (list, tuple)):
        notes = note if isinstance(note, dict) else {}
        values = [any_value(item, notes.get(str(index))) for index, item in enumerate(plain)]
        return {"arrayValue": {"values": values} if values else {}}
    return {"stringValue": str(plain)}


def _noted_scalar(plain: Any, note: str) -> dict[str, Any] | None:
    if note == "bytes" and isinstance(plain, str):
        return {"bytesValue": plain}
    if note == "-0.0" and plain == 0:
        return {"doubleValue": -0.0}
    if note == "strindex" and isinstance(plain, int):
        return {"stringValueStrindex": plain}
    if note == "double":
        try:
            return {"doubleValue": protojson.double_json(protojson.double(plain, "value"))}
        except ValidationError:
            return None
    return None
