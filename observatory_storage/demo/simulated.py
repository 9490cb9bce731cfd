"""Simulated time, in which days pass within seconds."""

from __future__ import annotations

import dataclasses
import time
from bisect import bisect_right
from typing import Any

from opentelemetry.sdk.metrics.export import MetricsData

__all__ = ["Clock", "MetricTimes"]

_HOLD_POINTS = frozenset(
    {"resource_metrics", "scope_metrics", "metrics", "data", "data_points", "exemplars"}
)


class Clock:
    """Simulated time in nanoseconds since the epoch. Code that takes time advances it."""

    def __init__(self, now: int) -> None:
        self.now = now

    def sleep(self, seconds: float) -> None:
        """Advance the time."""
        self.now += round(seconds * 1e9)


class MetricTimes:
    """Turns the times of one reader's metrics into simulated time.

    Spans and logs are given their times, but the SDK stamps metrics with the wall clock. Between
    two collections both clocks are assumed to run evenly. So the order is kept, and equal times
    (such as the start of a cumulative sum) stay equal.
    """

    def __init__(self, start: int) -> None:
        self._wall = [time.time_ns()]
        self._simulated = [start]

    def applied(self, data: MetricsData, now: int) -> MetricsData:
        """The same metrics in simulated time. `now` is the time of their collection."""
        self._wall.append(_latest(data))
        self._simulated.append(now)
        changed: MetricsData = self._changed(data)
        return changed

    def _changed(self, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [self._changed(item) for item in value]
        if not dataclasses.is_dataclass(value) or isinstance(value, type):
            return value
        changes: dict[str, Any] = {}
        for field in dataclasses.fields(value):
            old = getattr(value, field.name)
            if field.name in _HOLD_POINTS:
                changes[field.name] = self._changed(old)
            elif field.name in {"time_unix_nano", "start_time_unix_nano"} and old is not None:
                changes[field.name] = self._at(old)
        return dataclasses.replace(value, **changes)

    def _at(self, wall: int) -> int:
        place = bisect_right(self._wall, wall)
        if place in {0, len(self._wall)}:
            return self._simulated[0 if place == 0 else -1]
        since, until = self._wall[place - 1], self._wall[place]
        begin, end = self._simulated[place - 1], self._simulated[place]
        # Integers only, since a float cannot represent nanoseconds since the epoch.
        return begin + (wall - since) * (end - begin) // (until - since)


def _latest(data: MetricsData) -> int:
    return max(
        point.time_unix_nano
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    )
