"""Filters whose fields are declared once: the type, the check of a value and the condition.

A filter is a frozen dataclass. Each field is declared with `filter_field`, which takes the check
and the condition together, so that a field without a condition cannot be declared by mistake.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from decimal import Decimal
from difflib import get_close_matches
from functools import cache
from typing import Any, Final, Self
from uuid import UUID

from sqlalchemy import bindparam, true
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.types import NULLTYPE

from observatory_storage import ids
from observatory_storage.errors import ValidationError
from observatory_storage.repositories.reading import filter_text, operators, validation
from observatory_storage.repositories.reading.field_conditions import (
    Condition,
    Conditions,
    Given,
    InBoth,
    Matches,
    at_least,
    at_most,
    before,
    equals,
)
from observatory_storage.repositories.reading.operators import Not, OneOf

__all__ = [
    "Condition",
    "Conditions",
    "FieldRule",
    "Filters",
    "Given",
    "InBoth",
    "at_least",
    "at_most",
    "before",
    "bound",
    "conditions_on",
    "equals",
    "filter_field",
    "limit_field",
    "negated",
    "no_condition",
    "rules_of",
    "trace_parameters",
    "unbound",
    "with_former",
    "within",
]

_RULE: Final = "rule"
# Parameters whose values are passed to the condition as they are, not as bind parameters.
_AS_THEMSELVES: Final = {"text", "content"}
# Statements with conditions on more attributes than this are not kept.
_MOST_KEPT: Final = 4
_NOT_OF_THE_CURSOR: Final = {"limit", "start_time", "end_time", "ended_after", "ended_before"}


@dataclass(frozen=True, slots=True)
class FieldRule:
    """The rule of a filter field: its check and its condition.

    Args:
        check: takes the field's name and the given value; returns the value to store, or raises
            `ValidationError`.
        condition: the condition that a row must meet. The field also takes operators if the
            condition is made by `equals`.
        parameters: takes the field's name and value; returns the values of the condition's bind
            parameters.
        is_required: whether None is refused.
    """

    check: Callable[[str, Any], Any]
    condition: Condition
    parameters: Callable[[str, Any], dict[str, Any]] = operators.parameters
    is_required: bool = False

    @property
    def takes_operators(self) -> bool:
        return isinstance(self.condition, Matches)

    def checked(self, name: str, value: Any) -> Any:
        """The value to store for the field of this name.

        Raises:
            ValidationError: the value is invalid.
        """
        if self.takes_operators:
            return operators.checked(self.check, name, value)
        return self.check(name, value)


def filter_field(
    check: Callable[[str, Any], Any],
    condition: Condition,
    *,
    kind: Callable[..., FieldRule] = FieldRule,
    default: Any = None,
    is_hashable: bool = True,
    **meaning: Any,
) -> Any:
    """A dataclass field with its rule; `meaning` has the further arguments of the rule."""
    rule = kind(check, condition, **meaning)
    return field(default=default, hash=None if is_hashable else False, metadata={_RULE: rule})


def no_condition(_row: Any, _given: Given) -> Conditions:
    """No condition: for a field that does not select rows by their columns."""
    return []


def limit_field(kind: Callable[..., FieldRule] = FieldRule) -> Any:
    """The maximum number of rows in a page."""
    return filter_field(
        validation.limit,
        no_condition,
        kind=kind,
        default=validation.DEFAULT_LIMIT,
        parameters=lambda _name, _value: {},
        is_required=True,
    )


@cache
def rules_of(kind: Any) -> Mapping[str, Any]:
    """The rules of a filter's fields, by name."""
    undeclared = [one.name for one in fields(kind) if _RULE not in one.metadata]
    if undeclared:
        raise TypeError(f"{kind.__name__}: declare {', '.join(undeclared)} with filter_field")
    return {one.name: one.metadata[_RULE] for one in fields(kind)}


class Filters:
    """The base class of filters. A field that is None does not filter."""

    __slots__ = ()

    def __post_init__(self) -> None:
        for name, rule in self._rules.items():
            value = getattr(self, name)
            if value is not None or rule.is_required:
                object.__setattr__(self, name, rule.checked(name, value))
        self._check_together()

    def _check_together(self) -> None:
        """Check rules that involve several fields."""

    @classmethod
    def of(cls, filters: Any, keywords: Mapping[str, Any]) -> Self:
        """The filters that were passed to a method, as an object or as keywords.

        Raises:
            ValidationError: both were given, or the object is of another class.
            TypeError: a keyword is not a field.
        """
        if filters is None:
            kind: Any = cls
            known = list(rules_of(kind))
            for unknown in keywords.keys() - set(known):
                near = get_close_matches(unknown, known, n=1)
                advice = f"; did you mean {near[0]!r}?" if near else ""
                raise TypeError(f"{cls.__name__} has no field {unknown!r}{advice}")
            return cls(**keywords)
        if not isinstance(filters, cls):
            raise ValidationError("filters", filters, f"must be {cls.__name__}")
        if keywords:
            names = ", ".join(keywords)
            raise ValidationError("filters", filters, f"must not be given together with {names}")
        return filters

    @classmethod
    def parse(cls, text: str, **fields: Any) -> Self:
        """The filters that a text describes, as on the command line, with further fields.

        Args:
            text: terms such as ``service:chat``, ``duration>2s``, ``-environment:test``,
                ``model:gpt-4o*``, ``has:session``, ``attributes.tier:gold,silver`` and words to
                search for. The guide "The command line" describes them.
            fields: fields by keyword, such as ``limit``, which the text must not set too.

        Raises:
            ValidationError: the text is not understood, a value is invalid or a field is set twice.
                ``position`` is the index of the mistake in the text.

        Example:
            >>> filters = TraceFilters.parse("service:chat status:error duration>2s", limit=20)
        """
        kind: Any = cls
        found = filter_text.fields_of(rules_of(kind), text)
        for name in fields.keys() & found.keys():
            raise ValidationError(name, fields[name], "is set by the text too")
        return cls.of(None, found | fields)

    def parameters(self) -> dict[str, Any]:
        """The values of the bind parameters of the fields that are set."""
        found: dict[str, Any] = {}
        for name, rule, value in self.given():
            found.update(rule.parameters(name, value))
        return found

    def conditions(self) -> Conditions:
        """The conditions on the rows that are listed, with their values."""
        return conditions_on(self.listed(), self._rules, bound(self.parameters()))

    def kept_names(self) -> frozenset[str] | None:
        """The names of the parameters, by which statements without their values are kept.

        None if the conditions depend on the values, or if too many different ones would be kept.
        """
        names = self.parameters().keys()
        attributes = getattr(self, "attributes", None) or ()
        is_kept = len(attributes) <= _MOST_KEPT and _AS_THEMSELVES.isdisjoint(names)
        return frozenset(names) if is_kept else None

    def listed(self) -> Any:
        """The entity whose rows the filters choose."""
        raise NotImplementedError

    def query(self) -> dict[str, Any]:
        """The fields that distinguish the cursors of different queries.

        The page size and the time bounds are not among them. So a cursor stays valid for a list of
        "the last 24 hours", which has other bounds at each call.
        """
        return {
            name: _plain(value) for name, _, value in self.given() if name not in _NOT_OF_THE_CURSOR
        }

    @property
    def _rules(self) -> Mapping[str, Any]:
        kind: Any = type(self)
        return rules_of(kind)

    def given(self) -> Iterator[tuple[str, Any, Any]]:
        """The fields that are set: the name of each, its rule and its value."""
        for name, rule in self._rules.items():
            value = getattr(self, name)
            if value is not None:
                yield name, rule, value


def bound(parameters: Mapping[str, Any]) -> Given:
    """Bind parameters with their values, typed as the columns they are compared with."""
    return {
        name: value if name in _AS_THEMSELVES else bindparam(name, value, type_=NULLTYPE)
        for name, value in parameters.items()
    }


def unbound(names: Iterable[str]) -> Given:
    """Bind parameters of these names, without values."""
    return {name: bindparam(name) for name in names}


def conditions_on(row: Any, rules: Mapping[str, Any], given: Given) -> Conditions:
    """The conditions of the fields on a row."""
    by_field = [rule.condition for rule in rules.values()]
    found = [each for condition in by_field for each in condition(row, given)]
    return [*found, *negated(row, given, by_field)]


def negated(row: Any, given: Given, conditions: Iterable[Condition]) -> Conditions:
    """The negated conditions. A row without a value meets them.

    Args:
        conditions: the conditions of the fields.
    """
    excluded = operators.excluded(given)
    if not excluded:
        return []
    found = (condition(row, excluded) for condition in conditions)
    return [one.is_not(true()) for each in found for one in each]


def trace_parameters(name: str, value: Any) -> dict[str, Any]:
    """The parameters of trace ids, with those that an earlier version gave to ids of 64 bits."""
    return operators.parameters(name, with_former(value))


def with_former(value: Any) -> Any:
    """The given trace ids, and the ids that an earlier version gave to the same traces."""
    if isinstance(value, Not):
        return Not(with_former(value.value))
    keys = value.values if isinstance(value, OneOf) else (value,)
    former = [ids.former_trace_uuid(key) for key in keys if isinstance(key, UUID)]
    found = [*keys, *(key for key in former if key is not None)]
    return OneOf(*found) if len(found) > 1 else value


def within(
    column: InstrumentedAttribute[datetime], start: datetime | None, end: datetime | None
) -> Conditions:
    """The condition that a time lies in [start, end)."""
    found: Conditions = []
    if start is not None:
        found.append(column >= start)
    if end is not None:
        found.append(column < end)
    return found


def _plain(value: Any) -> Any:
    """A value in plain JSON, the same for equal numbers: 1, 1.0 and 1.00."""
    if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
        return str(Decimal(str(value)).normalize())
    return operators.plain(value)
