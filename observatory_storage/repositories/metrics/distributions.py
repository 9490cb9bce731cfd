"""Histograms as counts over ranges of values: subtraction and quantiles.

Every kind of histogram is converted to cells: a cell is a range of values with a count. So
histograms with explicit bounds and exponential histograms can be added. A quantile is interpolated
within its cell as Prometheus does: on a logarithmic scale in the buckets of an exponential
histogram, linearly in all others.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

__all__ = ["Cell", "Cells", "cells_of", "has_fallen", "quantile_of"]


class Cell(NamedTuple):
    """A range of values. A range without width contains equal values.

    Attributes:
        exponential: whether it is a bucket of an exponential histogram. The bucket around zero is
            its zero bucket.
    """

    low: float
    high: float
    exponential: bool = False

    @property
    def is_around_zero(self) -> bool:
        return self.exponential and self.low < 0 < self.high

    @property
    def is_logarithmic(self) -> bool:
        return self.exponential and (self.low > 0 or self.high < 0)

    def share(self, low: float, high: float) -> float:
        """The share of its observations between two values within it."""
        if self.is_logarithmic:
            return _log_ratio(low, high) / _log_ratio(self.low, self.high)
        width = self.high - self.low
        if math.isinf(width):
            return (high / 2 - low / 2) / (self.high / 2 - self.low / 2)
        return (high - low) / width


Cells = dict[Cell, float]

_GREATEST: Final = sys.float_info.max
_BISECTIONS: Final = 64  # more than a double has bits


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
    for cell, count in _on_their_side(cells).items():
        if count > 0:
            key = _bounded(cell, least, greatest)
            bounded[key] = bounded.get(key, 0) + count
    total = sum(bounded.values())
    if not total:
        return None
    starting: dict[float, list[Cell]] = {}
    for cell in bounded:
        starting.setdefault(cell.low, []).append(cell)
    edges = sorted({edge for cell in bounded for edge in (cell.low, cell.high)})
    wanted, below = q * total, 0.0
    open_cells: list[Cell] = []
    for edge, following in zip(edges, [*edges[1:], math.inf], strict=True):
        open_cells = [cell for cell in open_cells if cell.high > edge]
        for cell in starting.get(edge, ()):
            if cell.high > edge:
                open_cells.append(cell)
            else:
                below += bounded[cell]
        if below >= wanted:
            return edge
        rise = sum(bounded[cell] * cell.share(edge, following) for cell in open_cells)
        if rise and below + rise >= wanted:
            counts = {cell: bounded[cell] for cell in open_cells}
            return _interpolated(counts, edge, following, (wanted - below) / rise)
        below += rise
    return edges[-1]


def _on_their_side(cells: Cells) -> Cells:
    """The cells, those around zero cut to the side on which all others lie."""
    others = [cell for cell in cells if not cell.is_around_zero]
    # An open first bucket goes down to zero, unless it ends below.
    has_negative = any(c.low < 0 and (c.low > -math.inf or c.high <= 0) for c in others)
    has_positive = any(cell.high > 0 for cell in others)
    if has_negative == has_positive or len(others) == len(cells):
        return cells
    found: Cells = {}
    for cell, count in cells.items():
        side = cell
        if cell.is_around_zero:
            side = cell._replace(high=0.0) if has_negative else cell._replace(low=0.0)
        found[side] = found.get(side, 0) + count
    return found


def _interpolated(counts: Cells, low: float, high: float, share: float) -> float:
    """The value below which a share of what is between two edges lies."""
    if not any(cell.is_logarithmic for cell in counts):
        return low + (high - low) * share if math.isfinite(high - low) else _mean(low, high, share)
    if all(cell.is_logarithmic for cell in counts):
        # From the edge that is farther from zero, because no factor is greater than 1 then.
        if low > 0:
            return max(low, high * math.exp2(_log_ratio(low, high) * (1 - share)))
        return min(high, low * math.exp2(_log_ratio(high, low) * share))
    first, wanted = (
        low,
        share * sum(count * cell.share(low, high) for cell, count in counts.items()),
    )
    for _ in range(_BISECTIONS):
        middle = _mean(low, high, 0.5)
        if sum(count * cell.share(first, middle) for cell, count in counts.items()) < wanted:
            low = middle
        else:
            high = middle
    return high


def _mean(low: float, high: float, share: float) -> float:
    return low * (1 - share) + high * share


def _log_ratio(one: float, other: float) -> float:
    # Not the logarithm of the ratio, which may be beyond the range of a double.
    return math.log2(abs(one)) - math.log2(abs(other))


def _bounded(cell: Cell, least: float | None, greatest: float | None) -> Cell:
    """The cell with finite edges, within the extremes if they are known."""
    low, high, exponential = cell
    if low == -math.inf:
        # Latencies and sizes, which histograms mostly hold, do not go below zero.
        low = least if least is not None else min(0.0, high)
    if high == math.inf:
        high = greatest if greatest is not None else max(low, cell.low)
    if least is not None and low < least <= high:
        low = least
    if greatest is not None and low <= greatest < high:
        high = greatest
    return Cell(min(low, high), high, exponential)


def _explicit(
    buckets: Mapping[str, Any], earlier: Mapping[str, Any] | None
) -> Iterator[tuple[Cell, float]]:
    bounds = [float(bound) for bound in buckets.get("bounds") or []]
    if not bounds or any(map(math.isnan, bounds)):
        return  # one bucket says nothing about the values in it
    counts: Sequence[float] = buckets.get("counts") or []
    before: Sequence[float] = (earlier.get("counts") or []) if earlier else []
    edges = [-math.inf, *bounds, math.inf]
    for index, count in enumerate(counts[: len(edges) - 1]):
        more = count - (before[index] if index < len(before) else 0)
        if more > 0:
            yield Cell(edges[index], edges[index + 1]), more


def _exponential(
    buckets: Mapping[str, Any], earlier: Mapping[str, Any] | None
) -> Iterator[tuple[Cell, float]]:
    scale, threshold = int(buckets["scale"]), _threshold(buckets)
    if earlier is not None:
        scale = min(scale, int(earlier["scale"]))
        threshold = max(threshold, _threshold(earlier))
    counts = _at_scale(buckets, scale, threshold)
    for place, count in (_at_scale(earlier, scale, threshold) if earlier else {}).items():
        counts[place] = counts.get(place, 0) - count
    for (sign, index), count in counts.items():
        if count > 0:
            zero = Cell(-threshold, threshold, exponential=True)
            yield _bucket(sign, index, scale) if sign else zero, count


@lru_cache(maxsize=10_000)
def _bucket(sign: int, index: int, scale: int) -> Cell:
    near, far = sign * _edge(index, scale), sign * _edge(index + 1, scale)
    return Cell(min(near, far), max(near, far), exponential=True)


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
