"""The operators of filter fields: several values, a prefix, existence, negation.

An operator becomes bind parameters. Their names contain the operator: ``model`` is one value,
``model__any`` several. Statements are cached by these names, so the number of values does not
matter. In a negation, `_NOT` precedes each name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from sqlalchemy import ColumnElement, func, or_, type_coerce
from sqlalchemy.dialects.postgresql import ARRAY

from observatory_storage.errors import ValidationError

__all__ = [
    "Exists",
    "Not",
    "OneOf",
    "Operator",
    "Prefix",
    "TextFilter",
    "checked",
    "excluded",
    "is_selective",
    "matching",
    "meets",
    "negation",
    "parameters",
    "plain",
]

T = TypeVar("T")

_NOT: Final = "not__"
_ANY, _PREFIX, _PREFIXES, _EXISTS = "__any", "__prefix", "__prefixes", "__exists"


class Operator:
    """The base class of operators, which a filter field takes instead of a value."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Prefix(Operator):
    """Matches texts that begin with the given one, letter by letter: ``model=Prefix("gpt-4o")``."""

    text: str


@dataclass(frozen=True, slots=True)
class Exists(Operator):
    """Matches rows that have a value: ``user_id=Exists()``. ``Not(Exists())`` negates it.

    An attribute that is null has a value.
    """


@dataclass(frozen=True, slots=True, init=False)
class OneOf(Operator):
    """Matches any of several values or prefixes: ``status=OneOf("error", "unset")``.

    A list, tuple or set means the same, except in ``attributes``.
    """

    values: tuple[Any, ...]

    def __init__(self, *values: Any) -> None:
        object.__setattr__(self, "values", values)

    def __repr__(self) -> str:
        return f"OneOf({', '.join(map(repr, self.values))})"


@dataclass(frozen=True, slots=True, init=False)
class Not(Operator):
    """Negates values or an operator: ``Not("test", "dev")``, ``Not(Prefix("o"))``.

    A row without a value matches ``Not("test")``. A trace matches if none of its spans has the
    value.
    """

    value: Any

    def __init__(self, *values: Any) -> None:
        object.__setattr__(self, "value", values[0] if len(values) == 1 else OneOf(*values))

    def __repr__(self) -> str:
        return f"Not({self.value!r})"


TextFilter = str | Collection[str] | Operator


def checked(check: Callable[[str, Any], Any], field: str, given: Any) -> Any:
    """The given value or operator, with checked values. `OneOf` a single value becomes that value.

    Raises:
        ValidationError: a value is invalid, or the operators do not fit together.
    """
    match given:
        case Exists():
            return given
        case Prefix(text):
            found = check(field, text)
            if not isinstance(found, str) or not found:
                raise ValidationError(field, given, "must have a prefix that is text, not empty")
            return Prefix(found)
        case Not(value):
            if value is None or isinstance(value, Not):
                raise ValidationError(field, given, "must negate a value or another operator")
            return Not(checked(check, field, value))
        case OneOf(values):
            return _one_of(check, field, given, values)
        case list() | tuple() | AbstractSet():
            return _one_of(check, field, given, given)
        case _:
            return check(field, given)


def _one_of(
    check: Callable[[str, Any], Any], field: str, given: Any, values: Collection[Any]
) -> Any:
    if not values:
        raise ValidationError(field, given, "must have at least one value")
    for value in values:
        if value is None or isinstance(value, (Exists, Not, OneOf)):
            raise ValidationError(field, given, "must have values or prefixes only")
    each = [
        checked(check, field, value) if isinstance(value, Prefix) else check(field, value)
        for value in values
    ]
    # Remove duplicates and sort, so that filters with the same meaning are equal.
    distinct = {(type(value).__name__, repr(value)): value for value in each}
    ordered = [distinct[key] for key in sorted(distinct)]
    return ordered[0] if len(ordered) == 1 else OneOf(*ordered)


def is_selective(value: Any) -> bool:
    """Whether an index can find the rows: by values or one prefix, but not by `Not` or `Exists`."""
    if isinstance(value, OneOf):
        return not any(isinstance(each, Prefix) for each in value.values)
    return value is not None and not isinstance(value, (Not, Exists))


def parameters(name: str, value: Any) -> dict[str, Any]:
    """The values of the bind parameters of a field."""
    match value:
        case Not(negated):
            return negation(parameters(name, negated))
        case Exists():
            return {f"{name}{_EXISTS}": True}
        case Prefix(text):
            return {f"{name}{_PREFIX}": text}
        case OneOf(values):
            texts = [each.text for each in values if isinstance(each, Prefix)]
            whole = [each for each in values if not isinstance(each, Prefix)]
            return {
                **({f"{name}{_ANY}": whole} if whole else {}),
                **({f"{name}{_PREFIXES}": texts} if texts else {}),
            }
        case _:
            return {name: value}


def negation(given: Mapping[str, T]) -> dict[str, T]:
    """The parameters of a negation; `excluded` reads them."""
    return {f"{_NOT}{name}": each for name, each in given.items()}


def excluded(given: Mapping[str, T]) -> dict[str, T]:
    """The negated parameters, without `_NOT` before their names."""
    return {name.removeprefix(_NOT): each for name, each in given.items() if name.startswith(_NOT)}


def matching(column: Any, name: str, given: Mapping[str, Any]) -> list[ColumnElement[bool]]:
    """The condition of a field on its column; an empty list if the field is not set."""
    found: list[ColumnElement[bool]] = []
    if name in given:
        found.append(column == given[name])
    if (key := name + _ANY) in given:
        found.append(column == _any(column, given[key]))
    if (key := name + _PREFIX) in given:
        found.append(_begins_with(column, given[key]))
    if (key := name + _PREFIXES) in given:
        found.append(_begins_with(column, _any(column, given[key])))
    if name + _EXISTS in given:
        found.append(column.is_not(None))
    return [or_(*found)] if len(found) > 1 else found


def meets(value: Any, name: str, given: Mapping[str, Any]) -> bool | None:
    """Whether a value meets the condition of a field; None if the field is not set.

    It decides in Python what `matching` decides in SQL.

    Args:
        value: the value of the column; None is NULL.
        name: the field's name.
        given: the values of the bind parameters.
    """
    is_set = False
    if name in given:
        is_set = True
        if value == given[name] and value is not None:
            return True
    if (key := name + _ANY) in given:
        is_set = True
        if value in given[key]:
            return True
    for key in (name + _PREFIX, name + _PREFIXES):
        if key in given:
            is_set = True
            prefixes = given[key]
            if value is not None and value.startswith(
                prefixes if isinstance(prefixes, str) else tuple(prefixes)
            ):
                return True
    if name + _EXISTS in given:
        return value is not None
    return False if is_set else None


def _any(column: Any, values: Any) -> ColumnElement[Any]:
    return func.any(type_coerce(values, ARRAY(column.type)))


def _begins_with(column: Any, prefix: Any) -> ColumnElement[bool]:
    # Unlike LIKE, ``^@`` takes the prefix literally. An index with the collation C serves it.
    return column.op("^@", is_comparison=True)(prefix)  # type: ignore[no-any-return]


def plain(value: Any) -> Any:
    """The value in plain JSON, for the fingerprint of a cursor."""
    match value:
        case Exists():
            return {"exists": True}
        case Prefix(text):
            return {"prefix": text}
        case Not(negated):
            return {"not": plain(negated)}
        case OneOf(values):
            return {"any": [plain(each) for each in values]}
        case Mapping():
            return {key: plain(each) for key, each in value.items()}
        case _:
            return value
