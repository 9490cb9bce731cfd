"""Percentiles from the histograms of durations that rollups hold."""

from __future__ import annotations

from bisect import bisect_right
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

    __slots__ = ("_greatest", "_least", "_parts", "_zeros")

    def __init__(self) -> None:
        self._parts: list[tuple[Sequence[int], Sequence[int]]] = []
        self._zeros = 0
        self._least: float | None = None
        self._greatest: float | None = None

    def add(
        self,
        indexes: Sequence[int] | None,
        counts: Sequence[int] | None,
        zeros: int,
        least: float | None,
        greatest: float | None,
    ) -> None:
        """Add the columns of a rollup. The indexes are in order."""
        if indexes and counts:
            self._parts.append((indexes, counts))
        self._zeros += zeros
        if least is not None and (self._least is None or least < self._least):
            self._least = least
        if greatest is not None and (self._greatest is None or greatest > self._greatest):
            self._greatest = greatest

    @property
    def count(self) -> int:
        return self._zeros + sum(sum(counts) for _, counts in self._parts)

    def percentiles(self) -> list[float]:
        """The values of `PERCENTILES`, interpolated as PostgreSQL's percentile_cont does.

        Each differs from the exact one by at most the error of a bucket; see `DURATION_SCALE`.
        """
        indexes, counts = self._merged()
        below = list(accumulate(counts, initial=self._zeros))
        total = below[-1]

        def at(rank: int) -> float:
            place = bisect_right(below, rank)
            return self._value(indexes[place - 1]) if place else max(0.0, self._least or 0.0)

        found = []
        for share in PERCENTILES.values():
            place = share * (total - 1)
            low = int(place)
            first, part = at(low), place - low
            found.append(first + (at(low + 1) - first) * part if part else first)
        return found

    def _merged(self) -> tuple[Sequence[int], Sequence[int]]:
        if len(self._parts) == 1:  # as it mostly is: then nothing has to be sorted
            return self._parts[0]
        merged: dict[int, int] = {}
        for indexes, counts in self._parts:
            for index, count in zip(indexes, counts, strict=True):
                merged[index] = merged.get(index, 0) + count
        ordered = sorted(merged)
        return ordered, [merged[index] for index in ordered]

    def _value(self, index: int) -> float:
        value: float = _BASE**index * _MIDDLE
        least, greatest = self._least or 0.0, self._greatest
        return max(least, value if greatest is None else min(value, greatest))
