"""Finds the increases between the points of cumulative series.

Points with the same attributes and the same start form a series. Processes that report the same
attributes, at the same time or one after the other, differ in their starts.

The points are read newest first, in the order of the index. Each series waits for one point at a
time: the earlier point from which its total continued. Points before the range are read for the
series that still wait at the start of the range.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from observatory_storage.repositories.metrics.distributions import has_fallen

__all__ = ["Point", "Step", "hashable", "steps"]


@dataclass(frozen=True, slots=True)
class Point:
    """The columns of a data point that sums and distributions need."""

    attributes: dict[str, Any]
    start_timestamp: datetime | None
    timestamp: datetime
    id: UUID
    value: float | None
    count: int | None
    sum: float | None
    min: float | None
    max: float | None
    buckets: dict[str, Any] | None
    quantiles: list[dict[str, float]] | None


class Step(NamedTuple):
    """A point and the earlier point from which its total continued; None if it began at zero.

    If ``known`` is false, the increase is unknown, and there is no earlier point either.
    """

    point: Point
    earlier: Point | None
    known: bool


# Given the first points of series in the range, finds the points before the range.
LookBack = Callable[[list[Point]], Iterable[Point]]


def steps(
    points: Iterable[Point], start_time: datetime, look_back: LookBack, *, monotonic: bool
) -> Iterator[Step]:
    """Each point in range with the one before it in its series.

    A total that fell began at zero again. The first point of a series that began within the range
    began at zero too. If a series began before the range and no earlier point is found, it is
    unknown how much was added within the range.

    Args:
        points: those in range, newest first.
        look_back: finds those before the range, newest first.
        monotonic: whether a value that falls is a new beginning.
    """
    waiting: dict[Any, Point] = {}

    def step(later: Point, earlier: Point) -> Step:
        began_anew = _has_fallen(later, earlier, monotonic=monotonic)
        return Step(later, None if began_anew else earlier, known=True)

    for point in points:
        if _is_empty(point):
            yield Step(point, None, known=False)
            continue
        series = _series(point)
        if series in waiting:
            yield step(waiting[series], point)
        waiting[series] = point
    for series, point in list(waiting.items()):
        if point.start_timestamp is not None and point.start_timestamp >= start_time:
            yield Step(waiting.pop(series), None, known=True)
    if waiting:
        for point in look_back(list(waiting.values())):
            series = _series(point)
            if series in waiting and not _is_empty(point):
                yield step(waiting.pop(series), point)
                if not waiting:
                    break
    for point in waiting.values():
        yield Step(point, None, known=False)


def hashable(value: Any) -> Any:
    """The value as a key. Keys are equal if jsonb considers the values equal, as 1 and 1.0."""
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, Mapping):
        return tuple((key, hashable(item)) for key, item in sorted(value.items()))
    if isinstance(value, list):
        return ("list", *map(hashable, value))
    return value


def _series(point: Point) -> Any:
    return hashable(point.attributes), point.start_timestamp


def _is_empty(point: Point) -> bool:
    """Whether the point says only that nothing was recorded."""
    return point.value is None and point.count is None


def _has_fallen(point: Point, earlier: Point, *, monotonic: bool) -> bool:
    if point.count is not None and earlier.count is not None:
        return point.count < earlier.count or has_fallen(point.buckets, earlier.buckets)
    if not monotonic or point.value is None or earlier.value is None:
        return False
    return point.value < earlier.value
