"""Adds up the points of a group in one time bucket, point by point."""

from __future__ import annotations

from dataclasses import dataclass, field

from observatory_storage.repositories.metrics.distributions import Cells, cells_of, quantile_of
from observatory_storage.repositories.metrics.running_totals import Step
from observatory_storage.repositories.reading.aggregates import Total, plus

__all__ = ["Amounts", "count_addition", "count_observations"]


@dataclass(slots=True)
class Amounts:
    """The amounts that the points of a group report for one time bucket.

    Attributes:
        points: the number of points that report an addition.
        count: the number of observations.
        sum: the sum of the observations; None if a point does not report it.
        min: the least observation; None if no point reports it.
        max: the greatest observation; None if no point reports it.
        all_have_min: whether all points with observations report the least one.
        all_have_max: whether all points with observations report the greatest one.
        unplaced: the number of observations that are in no bucket.
        quantiles: the quantiles of summaries, each with (value, weight) pairs.
    """

    points: int = 0
    count: int = 0
    sum: Total | None = 0.0
    min: float | None = None
    max: float | None = None
    all_have_min: bool = True
    all_have_max: bool = True
    unplaced: int = 0
    cells: Cells = field(default_factory=dict)
    quantiles: dict[float, list[tuple[float, float]]] = field(default_factory=dict)

    def widen(self, least: float | None, greatest: float | None) -> None:
        """Include the extremes of one more point."""
        if least is not None:
            self.min = least if self.min is None else min(self.min, least)
        if greatest is not None:
            self.max = greatest if self.max is None else max(self.max, greatest)

    def quantile(self, q: float) -> float | None:
        """The value below which the share ``q`` of the observations lies; None if it is unknown."""
        if not self.quantiles:
            if self.unplaced:
                return None
            least = self.min if self.all_have_min else None
            return quantile_of(
                self.cells, q, least=least, greatest=self.max if self.all_have_max else None
            )
        pairs = self.quantiles.get(q, [])
        weight = sum(weight for _, weight in pairs)
        # Quantiles cannot be merged. Their mean, weighted by observations, is the best estimate.
        # The weighted values do not overflow, because no weight is greater than 1.
        return sum(value * (share / weight) for value, share in pairs) if weight else None


def count_addition(amounts: Amounts, step: Step) -> None:
    """Add the increase of a counter."""
    point, earlier, known = step
    if known and point.value is not None and amounts.sum is not None:
        before = earlier.value if earlier is not None and earlier.value is not None else 0.0
        amounts.points += 1
        amounts.sum = plus(amounts.sum, point.value, before)


def count_observations(amounts: Amounts, step: Step) -> None:
    """Add the observations of a histogram or summary."""
    point, earlier, known = step
    amounts.widen(point.min, point.max)
    new = (point.count or 0) - ((earlier.count or 0) if earlier is not None else 0)
    for quantile in point.quantiles or ():
        q, value = float(quantile["quantile"]), float(quantile["value"])
        if value != value:  # noqa: PLR0124 - Prometheus has NaN where nothing was observed lately
            continue
        amounts.widen(value if q == 0 else None, value if q == 1 else None)
        weight = new if known else max(point.count or 0, 1)
        amounts.quantiles.setdefault(q, []).append((value, weight))
    if not known or point.count is None:
        return
    amounts.points += 1
    amounts.count += new
    before = earlier.sum if earlier is not None else 0.0
    if point.sum is None or before is None:
        amounts.sum = None
    elif amounts.sum is not None:
        amounts.sum = plus(amounts.sum, point.sum, before)
    if new > 0:
        amounts.all_have_min &= point.min is not None
        amounts.all_have_max &= point.max is not None
    cells = cells_of(point.buckets, earlier.buckets if earlier is not None else None)
    if not cells:
        amounts.unplaced += max(new, 0)
    for cell, count in cells.items():
        amounts.cells[cell] = amounts.cells.get(cell, 0) + count
