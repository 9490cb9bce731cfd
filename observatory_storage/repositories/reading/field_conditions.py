"""The conditions of filter fields, in SQL and in Python, for rows that no query reads.

Both decide the same. Only PostgreSQL decides conditions on JSON and on words.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement

from observatory_storage.repositories.reading import operators

__all__ = [
    "Condition",
    "Conditions",
    "Given",
    "InBoth",
    "Matches",
    "Row",
    "at_least",
    "at_most",
    "before",
    "decides",
    "equals",
]

Conditions = list[ColumnElement[bool]]
# Bind parameters of the fields that are set, by name. A text to search for is the value itself,
# because its condition depends on the words.
Given = Mapping[str, Any]
# The values of a row by its columns' names.
Row = Mapping[str, Any]
# Returns the conditions on a row (an entity or its alias), or none if the parameter is not set.
Condition = Callable[[Any, Given], Conditions]


@dataclass(frozen=True, slots=True)
class Matches:
    """The condition that a column meets the value or operator of a field."""

    column: str
    name: str

    def __call__(self, row: Any, given: Given) -> Conditions:
        return operators.matching(getattr(row, self.column), self.name, given)

    def holds(self, row: Row, given: Given) -> bool | None:
        return operators.meets(row[self.column], self.name, given)


def equals(column: str, parameter: str | None = None) -> Condition:
    """The condition that a column equals a parameter, by default one of its name."""
    return Matches(column, parameter or column)


@dataclass(frozen=True, slots=True)
class _Compares:
    """The condition that a column compares so with a parameter."""

    compare: Callable[[Any, Any], Any]
    column: str
    name: str

    def __call__(self, row: Any, given: Given) -> Conditions:
        if self.name not in given:
            return []
        return [self.compare(getattr(row, self.column), given[self.name])]

    def holds(self, row: Row, given: Given) -> bool | None:
        if self.name not in given:
            return None
        value = row[self.column]
        return value is not None and bool(self.compare(value, given[self.name]))


def at_least(column: str, parameter: str | None = None) -> Condition:
    """The condition that a column is a parameter, by default one of its name, or more."""
    return _Compares(operator.ge, column, parameter or column)


def at_most(column: str, parameter: str | None = None) -> Condition:
    """As `at_least`: that it is the parameter or less."""
    return _Compares(operator.le, column, parameter or column)


def before(column: str, parameter: str | None = None) -> Condition:
    """As `at_least`: that it is less than the parameter."""
    return _Compares(operator.lt, column, parameter or column)


@dataclass(frozen=True, slots=True)
class InBoth:
    """A condition that is written in SQL and in Python.

    Args:
        in_sql: returns the condition on an entity.
        in_python: whether a row meets it; None if the parameter is not set.
    """

    in_sql: Condition
    in_python: Callable[[Row, Given], bool | None]

    def __call__(self, row: Any, given: Given) -> Conditions:
        return self.in_sql(row, given)

    def holds(self, row: Row, given: Given) -> bool | None:
        return self.in_python(row, given)


def decides(condition: Condition) -> Callable[[Row, Given], bool | None] | None:
    """The condition in Python, on the values of a row; None if PostgreSQL alone decides it."""
    return getattr(condition, "holds", None)
