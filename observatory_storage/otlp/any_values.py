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

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from observatory_storage.errors import ValidationError
from observatory_storage.otlp import protojson

__all__ = [
    "Note",
    "PlainMap",
    "any_value",
    "is_exact",
    "key_values",
    "plain_map",
    "plain_value",
]

Note = Any  # None | str | dict[str, Note] | list[dict[str, Any]]: see above

MAX_DEPTH: Final = 50  # protobuf's own limit of 100 messages allows no more
# From 1e16 on a double's shortest text has an exponent, which jsonb writes out as an integer.
_EXACT_BELOW: Final = 1e16
_MIN_INT64: Final = -(2**63)
_MAX_INT32: Final = 2**31 - 1
_MEMBERS: Final = (
    "stringValue",
    "boolValue",
    "intValue",
    "doubleValue",
    "arrayValue",
    "kvlistValue",
    "bytesValue",
    "stringValueStrindex",
)


class PlainMap(NamedTuple):
    """A list of KeyValue that is plain JSON already, with its note."""

    plain: dict[str, Any]
    note: Note


def is_exact(number: float) -> bool:
    """Whether plain JSON represents a double unchanged."""
    # Zero equals negative zero, which jsonb does not have.
    return -_EXACT_BELOW < number < _EXACT_BELOW and (number != 0 or str(number) == "0.0")


def plain_map(pairs: Any, field: str, depth: int = 0) -> tuple[dict[str, Any], Note]:
    """A list of KeyValue as a JSON object, and its note.

    Raises:
        ValidationError: a pair is not a KeyValue, or is nested more than 50 levels deep.
    """
    if not pairs:
        return {}, None
    if type(pairs) is PlainMap:
        return pairs
    plain: dict[str, Any] = {}
    notes: dict[str, Note] | None = None
    try:
        # The fast path: most attributes are scalars that JSON represents unchanged.
        for pair in pairs:
            key = pair["key"]
            ((kind, content),) = pair["value"].items()
            given = type(content)
            if (
                (kind == "stringValue" and given is str)
                or (kind == "boolValue" and given is bool)
                or (kind == "doubleValue" and given is float and is_exact(content))
            ):
                plain[key] = content
                continue
            if (
                kind == "intValue"
                and given is str
                and len(content) < 19
                and content.isdigit()
                and content.isascii()
            ):
                plain[key] = int(content)
                continue
            plain[key], note = plain_value(pair["value"], f"{field}.{key}", depth)
            if note is not None:
                notes = notes or {}
                notes[key] = note
        simple = all(len(pair) == 2 and type(pair["key"]) is str for pair in pairs)
    except (KeyError, ValueError, AttributeError, TypeError) as error:
        if isinstance(error, ValidationError):
            raise
        simple = False
    if simple and len(plain) == len(pairs):
        return plain, notes
    return _slow_map(pairs, field, depth)


def _slow_map(pairs: Any, field: str, depth: int) -> tuple[dict[str, Any], Note]:
    """`plain_map` without its fast path."""
    plain: dict[str, Any] = {}
    notes: dict[str, Note] = {}
    entries: list[dict[str, Any]] = []
    for pair_index, pair in enumerate(protojson.items(pairs, field)):
        pair_field = f"{field}[{pair_index}]"
        given = protojson.message(pair, pair_field) or {}
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
        return None, "absent"
    if not isinstance(value, Mapping):
        raise ValidationError(field, value, "must be an AnyValue: an object")
    known = [name for name in _MEMBERS if value.get(name) is not None]
    if not known:
        return None, None
    if len(known) > 1:
        raise ValidationError(field, value, f"must have one member, not {' and '.join(known)}")
    if depth >= MAX_DEPTH:
        raise ValidationError(field, "…", f"is nested more than {MAX_DEPTH} deep")
    kind = known[0]
    content = value[kind]
    if kind == "stringValue":
        return protojson.text(content, field), None
    if kind == "boolValue":
        return protojson.boolean(content, field), None
    if kind == "intValue":
        return protojson.integer(content, field, _MIN_INT64, protojson.MAX_INT64), None
    if kind == "doubleValue":
        return _plain_double(protojson.double(content, field))
    if kind == "bytesValue":
        return protojson.base64_text(content, field), "bytes"
    if kind == "stringValueStrindex":
        return protojson.integer(content, field, -_MAX_INT32 - 1, _MAX_INT32), "strindex"
    inside = protojson.items((protojson.message(content, field) or {}).get("values"), field)
    if kind == "kvlistValue":
        return plain_map(inside, field, depth + 1)
    return _plain_array(inside, field, depth + 1)


def _plain_double(number: float) -> tuple[Any, Note]:
    if is_exact(number):
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
    notes = note if isinstance(note, dict) else {}
    return [_key_value(key, value, notes.get(key)) for key, value in (plain or {}).items()]


def _key_value(key: str, value: Any, note: Note) -> dict[str, Any]:
    if value is None and note == "absent":
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
