"""Finds the increases between the points of cumulative series.

Points with the same attributes and the same start form a series. Processes that report the same
attributes, at the same time or one after the other, differ in their starts
(`open_series.py`).

The points are read newest first, in the order of the index. Each series waits for one point at a
time: the earlier point from which its total continued. Points before the range are read for the
series that still wait at the start of the range.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime

from observatory_storage.repositories.metrics.open_series import OpenSeries, Point, Step, hashable

__all__ = ["Point", "Step", "hashable", "steps"]

# Given the first points of series in the range, finds the points before the range.
LookBack = Callable[[list[Point]], Iterable[Point]]


def steps(
    points: Iterable[Point], start_time: datetime, look_back: LookBack, *, monotonic: bool
) -> Iterator[Step]:
    """Each point in range with the one before it in its series.

    A total that fell began at zero again. The first point of a series that began within the range
    began at zero too, unless its start equals its time: then it is unknown when the series began.
    If a series began before the range and no earlier point is found, it is unknown how much was
    added within the range.

    Args:
        points: those in range, newest first.
        look_back: finds those before the range, newest first.
        monotonic: whether a value that falls is a new beginning.
    """
    series = OpenSeries(monotonic=monotonic)
    for point in points:
        if _is_empty(point):
            yield Step(point, None, known=False)
        else:
            yield from series.add(point)
    yield from series.begun_since(start_time)
    waiting = series.waiting()
    if waiting:
        series.look_back_from(start_time)
        for point in look_back(waiting):
            if not _is_empty(point):
                for step in series.add(point):
                    if step.point.timestamp >= start_time:
                        yield step
                if series.is_done:
                    break
    yield from series.unknown()


def _is_empty(point: Point) -> bool:
    """Whether the point says only that nothing was recorded."""
    return point.value is None and point.count is None
