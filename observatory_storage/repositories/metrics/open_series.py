"""Links each point of a running total to the point before it, while points are read newest first.

A start distinguishes a process from others that report the same attributes. But some SDKs compute
the start anew for each export, so that it moves by milliseconds. Therefore points with near starts
are kept until it is clear whether they belong to one process or to several.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, Final, NamedTuple
from uuid import UUID

from observatory_storage.repositories.metrics.distributions import has_fallen

__all__ = ["OpenSeries", "Point", "Step", "hashable"]

# Starts at most this far apart may be one start that was computed twice.
_NEAR: Final = timedelta(seconds=1)
# If this many points may belong to one process, they are treated as if they did. Before the range,
# fewer points are enough.
_MOST_KEPT: Final = 1000
_MOST_KEPT_BEFORE: Final = 16


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
    quantiles: list[dict[str, Any]] | None
    # None where all points are of one metric.
    metric_id: UUID | None = None


class Step(NamedTuple):
    """A point, and the earlier point from which its total continued.

    ``earlier`` is None if the total began at zero. If ``known`` is false, the increase is unknown,
    and ``earlier`` is None too.
    """

    point: Point
    earlier: Point | None
    known: bool


@dataclass(slots=True)
class _Series:
    """The points that wait for an earlier point, newest first: one, or several with near starts.

    Attributes:
        name: the metric and the attributes.
        is_repeated: whether a start occurred twice.
        has_fallen: whether a total is less than an earlier one of another start.
    """

    name: Any
    points: list[Point]
    is_repeated: bool = False
    has_fallen: bool = False


class OpenSeries:
    """Links each point to the point before it in its series. Points are added newest first."""

    def __init__(self, *, monotonic: bool) -> None:
        self._monotonic = monotonic
        self._range_start: datetime | None = None
        self._waiting: dict[Any, _Series] = {}  # by name and start
        self._near: dict[Any, Any] = {}  # the key of a series by its name and second of its start

    @property
    def is_done(self) -> bool:
        """Whether no point waits for an earlier one."""
        return not self._waiting

    def waiting(self) -> list[Point]:
        """All points that wait for an earlier one."""
        return [point for series in self._distinct() for point in series.points]

    def look_back_from(self, range_start: datetime) -> None:
        """From now on, points before the range are added. They only complete the waiting series."""
        self._range_start = range_start

    def add(self, point: Point) -> Sequence[Step]:
        """Add a point. Returns the steps that are known now."""
        name = (point.metric_id, hashable(point.attributes))
        start = point.start_timestamp
        series = self._waiting.get((name, start))
        if series is None:
            return self._first_of_start(name, point)
        if len(series.points) > 1:
            series.is_repeated = True
            return self._keep(series, point)
        later = series.points[0]
        step = self._step(later, point)
        if start == point.timestamp:
            # The point's start equals its time, so nothing is known about earlier points.
            del self._waiting[name, start]
            return (step, Step(point, None, known=False))
        if self._range_start is None:
            series.points[0] = point
        else:
            del self._waiting[name, start]
        return (step,) if start is not None else [step, *self._without_start(name, point)]

    def begun_since(self, range_start: datetime) -> Iterator[Step]:
        """The first points of the series that began within the range. They no longer wait."""
        for series in self._distinct():
            if len(series.points) > 1 and any(_began_since(range_start, p) for p in series.points):
                yield from self._settle(series)
        for key, series in [*self._waiting.items()]:
            point = series.points[-1]
            if len(series.points) == 1 and _began_since(range_start, point):
                del self._waiting[key]
                yield _beginning(point)

    def unknown(self) -> Iterator[Step]:
        """The points that still wait. Their increases are unknown."""
        for series in self._distinct():
            if len(series.points) > 1:
                yield from (step for step in self._settle(series) if self._is_in_range(step.point))
        for series in self._waiting.values():
            yield Step(series.points[-1], None, known=False)

    def _distinct(self) -> list[_Series]:
        return list({id(series): series for series in self._waiting.values()}.values())

    def _first_of_start(self, name: Any, point: Point) -> Sequence[Step]:
        start = point.start_timestamp
        if start is None:
            found = self._without_start(name, point)
            self._wait(name, point)
            return found
        if start == point.timestamp:
            return () if self._range_start else (Step(point, None, known=False),)
        series = self._near_series(name, start)
        if series is not None:
            return self._keep(series, point)
        self._wait(name, point)
        return ()

    def _without_start(self, name: Any, point: Point) -> Sequence[Step]:
        """The step of a series that began at the time of this point, which has no start."""
        series = self._waiting.get((name, point.timestamp))
        if series is None or len(series.points) > 1:
            return []
        del self._waiting[name, point.timestamp]
        return [self._step(series.points[0], point)]

    def _near_series(self, name: Any, start: datetime) -> _Series | None:
        second = int(start.timestamp())
        for near in (second, second - 1, second + 1):
            series = self._waiting.get(self._near.get((name, near)))
            if series is not None and abs(series.points[-1].start_timestamp - start) <= _NEAR:  # type: ignore[operator]
                return series
        return None

    def _wait(self, name: Any, point: Point) -> None:
        if self._is_in_range(point):
            self._register(_Series(name, [point]), point)

    def _register(self, series: _Series, point: Point) -> None:
        key = (series.name, point.start_timestamp)
        self._waiting[key] = series
        if point.start_timestamp is not None:
            self._near[series.name, int(point.start_timestamp.timestamp())] = key

    def _keep(self, series: _Series, point: Point) -> Sequence[Step]:
        """Keep a point with others of near starts, until their processes are known."""
        later = series.points[-1]
        series.points.append(point)
        self._register(series, point)
        if later.start_timestamp != point.start_timestamp:
            series.has_fallen |= self._has_fallen(later, point)
            if later.timestamp == point.timestamp and _total(later) != _total(point):
                series.is_repeated = series.has_fallen = True  # one process has one total
        most = _MOST_KEPT if self._range_start is None else _MOST_KEPT_BEFORE
        if self._is_of_several(series) or len(series.points) >= most:
            return list(self._settle(series))
        return ()

    def _is_of_several(self, series: _Series) -> bool:
        """Whether the points belong to parallel processes.

        Parallel processes repeat their own starts, and their totals are interleaved. If one process
        moves its start, no start recurs, or the totals keep growing.
        """
        return series.is_repeated and (series.has_fallen or not self._monotonic)

    def _settle(self, series: _Series) -> Iterator[Step]:
        """Link the kept points. The earliest one of each process waits again."""
        processes: dict[Any, list[Point]] = {}
        is_of_several = self._is_of_several(series)
        for point in series.points:
            self._waiting.pop((series.name, point.start_timestamp), None)
            of = point.start_timestamp if is_of_several else None
            processes.setdefault(of, []).append(point)
        for points in processes.values():
            yield from (self._step(later, earlier) for later, earlier in pairwise(points))
            self._wait(series.name, points[-1])

    def _step(self, later: Point, earlier: Point) -> Step:
        # The order of two points with the same time is unknown, so neither is a reset.
        start = later.start_timestamp
        is_anew = later.timestamp > earlier.timestamp and (
            self._has_fallen(later, earlier) or (start is not None and start > earlier.timestamp)
        )
        return _beginning(later) if is_anew else Step(later, earlier, known=True)

    def _has_fallen(self, point: Point, earlier: Point) -> bool:
        if point.count is not None and earlier.count is not None:
            return point.count < earlier.count or has_fallen(point.buckets, earlier.buckets)
        if not self._monotonic or point.value is None or earlier.value is None:
            return False
        return point.value < earlier.value

    def _is_in_range(self, point: Point) -> bool:
        return self._range_start is None or point.timestamp >= self._range_start


def hashable(value: Any) -> Any:
    """The value as a key. Keys are equal if the values are equal in jsonb, such as 1 and 1.0."""
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, Mapping):
        return tuple((key, hashable(item)) for key, item in sorted(value.items()))
    if isinstance(value, list):
        return ("list", *map(hashable, value))
    return value


def _began_since(range_start: datetime, point: Point) -> bool:
    return point.start_timestamp is not None and point.start_timestamp >= range_start


def _beginning(point: Point) -> Step:
    """The step of a point whose total began at zero. It is unknown if its start is its time."""
    return Step(point, None, known=point.start_timestamp != point.timestamp)


def _total(point: Point) -> float | None:
    return point.value if point.value is not None else point.count
