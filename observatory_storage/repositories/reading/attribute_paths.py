"""Operators on attributes, as JSON paths. Each is one parameter, however many values it has.

An index of a closed partition serves the values of a path, as it serves ``@>``; it serves neither
prefixes nor existence.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sqlalchemy import ColumnElement, Text, cast, func, literal
from sqlalchemy.dialects.postgresql import JSONPATH

from observatory_storage.repositories.reading.filter_fields import Given
from observatory_storage.repositories.reading.operators import Exists, Not, OneOf, Operator, Prefix

__all__ = ["has_path", "paths_given", "some_has_path", "with_operators"]


def with_operators(
    pairs: Callable[[str, Any], dict[str, Any]],
) -> Callable[[str, Any], dict[str, Any]]:
    """The parameters of attributes, where `pairs` makes those of keys with a plain value."""

    def made(name: str, attributes: Mapping[str, Any]) -> dict[str, Any]:
        plain = {key: one for key, one in attributes.items() if not isinstance(one, Operator)}
        return pairs(name, plain) | _parameters(name, attributes)

    return made


def _parameters(name: str, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The paths of the attributes that have an operator, by the names of bind parameters."""
    given = [(key, one) for key, one in attributes.items() if isinstance(one, Operator)]
    wanted = [(key, one) for key, one in given if not isinstance(one, Not)]
    refused = [(key, one.value) for key, one in given if isinstance(one, Not)]
    found = {f"{name}__path_{number}": _path(*each) for number, each in enumerate(wanted)}
    for number, each in enumerate(refused):
        found[f"not__{name}__path_{number}"] = _path(*each)
    return found


def paths_given(given: Given, name: str = "attributes") -> Iterator[Any]:
    """The paths among the parameters."""
    number = 0
    while (key := f"{name}__path_{number}") in given:
        yield given[key]
        number += 1


def has_path(column: Any, path: Any) -> ColumnElement[bool]:
    """The condition that a JSON object has something at the path."""
    return column.path_exists(cast(path, JSONPATH))  # type: ignore[no-any-return]


def some_has_path(links: Any, path: Any) -> ColumnElement[bool]:
    """The condition that the attributes of one of the links have something at the path."""
    of_links = literal("$[*].attributes", Text) + func.substr(cast(path, Text), 2)
    return has_path(links, of_links)


def _path(key: str, wanted: Any) -> str:
    place = f"$.{_quoted(key)}"
    if isinstance(wanted, Exists):
        return place
    values = wanted.values if isinstance(wanted, OneOf) else (wanted,)
    return f"{place} ? ({' || '.join(map(_test, values))})"


def _test(value: Any) -> str:
    if isinstance(value, Prefix):
        return f"@ starts with {_quoted(value.text)}"
    return f"@ == {_quoted(value)}"


def _quoted(value: Any) -> str:
    # A path spells text, numbers and booleans as JSON does.
    return json.dumps(value, ensure_ascii=False)
