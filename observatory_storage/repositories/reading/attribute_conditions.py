"""Conditions on attributes: an equal value, an element of a list, an equal list, an operator.

A filter passes an attribute as bind parameters, so that a statement is built once for all values.
GIN indexes on attributes (``jsonb_path_ops``) serve ``@?`` and ``@>``, but neither prefixes nor
existence.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Text, and_, column, exists, func, text, type_coerce
from sqlalchemy.dialects.postgresql import JSONB, JSONPATH

from observatory_storage.repositories.reading import operators
from observatory_storage.repositories.reading.filter_fields import Given
from observatory_storage.repositories.reading.operators import Exists, Not, OneOf, Prefix

__all__ = ["Attribute", "attribute_parameters", "attributes_of"]


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute that a row must have.

    Args:
        wanted: the JSON path that matches the value; for a list, a JSON object with the key and the
            list.
        linked: the same for the column of links, which is a list.
        key: for a list, its key.
        elements: the list, or None.
    """

    wanted: Any
    linked: Any
    key: Any = None
    elements: Any = None

    def is_in(self, attributes: Any) -> ColumnElement[bool]:
        """The condition that a column of attributes has this attribute."""
        if self.key is None:
            return _has_path(attributes, self.wanted)
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
            path = f"{_quoted(key)}{_test(value)}"
            found[f"{name}_{number}"] = f"$.{path}"
            found[f"{name}_linked_{number}"] = f"$[*].attributes.{path}"
    return found


def _test(value: Any) -> str:
    """The filter expression of a JSON path. All values are part of the one path.

    The filter reads the elements of a list, but a comparison would also read lists within the list.
    """
    if isinstance(value, Exists):
        return ""
    values = value.values if isinstance(value, OneOf) else (value,)
    return f' ? (@.type() != "array" && ({" || ".join(map(_comparison, values))}))'


def _comparison(value: Any) -> str:
    if isinstance(value, Prefix):
        return f"@ starts with {_quoted(value.text)}"
    return f"@ == {_quoted(value)}"


def _quoted(value: Any) -> str:
    # In a JSON path, texts, numbers and booleans are written as in JSON.
    return json.dumps(value, ensure_ascii=False)


def attributes_of(name: str, given: Given) -> Iterator[Attribute]:
    """The attributes that the filters set."""
    number = 0
    while (wanted := given.get(f"{name}_{number}")) is not None:
        others = (given.get(f"{name}_{kind}_{number}") for kind in ("linked", "key", "elements"))
        yield Attribute(wanted, *others)
        number += 1


def _has_path(json_column: Any, path: Any) -> ColumnElement[bool]:
    found: ColumnElement[bool] = json_column.path_exists(type_coerce(path, JSONPATH))
    return found
