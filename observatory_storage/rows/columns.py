"""Columns of many rows checked at once: the same checks as of single values, at a part of the cost.

A column of a batch mostly has values of one type, and many equal ones. So a text is checked once
however often it stands there, of integers the least and the greatest are, and what is left is done
by loops that run in C.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from operator import attrgetter
from types import NoneType
from typing import Any, Final

from observatory_storage import ids, jsonb
from observatory_storage.errors import ValidationError
from observatory_storage.rows import checks
from observatory_storage.rows.checks import Check, Refused
from observatory_storage.rows.tables import OBJECT_COLUMNS, RowTable

__all__ = ["Column", "NotPlain", "columns_of", "in_order"]

Column = list[Any]

_SPAN_IDS: Final = frozenset({"span_id", "parent_span_id"})
_zone_of: Final = attrgetter("tzinfo")


class NotPlain(Exception):
    """Among these rows is one that wants a look by itself."""


def columns_of(table: RowTable, rows: Sequence[Mapping[str, Any]]) -> dict[str, Column]:
    """The columns that any of the rows gives, checked; None where a row does not give it.

    Raises:
        NotPlain: a value is not valid, or a required column is missing.
    """
    given = set[str]().union(*rows)
    if not given <= table.places.keys():
        raise NotPlain
    columns: dict[str, Column] = {}
    for name in given:
        at, check = table.places[name]
        try:
            checked = _checked(name, [row.get(name) for row in rows], check)
        except (Refused, ValidationError):
            raise NotPlain from None
        if at is not None:
            columns[name] = checked
    for name in table.required:
        if name not in columns or None in columns[name]:
            raise NotPlain
    return columns


def in_order(table: RowTable, columns: Mapping[str, Column], count: int) -> list[Column]:
    """All the table's columns in their order, with defaults where a row does not give one."""
    ordered: list[Column] = []
    for name, at in table.at.items():
        column, default = columns.get(name), table.defaults[at]
        if column is None:
            ordered.append([default] * count)
        elif default is None:
            ordered.append(column)
        else:
            ordered.append([default if value is None else value for value in column])
    return ordered


def _checked(name: str, values: Column, check: Check) -> Column:
    kinds = set(map(type, values))
    has_none = NoneType in kinds
    kinds.discard(NoneType)
    if not kinds:
        return values
    kind = kinds.pop() if len(kinds) == 1 else None
    some = [value for value in values if value is not None] if has_none else values
    if kind is str:
        if name in _SPAN_IDS and ids.are_span_ids(some):
            return values
        known: dict[Any, Any] = {value: check(value) for value in set(some)}
        known[None] = None
        return [known[value] for value in values]
    if kind is datetime and check is checks.time:
        zones = set(map(_zone_of, some))
        if len(zones) == 1 and zones.pop() is UTC:
            return values
    elif kind is int:
        # A check that keeps an integer as it is has bounds; the others make something else of it.
        least, greatest = min(some), max(some)
        if check(least) is least and check(greatest) is greatest:
            return values
    elif kind is dict and name in OBJECT_COLUMNS:
        return jsonb.encode_many(values, name)
    return [None if value is None else check(value) for value in values]
