"""Aggregates that the statistics of all signals use."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

from sqlalchemy import ColumnElement, Dialect, Double, Numeric, func, literal
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.types import TypeDecorator

__all__ = ["PERCENTILES", "integer_sum", "percentile_array", "with_percentiles"]

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
