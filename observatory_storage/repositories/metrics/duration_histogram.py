"""Percentiles from the histograms of durations that rollups hold."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Final

import sqlalchemy as sa

from observatory_storage.models.rollups import DURATION_SCALE
from observatory_storage.repositories.reading.aggregates import PERCENTILES

__all__ = ["ZERO_CELL", "DurationHistogram", "cell_of"]

_BASE: Final = 2 ** (2**-DURATION_SCALE)
_PER_LOG: Final = (1 << DURATION_SCALE) / 0.6931471805599453
# Of each value in (b^i, b^(i+1)], this times b^i differs by at most (b - 1) / (b + 1).
_MIDDLE: Final = 2 * _BASE / (1 + _BASE)
ZERO_CELL: Final = -32768


def cell_of(duration: Any) -> sa.ColumnElement[int]:
    """The index of the bucket that holds a duration, in SQL; `ZERO_CELL` for zero."""
    index = sa.cast(sa.func.ceil(sa.func.ln(duration) * _PER_LOG), sa.Integer) - 1
    return sa.case((duration > 0, index), else_=ZERO_CELL)


class DurationHistogram:
    """Durations in microseconds, counted by bucket. Histograms are added to each other."""

    __slots__ = ("_counts", "_greatest", "_least", "count")

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._least: float | None = None
        self._greatest: float | None = None
        self.count = 0

    def add(
        self,
        indexes: Sequence[int] | None,
        counts: Sequence[int] | None,
        zeros: int,
        least: float | None,
        greatest: float | None,
    ) -> None:
        """Add the columns of a rollup."""
        if indexes and counts:
            if self._counts:
                mine = self._counts
                for index, count in zip(indexes, counts, strict=True):
                    mine[index] += count
            else:
                self._counts.update(dict(zip(indexes, counts, strict=True)))
            self.count += sum(counts)
        if zeros:
            self._counts[ZERO_CELL] += zeros
            self.count += zeros
        if least is not None and (self._least is None or least < self._least):
            self._least = least
        if greatest is not None and (self._greatest is None or greatest > self._greatest):
            self._greatest = greatest

    def percentiles(self) -> list[float]:
        """The values of `PERCENTILES`, interpolated as PostgreSQL's percentile_cont does.

        Each differs from the exact one by at most the error of a bucket; see `DURATION_SCALE`.
        """
        indexes = sorted(self._counts)
        below = list(accumulate(self._counts[index] for index in indexes))

        def at(rank: int) -> float:
            return self._value(indexes[bisect_right(below, rank)])

        found = []
        for share in PERCENTILES.values():
            place = share * (self.count - 1)
            low = int(place)
            first, part = at(low), place - low
            found.append(first + (at(low + 1) - first) * part if part else first)
        return found

    def _value(self, index: int) -> float:
        value = 0.0 if index == ZERO_CELL else _BASE**index * _MIDDLE
        least, greatest = self._least or 0.0, self._greatest
        return max(least, value if greatest is None else min(value, greatest))
