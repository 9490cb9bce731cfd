"""Aggregates that the statistics of all signals use."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

from sqlalchemy import ColumnElement, Dialect, Double, Numeric, func, literal, literal_column
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.types import TypeDecorator

__all__ = [
    "PERCENTILES",
    "Total",
    "as_double",
    "integer_sum",
    "is_huge",
    "of_doubles",
    "percentile_array",
    "plus",
    "quotient",
    "with_percentiles",
]

# The percentiles that are reported, by name.
PERCENTILES: Final = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}


def percentile_array(values: Any) -> ColumnElement[Any]:
    """The values of all `PERCENTILES` in an array; NULL without values."""
    shares = literal(list(PERCENTILES.values()), ARRAY(Double))
    return func.percentile_cont(shares).within_group(values)


def with_percentiles(record: dict[str, Any], suffix: str) -> dict[str, Any]:
    """A record with its array ``percentiles`` as one value each (``p50`` + suffix)."""
    values = record.pop("percentiles") or [None] * len(PERCENTILES)
    names = (f"{name}{suffix}" for name in PERCENTILES)
    return {**record, **dict(zip(names, values, strict=True))}


class _Integer(TypeDecorator[int]):
    """A numeric that holds an integer: PostgreSQL's sum of bigint may exceed 64 bits."""

    impl = Numeric
    cache_ok = True

    def process_result_value(self, value: Decimal | None, dialect: Dialect) -> int | None:
        return None if value is None else int(value)


def integer_sum(column: InstrumentedAttribute[Any] | ColumnElement[Any]) -> ColumnElement[Any]:
    """The sum of a column of integers, as an int; None without a value."""
    return func.sum(column, type_=_Integer())


# PostgreSQL raises an error if a sum exceeds the range of doubles, or if the sum of squares does in
# a mean. Values up to this limit never exceed it, however many there are.
_LARGEST_SQUARED: Final = literal_column("1e140", Double)


def is_huge(values: Any) -> ColumnElement[bool]:
    """Whether PostgreSQL may fail to add a double: because of its size, or if it is not finite."""
    return func.abs(values) > _LARGEST_SQUARED


# A sum of doubles; a fraction if a double would overflow.
Total = float | Fraction


def plus(total: Total, more: float, less: float = 0.0) -> Total:
    """A total and the difference of two doubles, exact where a partial sum overflows."""
    if isinstance(total, float):
        result = total + (more - less)
        if math.isfinite(result):
            return result
    terms = (total, more, -less)
    infinite = [term for term in terms if isinstance(term, float) and not math.isfinite(term)]
    return sum(infinite) if infinite else sum((Fraction(term) for term in terms), Fraction())


def quotient(total: Total, divisor: float) -> Total:
    """The total divided by a number."""
    if isinstance(total, Fraction):
        return total / Fraction(divisor)
    return total / divisor


def as_double(total: Total) -> float:
    """The nearest double: an infinity if the total is beyond the range of doubles."""
    try:
        return float(total)
    except OverflowError:
        return math.inf if total > 0 else -math.inf


def of_doubles(aggregation: str, values: Sequence[float]) -> float | None:
    """A sum, a mean (``avg``) or one of `PERCENTILES` of doubles of any size.

    A result beyond the range of a double is infinite. It is None if it is not a number: of values
    that are NaN, or infinities of both signs.
    """
    if any(map(math.isnan, values)) or {-math.inf, math.inf} <= set(values):
        return None
    if aggregation in PERCENTILES:
        ordered = sorted(values)
        place = PERCENTILES[aggregation] * (len(ordered) - 1)
        low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
        share = place % 1
        return low if low == high else low * (1 - share) + high * share
    total: Total = 0.0
    for value in values:
        total = plus(total, value)
    return as_double(quotient(total, len(values)) if aggregation == "avg" else total)
