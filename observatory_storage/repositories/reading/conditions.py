"""What filters share: conditions on a column, and the filters' own fields."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement
from sqlalchemy.orm import InstrumentedAttribute

__all__ = ["Conditions", "asked", "between", "equal", "given", "put", "within"]

Conditions = list[ColumnElement[bool]]


def asked(filters: Any) -> dict[str, Any]:
    """What the filters ask for, by field; the size of the page is not part of the question."""
    return {
        name: _plain(value) if isinstance(value, (int, float, Decimal)) else value
        for name, value in given(filters)
        if name != "limit"
    }


def _plain(number: float | Decimal) -> str:
    """The same for equal numbers: 1, 1.0 and 1.00."""
    return str(Decimal(str(number)).normalize())


def given(filters: Any) -> Iterator[tuple[str, Any]]:
    """The fields of the filters that are given, with their values."""
    for name in _names(filters.__class__):
        value = getattr(filters, name)
        if value is not None:
            yield name, value


@cache
def _names(kind: type[Any]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


def put(instance: Any, field: str, value: object) -> None:
    """Put the checked value into the frozen instance, while it is being made."""
    object.__setattr__(instance, field, value)


def equal(filters: Any, *columns: InstrumentedAttribute[Any]) -> Conditions:
    """That each column has what the filters' field of its name asks for."""
    wanted = ((column, getattr(filters, column.key)) for column in columns)
    return [column == value for column, value in wanted if value is not None]


def within(
    column: InstrumentedAttribute[datetime], start: datetime | None, end: datetime | None
) -> Conditions:
    """That a time lies in [start, end)."""
    found: Conditions = []
    if start is not None:
        found.append(column >= start)
    if end is not None:
        found.append(column < end)
    return found


def between(column: InstrumentedAttribute[Any], least: Any, greatest: Any) -> Conditions:
    """That a value is neither below the least nor above the greatest."""
    found: Conditions = []
    if least is not None:
        found.append(column >= least)
    if greatest is not None:
        found.append(column <= greatest)
    return found
