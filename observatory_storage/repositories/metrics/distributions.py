"""Histograms and summaries as counts over ranges of values: addition, subtraction and quantiles.

Every kind of histogram is converted to cells: a cell is a range of values with a count. So
histograms with explicit bounds and exponential histograms can be added. A quantile is interpolated
linearly within its cell.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["Amounts", "Cells", "cells_of", "has_fallen", "quantile_of"]

# (lower, upper) -> count; a cell of no width holds equal values.
Cells = dict[tuple[float, float], float]

_GREATEST: Final = sys.float_info.max


@dataclass(slots=True)
class Amounts:
    """What the points of a group report for one bucket of time.

    Attributes:
        points: the number of points that report an addition.
        count: the number of observations.
        sum: the sum of the observations; None if a point does not report it.
        min: the least observation; None if no point reports it.
        max: the greatest observation; None if no point reports it.
        quantiles: the quantiles of summaries, each with (value, weight) pairs.
    """

    points: int = 0
    count: int = 0
    sum: float | None = 0.0
    min: float | None = None
    max: float | None = None
    cells: Cells = field(default_factory=dict)
    quantiles: dict[float, list[tuple[float, float]]] = field(default_factory=dict)

    def widen(self, least: float | None, greatest: float | None) -> None:
        """Include the extremes of one more point."""
        if least is not None:
            self.min = least if self.min is None else min(self.min, least)
        if greatest is not None:
            self.max = greatest if self.max is None else max(self.max, greatest)

    def quantile(self, q: float) -> float | None:
        """The value below which a share of the observations lies; None if it is unknown."""
        if self.cells:
            return quantile_of(self.cells, q, least=self.min, greatest=self.max)
        pairs = self.quantiles.get(q, [])
        weight = sum(weight for _, weight in pairs)
        # Quantiles cannot be merged: their mean, weighted by observations, is as near as it gets.
        return sum(value * share for value, share in pairs) / weight if weight else None


def cells_of(buckets: Mapping[str, Any] | None, earlier: Mapping[str, Any] | None = None) -> Cells:
    """The cells of a point, minus those of an earlier point of the same cumulative series.

    Nothing is subtracted if the series was reset between the two.
    """
    if not buckets:
        return {}
    found = _exponential if "scale" in buckets else _explicit
    cells: Cells = {}
    for cell, count in found(buckets, None if has_fallen(buckets, earlier) else earlier):
        # Beyond what a double can hold, several buckets have the same edges.
        cells[cell] = cells.get(cell, 0) + count
    return cells


def has_fallen(buckets: Mapping[str, Any] | None, earlier: Mapping[str, Any] | None) -> bool:
    """Whether a cumulative series was reset: its buckets cannot follow from the earlier ones.

    Without a reset, bounds do not change and no count decreases. The scale only becomes coarser,
    and the range that counts as zero only becomes wider.
    """
    if not buckets or not earlier:
        return False
    if ("scale" in buckets) != ("scale" in earlier):
        return True
    if "scale" in buckets:
        scale, threshold = int(buckets["scale"]), _threshold(buckets)
        if scale > int(earlier["scale"]) or threshold < _threshold(earlier):
            return True
        counts = _at_scale(buckets, scale, threshold)
        before = _at_scale(earlier, scale, threshold)
        return any(counts.get(place, 0) < count for place, count in before.items())
    if buckets.get("bounds") != earlier.get("bounds"):
        return True
    pairs = zip(buckets.get("counts") or [], earlier.get("counts") or [], strict=False)
    return any(count < past for count, past in pairs)


def quantile_of(
    cells: Cells, q: float, *, least: float | None = None, greatest: float | None = None
) -> float | None:
    """The quantile ``q`` (0 to 1) of the observations, interpolated within its cell.

    Args:
        least: the least observation, if known: cells are cut off below it.
        greatest: the greatest observation, if known: cells are cut off above it.
    """
    bounded: Cells = {}
    for cell, count in cells.items():
        if count > 0:
            key = _bounded(cell, least, greatest)
            bounded[key] = bounded.get(key, 0) + count
    total = sum(bounded.values())
    if not total:
        return None
    starting: dict[float, list[tuple[float, float]]] = {}
    for low, high in bounded:
        starting.setdefault(low, []).append((low, high))
    edges = sorted({edge for cell in bounded for edge in cell})
    wanted, below = q * total, 0.0
    open_cells: list[tuple[float, float]] = []
    for edge, following in zip(edges, [*edges[1:], math.inf], strict=True):
        open_cells = [cell for cell in open_cells if cell[1] > edge]
        for cell in starting.get(edge, ()):
            if cell[1] > edge:
                open_cells.append(cell)
            else:
                below += bounded[cell]
        if below >= wanted:
            return edge
        # Between two edges the count rises evenly, by each cell's share of its width.
        rise = sum(bounded[c] * ((following - edge) / (c[1] - c[0])) for c in open_cells)
        if rise and below + rise >= wanted:
            return edge + (following - edge) * ((wanted - below) / rise)
        below += rise
    return edges[-1]


def _bounded(
    cell: tuple[float, float], least: float | None, greatest: float | None
) -> tuple[float, float]:
    """The cell with finite edges, within the extremes if they are known."""
    low, high = cell
    if low == -math.inf:
        # Latencies and sizes, which histograms mostly hold, do not go below zero.
        low = least if least is not None else min(0.0, high)
    if high == math.inf:
        high = greatest if greatest is not None else max(low, cell[0])
    if least is not None and low < least <= high:
        low = least
    if greatest is not None and low <= greatest < high:
        high = greatest
    return (low, high) if low <= high else (high, high)


def _explicit(
    buckets: Mapping[str, Any], earlier: Mapping[str, Any] | None
) -> Iterator[tuple[tuple[float, float], float]]:
    bounds: Sequence[float] = buckets.get("bounds") or []
    counts: Sequence[float] = buckets.get("counts") or []
    before: Sequence[float] = (earlier.get("counts") or []) if earlier else []
    edges = [-math.inf, *map(float, bounds), math.inf]
    for index, count in enumerate(counts[: len(edges) - 1]):
        more = count - (before[index] if index < len(before) else 0)
        if more > 0:
            yield (edges[index], edges[index + 1]), more


def _exponential(
    buckets: Mapping[str, Any], earlier: Mapping[str, Any] | None
) -> Iterator[tuple[tuple[float, float], float]]:
    scale, threshold = int(buckets["scale"]), _threshold(buckets)
    if earlier is not None:
        scale = min(scale, int(earlier["scale"]))
        threshold = max(threshold, _threshold(earlier))
    counts = _at_scale(buckets, scale, threshold)
    for place, count in (_at_scale(earlier, scale, threshold) if earlier else {}).items():
        counts[place] = counts.get(place, 0) - count
    for (sign, index), count in counts.items():
        if count <= 0:
            continue
        if not sign:
            yield (-threshold, threshold), count
            continue
        near, far = sign * _edge(index, scale), sign * _edge(index + 1, scale)
        yield (min(near, far), max(near, far)), count


def _at_scale(
    buckets: Mapping[str, Any], scale: int, threshold: float
) -> dict[tuple[int, int], float]:
    """The counts by sign and index, at a coarser scale and a wider range that counts as zero."""
    shift = int(buckets["scale"]) - scale
    merged: dict[tuple[int, int], float] = {(0, 0): buckets.get("zero_count") or 0}
    for side, sign in (("positive", 1), ("negative", -1)):
        given = buckets.get(side) or {}
        offset, counts = int(given.get("offset") or 0), given.get("counts") or []
        for number, count in enumerate(counts):
            index = (offset + number) >> shift
            is_zero = threshold > 0 and _edge(index + 1, scale) <= threshold
            place = (0, 0) if is_zero else (sign, index)
            merged[place] = merged.get(place, 0) + count
    return merged


def _threshold(buckets: Mapping[str, Any]) -> float:
    return float(buckets.get("zero_threshold") or 0.0)


def _edge(index: int, scale: int) -> float:
    try:
        return min(math.pow(2.0, math.ldexp(index, -scale)), _GREATEST)
    except OverflowError:
        return _GREATEST if index > 0 else 0.0
