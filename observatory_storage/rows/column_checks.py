"""Checks a column of many rows at once: the same checks as for single values, at a lower cost.

The values of a column mostly have one type, and many are equal. So each distinct text is checked
once, only the least and the greatest integer are checked, and the loops run in C.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from operator import attrgetter
from types import NoneType
from typing import Any, Final
from uuid import UUID

from observatory_storage import ids, jsonb
from observatory_storage.errors import ValidationError
from observatory_storage.rows import value_checks
from observatory_storage.rows.table_checks import TableChecks
from observatory_storage.rows.value_checks import Check, Refused

__all__ = ["Column", "NotColumnar", "columns_of", "has_gaps", "in_order"]

Column = list[Any]

_SPAN_IDS: Final = frozenset({"span_id", "parent_span_id"})
_zone_of: Final = attrgetter("tzinfo")


class NotColumnar(Exception):
    """These rows cannot be prepared column by column.

    Attributes:
        odd: the indexes of the rows for which they cannot; they have to be prepared one by one.
    """

    def __init__(self, odd: Iterable[int]) -> None:
        super().__init__()
        self.odd = frozenset(odd)


def columns_of(checks: TableChecks, rows: Sequence[Mapping[str, Any]]) -> dict[str, Column]:
    """The columns that any of the rows gives, checked; None where a row does not give it.

    Raises:
        NotColumnar: a value is not valid or had to be repaired, or a required column is missing.
    """
    given = set[str]().union(*rows)
    places = checks.places.keys()
    if not given <= places:
        raise NotColumnar(index for index, row in enumerate(rows) if not row.keys() <= places)
    columns: dict[str, Column] = {}
    odd: set[int] = set()
    for name in given:
        position, check, is_json = checks.places[name]
        values = [row.get(name) for row in rows]
        try:
            column = _checked(name, values, check)
            if is_json:
                column, indexes = jsonb.encode_many(column, name)
                odd.update(indexes)
        except (Refused, ValidationError):
            odd.update(index for index, value in enumerate(values) if _is_refused(check, value))
            continue
        if position is not None:
            columns[name] = column
    if odd:
        raise NotColumnar(odd)
    for name in checks.required:
        if name not in columns or has_gaps(columns[name]):
            missing = columns.get(name) or [None] * len(rows)
            raise NotColumnar(index for index, value in enumerate(missing) if value is None)
    return columns


def in_order(checks: TableChecks, columns: Mapping[str, Column], count: int) -> list[Column]:
    """All the table's columns in their order, with defaults where a row does not give a value."""
    ordered: list[Column] = []
    for name, default in zip(checks.table.columns, checks.defaults, strict=True):
        column = columns.get(name)
        if column is None:
            ordered.append([default] * count)
        elif default is None:
            ordered.append(column)
        else:
            ordered.append([default if value is None else value for value in column])
    return ordered


def has_gaps(column: Iterable[Any]) -> bool:
    """Whether a value is None. The types are compared, since a UUID compares itself in Python."""
    return NoneType in map(type, column)


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
    if kind is datetime and check is value_checks.time:
        zones = set(map(_zone_of, some))
        if len(zones) == 1 and zones.pop() is UTC:
            return values
    elif kind is int:
        # A check that returns an integer unchanged has bounds; others convert it.
        least, greatest = min(some), max(some)
        if check(least) is least and check(greatest) is greatest:
            return values
    elif kind is dict and check is value_checks.mapping:
        return values
    elif kind is float and check is value_checks.number:
        if all(map(math.isfinite, some)):
            return values
    elif kind is UUID and getattr(check, "func", None) is ids.uuid_of:
        return values
    return [None if value is None else check(value) for value in values]


def _is_refused(check: Check, value: Any) -> bool:
    try:
        if value is not None:
            check(value)
    except (Refused, ValidationError):
        return True
    return False
