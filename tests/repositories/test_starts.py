"""When a running total began: starts that are unknown, that move, or of several processes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from observatory_storage.repositories.metrics.running_totals import Point, steps
from tests.repositories.samples import START

MS = timedelta(milliseconds=1)
# (seconds since START, start in seconds since START or None, total)
Total = tuple[float, float | None, float]


def at(seconds: float | None) -> datetime | None:
    return None if seconds is None else START + timedelta(seconds=seconds)


def a_number(total: Total, attributes: dict[str, Any] | None = None) -> Point:
    moment, start, value = total
    timestamp = START + timedelta(seconds=moment)
    others = {"count": None, "sum": None, "min": None, "max": None}
    return Point(
        attributes=attributes or {},
        start_timestamp=at(start),
        timestamp=timestamp,
        id=UUID(int=0),
        value=value,
        buckets=None,
        quantiles=None,
        **others,
    )


def increases(
    points: Iterable[Point], *, since: float = 0, monotonic: bool = True
) -> dict[float, float]:
    """What each point added, by its second; without those of which it is unknown."""
    newest_first = sorted(points, key=lambda point: point.timestamp, reverse=True)
    begin = START + timedelta(seconds=since)

    def look_back(waiting: Sequence[Point]) -> Iterable[Point]:
        assert waiting
        return (point for point in newest_first if point.timestamp < begin)

    found: dict[float, float] = {}
    in_range = [point for point in newest_first if point.timestamp >= begin]
    seen = []
    for step in steps(in_range, begin, look_back, monotonic=monotonic):
        seen.append(step.point)
        if step.known:
            assert step.point.value is not None
            before = step.earlier.value if step.earlier else 0.0
            second = (step.point.timestamp - START) / timedelta(seconds=1)
            found[second] = found.get(second, 0.0) + step.point.value - (before or 0.0)
    assert sorted(map(id, seen)) == sorted(map(id, in_range))  # each point once
    return found


@pytest.mark.parametrize(
    ("totals", "expected"),
    [
        ([(60, 60, 1_000_000), (120, 60, 1_000_001), (180, 60, 1_000_003)], {120: 1, 180: 2}),
        ([(60, 60, 7)], {}),
        ([(60, 30, 7)], {60: 7}),
        # The receiver begins anew: what is between the two is unknown.
        ([(60, 0, 5), (120, 120, 9), (180, 120, 11)], {60: 5, 180: 2}),
        # A total that fell since an unknown start began at zero.
        ([(60, 60, 50), (120, 60, 4), (180, 60, 6)], {120: 4, 180: 2}),
        # Each point starts a count of its own.
        ([(n * 60, n * 60, 10 * n) for n in range(1, 4)], {}),
        # Each point starts where the one before ended: it began anew.
        ([(60, 0, 4), (120, 60, 5), (180, 120, 6)], {60: 4, 120: 5, 180: 6}),
        # No start, then that point's time as the start.
        ([(60, None, 100), (120, 60, 101), (180, 60, 104)], {120: 1, 180: 3}),
        ([(60, None, 100), (120, None, 101), (180, 120, 104)], {120: 1, 180: 3}),
        # None at all.
        ([(60, None, 100), (120, None, 104), (180, None, 3)], {120: 4, 180: 3}),
    ],
)
def test_an_unknown_start_adds_nothing(totals: list[Total], expected: dict[float, float]) -> None:
    assert increases(map(a_number, totals)) == expected


def test_the_count_may_have_started_before_the_range() -> None:
    points = [a_number((n * 60, 60, 1_000_000 + n)) for n in range(1, 5)]
    assert increases(points, since=150) == {180: 1, 240: 1}
    assert increases(points, since=60) == {120: 1, 180: 1, 240: 1}


def test_a_point_that_starts_the_count_has_none_before_it() -> None:
    points = [a_number((30, 0, 8)), a_number((60, 60, 9)), a_number((120, 60, 12))]
    assert increases(points, since=45) == {120: 3}


def test_streams_start_their_own_counts() -> None:
    points = [
        a_number((second, start, total), {"host": host})
        for host, start in (("a", 60), ("b", 30), ("c", None))
        for second, total in ((60, 10), (120, 15))
    ]
    assert increases(points) == {60: 10, 120: 15}


JITTER = {
    "forward": lambda n: n / 1000,
    "back": lambda n: -n / 1000,
    "to and fro": lambda n: (n % 2) / 1000,
    "irregular": lambda n: (n * n % 7) / 1000,
    "microseconds": lambda n: (n * n % 11) / 1_000_000,
}


@pytest.mark.parametrize("jitter", JITTER.values(), ids=JITTER)
@pytest.mark.parametrize("start", [-500, 30])
@pytest.mark.parametrize("count", [2, 3, 10, 2500])
def test_a_start_that_moves_a_little_is_the_same_start(
    jitter: Any, start: float, count: int
) -> None:
    points = [a_number((60 * n, start + jitter(n), 100 + 5 * n)) for n in range(1, count + 1)]
    first = {60: 105} if start == 30 else {}
    assert increases(points) == first | {60 * n: 5 for n in range(2, count + 1)}
    if count > 2 and start < 0:
        assert increases(points, since=100) == {60 * n: 5 for n in range(2, count + 1)}


def test_a_start_that_moves_with_the_clock_is_the_same_start() -> None:
    """The clock is set little by little, so the start moves far in the end."""
    points = [a_number((60 * n, n / 5, 5 * n)) for n in range(1, 200)]
    assert increases(points) == {60 * n: 5 for n in range(1, 200)}


def test_an_export_that_is_repeated_with_another_start_adds_nothing() -> None:
    totals = [(60, 30, 5), (120, 30.001, 8), (120, 30.002, 8), (180, 30.003, 9)]
    assert increases(map(a_number, totals)) == {60: 5, 120: 3, 180: 1}


def test_a_total_falls_although_its_start_moves_little() -> None:
    totals = [(60, 30, 50), (120, 30.001, 60), (180, 30.002, 4), (240, 30.003, 9)]
    assert increases(map(a_number, totals)) == {60: 50, 120: 10, 180: 4, 240: 5}


def test_a_process_that_began_after_the_point_before_began_at_zero() -> None:
    totals = [(60.0, 59.9, 5), (60.3, 60.2, 7), (60.6, 60.2, 8)]
    assert increases(map(a_number, totals)) == {60.0: 5, 60.3: 7, 60.6: 1}


@pytest.mark.parametrize("since", [0, 200])
@pytest.mark.parametrize("apart", [0, 7])
def test_processes_that_began_at_nearly_the_same_time_add_up(since: float, apart: float) -> None:
    """As the workers of a server that forks do, which report the same attributes."""
    one = [a_number((60 * n, -50, 10 * n)) for n in range(1, 8)]
    other = [a_number((60 * n + apart, -49.99, 12 * n)) for n in range(1, 8)]
    third = [a_number((60 * n + 2 * apart, -49.98, n)) for n in range(1, 8)]
    found = increases([*one, *other, *third], since=since)
    assert sum(found.values()) == (23 * 6 if since == 0 else 23 * 4)


def test_updowncounters_fall_and_their_starts_may_move() -> None:
    falling = [a_number((60 * n, 30 + n / 1000, 50 - 5 * n)) for n in range(1, 5)]
    assert increases(falling, monotonic=False) == {60: 45, 120: -5, 180: -5, 240: -5}
    workers = [
        a_number((60 * n + worker, 30 + worker / 1000, 50 * worker + n))
        for n in range(1, 5)
        for worker in (1, 2)
    ]
    assert sum(increases(workers, monotonic=False).values()) == 51 + 101 + 6
    unknown = [a_number((60, 60, 50)), a_number((120, 60, 40))]
    assert increases(unknown, monotonic=False) == {120: -10}


def test_points_of_one_microsecond_are_no_new_beginning() -> None:
    """Nanoseconds tell them apart, which the table does not order."""
    totals = [(60, 30, 5), (120, 30, 9), (120, 30, 7), (180, 30, 10)]
    assert sum(increases(map(a_number, totals)).values()) == 10
