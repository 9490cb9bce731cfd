"""Aggregates of sampled rows: each row counts as often as its weight says.

A row without a weight counts once. Where no row has a weight, these aggregates are those of
PostgreSQL: what they add is skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from observatory_storage.repositories.reading.aggregates import PERCENTILES, integer_sum

__all__ = [
    "are_weighted",
    "distribution",
    "integer_sum_with_weighted",
    "sum_with_weighted",
    "weight_or_one",
    "weighted_count",
    "weighted_integer_sum",
    "weighted_sum",
]


def weight_or_one(weight: Any) -> sa.ColumnElement[int]:
    """How often a row counts."""
    return sa.cast(sa.func.coalesce(weight, 1), sa.BigInteger)


def are_weighted(weight: Any) -> sa.ColumnElement[bool]:
    """Whether one of the rows counts more than once; NULL if there are no rows with a weight."""
    found: sa.ColumnElement[bool] = sa.func.bool_or(weight > 1)
    return found


def weighted_count(
    weight: Any, condition: sa.ColumnElement[bool] | None = None
) -> sa.ColumnElement[int]:
    """The number of rows that the rows stand for which meet the condition."""
    count: Any = sa.func.count()
    more: Any = sa.func.sum(weight - 1, type_=sa.BigInteger())
    if condition is not None:
        count, more = count.filter(condition), more.filter(condition)
    counted: sa.ColumnElement[int] = count + sa.func.coalesce(more, 0)
    return counted


def weighted_sum(column: Any, weight: Any) -> sa.ColumnElement[Any]:
    """The sum of a column over the rows that the rows stand for; None without a value."""
    more = sa.func.sum(_product(column, weight)).filter(weight.is_not(None))
    total: sa.ColumnElement[Any] = sa.func.sum(column) + sa.func.coalesce(more, 0)
    return total


def weighted_integer_sum(column: Any, weight: Any) -> sa.ColumnElement[Any]:
    """The same of a column of integers, as an int."""
    more: Any = integer_sum(_product(column, weight))
    return integer_sum(column) + sa.func.coalesce(more.filter(weight.is_not(None)), 0)


def sum_with_weighted(column: Any, weighted: Any) -> sa.ColumnElement[Any]:
    """The sum of a total of traces over all spans that their spans stand for.

    Args:
        column: the total of each trace.
        weighted: the same by the weights of its spans; NULL where none has a weight.
    """
    more = sa.func.coalesce(sa.func.sum(weighted - column), 0)
    total: sa.ColumnElement[Any] = sa.func.sum(column) + more
    return total


def integer_sum_with_weighted(column: Any, weighted: Any) -> sa.ColumnElement[Any]:
    """The same of a column of integers, as an int."""
    more = sa.func.coalesce(integer_sum(weighted - column), 0)
    total: sa.ColumnElement[Any] = integer_sum(column) + more
    return total


def _product(column: Any, weight: Any) -> sa.ColumnElement[Any]:
    # As numeric, because the product of two integers may exceed 64 bits.
    product: sa.ColumnElement[Any] = sa.cast(column, sa.Numeric) * (weight - 1)
    return product


def distribution(rows: Any, by: Sequence[str]) -> sa.Select[Any]:
    """The means (``avg``) and the `PERCENTILES` of weighted values, by groups.

    They are what `avg` and `percentile_cont` return if each row is repeated as often as its weight
    says.

    Args:
        rows: a subquery with the columns ``value`` (a double, not NULL), ``weight``, and those of
            the groups.
        by: the names of these.
    """
    groups = [rows.c[name] for name in by]
    # Sums of whole numbers are exact as doubles up to 2^53, and much faster than as numeric, which
    # is what PostgreSQL adds bigint as.
    weight: Any = sa.cast(sa.func.coalesce(rows.c.weight, 1), sa.Double)
    total = sa.func.sum(weight)
    ranked = sa.select(
        *groups,
        rows.c.value,
        weight.label("weight"),
        total.over(partition_by=groups, order_by=rows.c.value, rows=(None, 0)).label("below"),
        total.over(partition_by=groups).label("total"),
    ).subquery("ranked")
    value, below = ranked.c.value, ranked.c.below

    def percentile(share: float) -> sa.ColumnElement[float]:
        place = share * (ranked.c.total - 1)
        low, high = (
            sa.func.min(value).filter(below > rounded(place))
            for rounded in (sa.func.floor, sa.func.ceil)
        )
        rest = sa.func.max(place - sa.func.floor(place))
        between: sa.ColumnElement[float] = low + (high - low) * rest
        return between

    mean = sa.func.sum(value * ranked.c.weight) / sa.func.max(ranked.c.total)
    names = [ranked.c[name] for name in by]
    return sa.select(
        *names,
        mean.label("avg"),
        *(percentile(share).label(name) for name, share in PERCENTILES.items()),
    ).group_by(*names)
