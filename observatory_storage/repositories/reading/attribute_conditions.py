"""Conditions on attributes: an equal value, an element of a list, an equal list, an operator.

A filter passes an attribute as bind parameters, so that a statement is built once for all values.
GIN indexes on attributes (``jsonb_path_ops``) serve ``@?`` and ``@>``, but neither prefixes nor
existence.

A large value may stand in a payload frame. The row has its preview instead, which is text, and its
digest. Equal values have equal digests, and a prefix is compared with the preview.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Text,
    and_,
    column,
    exists,
    func,
    or_,
    text,
    true,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import JSONB, JSONPATH

from observatory_storage import jsonb
from observatory_storage.errors import ValidationError
from observatory_storage.payloads import (
    MOVABLE_BYTES,
    PREVIEW_CHARACTERS,
    digest_of,
    is_like_preview,
    preview_of,
)
from observatory_storage.repositories.reading import operators, validation
from observatory_storage.repositories.reading.filter_fields import Given
from observatory_storage.repositories.reading.operators import Exists, Not, OneOf, Prefix
from observatory_storage.repositories.reading.validation import AttributeFilter

__all__ = ["Attribute", "attribute_parameters", "attributes_of", "checked_movable"]

# What the JSON text of an object or of a list begins with.
_BRACKETS: Final = ("{", "[")


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute that a row must have.

    Args:
        wanted: the JSON path that matches the value; for a list, a JSON object with the key and the
            list.
        linked: the same for the column of links, which is a list.
        key: for a list, its key.
        elements: the list, or None.
        moved: how previews are told from values, where one might be taken for the other, or None.
    """

    wanted: Any
    linked: Any
    key: Any = None
    elements: Any = None
    moved: MovedValue | None = None

    def is_in(self, attributes: Any, digests: Any = None) -> ColumnElement[bool]:
        """The condition that a column of attributes has this attribute.

        Args:
            attributes: the column.
            digests: the column of the digests of its values in payload frames, if there is one.
        """
        if self.moved is not None and digests is not None:
            return self.moved.is_in(attributes, digests)
        if self.key is None:
            return _has_path(attributes, self.wanted)
        # Lists that a filter can be equal to are not moved.
        return and_(attributes.contains(self.wanted), self._equals(attributes))

    def is_in_one_of(self, links: Any) -> ColumnElement[bool]:
        """The condition that one of the links has this attribute."""
        if self.key is None:
            return _has_path(links, self.linked)
        each = func.jsonb_path_query(links, text("'$[*].attributes'"))
        link = each.table_valued(column("attributes", JSONB)).render_derived("link")
        one = exists().select_from(link).where(self._equals(link.c.attributes))
        return and_(links.contains(self.linked), one)

    def _equals(self, attributes: Any) -> ColumnElement[bool]:
        stored = attributes.op("->", return_type=JSONB())(type_coerce(self.key, Text))
        equal: ColumnElement[bool] = stored == type_coerce(self.elements, JSONB)
        return equal


@dataclass(frozen=True, slots=True)
class MovedValue:
    """How an attribute is found whose value may stand in a payload frame: by JSON paths.

    Args:
        candidates: matches attributes: the values, and the previews of equal ones.
        stored: matches attributes: the values.
        is_moved: matches digests: the attribute is a preview, which one of the values may equal.
        equal: matches digests: one of the values.
        begins: matches attributes: values and previews with a prefix.
        is_json: matches digests: the preview is the text of a list or an object.
    """

    candidates: Any
    stored: Any = None
    is_moved: Any = None
    equal: Any = None
    begins: Any = None
    is_json: Any = None

    def is_in(self, attributes: Any, digests: Any) -> ColumnElement[bool]:
        found = []
        if self.stored is not None:
            stored = _has_path(attributes, self.stored)
            if self.is_moved is not None:
                stored = and_(stored, _has_path(digests, self.is_moved).is_not(true()))
            found.append(stored)
        if self.equal is not None:
            found.append(_has_path(digests, self.equal))
        if self.begins is not None:
            is_json = _has_path(digests, self.is_json)
            found.append(and_(_has_path(attributes, self.begins), is_json.is_not(true())))
        # An index serves the first condition.
        return and_(_has_path(attributes, self.candidates), or_(*found))


_MOVED: Final = tuple(field.name for field in fields(MovedValue))


def attribute_parameters(name: str, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the bind parameters of attributes."""
    wanted = {key: value for key, value in attributes.items() if not isinstance(value, Not)}
    excluded = {key: value.value for key, value in attributes.items() if isinstance(value, Not)}
    return _parameters(name, wanted) | operators.negation(_parameters(name, excluded))


def _parameters(name: str, attributes: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for number, (key, value) in enumerate(attributes.items()):
        if isinstance(value, list):
            found[f"{name}_{number}"] = {key: value}
            found[f"{name}_linked_{number}"] = [{"attributes": {key: value}}]
            found[f"{name}_key_{number}"] = key
            found[f"{name}_elements_{number}"] = value
        else:
            values = value.values if isinstance(value, OneOf) else (value,)
            path = _quoted(key)
            if not isinstance(value, Exists):
                path += _test(values)
                moved = _moved(f"$.{_quoted(key)}", values)
                found |= {f"{name}_{kind}_{number}": each for kind, each in moved.items()}
            found[f"{name}_{number}"] = f"$.{path}"
            found[f"{name}_linked_{number}"] = f"$[*].attributes.{path}"
    return found


def _moved(of_key: str, values: Sequence[Any]) -> dict[str, str]:
    """The fields of `MovedValue`; none if no value can have been moved, or equal a preview."""
    prefixes = [value for value in values if isinstance(value, Prefix)]
    whole = [value for value in values if not isinstance(value, Prefix)]
    texts = [jsonb.dumps(value) for value in whole if isinstance(value, str)]
    large = [text for text in texts if len(text) >= MOVABLE_BYTES]
    is_like_json = any(prefix.text.startswith(_BRACKETS) for prefix in prefixes)
    is_like_moved = any(map(is_like_preview, whole))
    if not (large or is_like_json or is_like_moved):
        return {}
    found = {"candidates": of_key + _test([*values, *map(preview_of, large)])}
    if whole:
        found["stored"] = of_key + _test(whole)
    if is_like_moved:
        found["is_moved"] = of_key
    if large:
        found["equal"] = of_key + _test(map(digest_of, large))
    if prefixes:
        found["begins"] = of_key + _test(prefixes)
        found["is_json"] = of_key + _test(map(Prefix, _BRACKETS))
    return found


def _test(values: Iterable[Any]) -> str:
    """The filter expression of a JSON path. All values are part of the one path.

    The filter reads the elements of a list, but a comparison would also read lists within the list.
    """
    return f' ? (@.type() != "array" && ({" || ".join(map(_comparison, values))}))'


def _comparison(value: Any) -> str:
    if isinstance(value, Prefix):
        return f"@ starts with {_quoted(value.text)}"
    return f"@ == {_quoted(value)}"


def _quoted(value: Any) -> str:
    # In a JSON path, texts, numbers and booleans are written as in JSON.
    return json.dumps(value, ensure_ascii=False)


def checked_movable(field: str, value: object) -> dict[str, AttributeFilter] | None:
    """As `validation.attributes`, for attributes whose values may stand in payload frames.

    Raises:
        ValidationError: a value is invalid, or a prefix is longer than the previews of values.
    """
    checked = validation.attributes(field, value)
    for key, wanted in (checked or {}).items():
        plain = wanted.value if isinstance(wanted, Not) else wanted
        for each in plain.values if isinstance(plain, OneOf) else (plain,):
            if isinstance(each, Prefix) and len(each.text) > PREVIEW_CHARACTERS:
                rule = f"must have a prefix of at most {PREVIEW_CHARACTERS} characters at {key!r}"
                raise ValidationError(field, wanted, rule)
    return checked


def attributes_of(name: str, given: Given) -> Iterator[Attribute]:
    """The attributes that the filters set."""
    number = 0
    while (wanted := given.get(f"{name}_{number}")) is not None:
        others = ("linked", "key", "elements", *_MOVED)
        values = {kind: given.get(f"{name}_{kind}_{number}") for kind in others}
        moved = {kind: values.pop(kind) for kind in _MOVED}
        is_any = moved["candidates"] is not None
        yield Attribute(wanted, **values, moved=MovedValue(**moved) if is_any else None)
        number += 1


def _has_path(json_column: Any, path: Any) -> ColumnElement[bool]:
    found: ColumnElement[bool] = json_column.path_exists(type_coerce(path, JSONPATH))
    return found
