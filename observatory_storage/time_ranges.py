"""Ranges of time that partitions have: which one a moment prefers, and how it is named.

Near today a range has the configured width: an hour, a day, a week or a month. Further off it is
a month, and beyond that a year. Two catch-alls hold the far past and future: no row is refused for
its time, and absurd times do not make thousands of partitions. A coarse range that would overlap
one that is there already gives way to a finer one, and at last to the gap between its neighbours.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from observatory_storage.config.partition_settings import Width

__all__ = [
    "MAX",
    "MIN",
    "NAMES",
    "Range",
    "candidates",
    "free_range",
    "gap_between",
    "is_absurd",
    "named_gap",
    "natural_range",
    "range_of",
]

MIN: Final = datetime.min.replace(tzinfo=UTC)
MAX: Final = datetime.max.replace(tzinfo=UTC)

# How far from now the configured width is used, into the past and into the future.
_NEAR: Final[dict[Width, tuple[timedelta, timedelta]]] = {
    "hour": (timedelta(days=7), timedelta(days=8)),
    "day": (timedelta(days=90), timedelta(days=35)),
    "week": (timedelta(days=366), timedelta(days=70)),
    "month": (timedelta(days=5 * 366), timedelta(days=2 * 366)),
}
# The units that are tried as the distance from now grows, before years.
_ZONES: Final[dict[Width, tuple[Width, ...]]] = {
    "hour": ("hour", "day", "month"),
    "day": ("day", "month"),
    "week": ("week", "month"),
    "month": ("month",),
}
_FIRST_YEAR: Final = datetime(2000, 1, 1, tzinfo=UTC)
_LAST_YEAR: Final = datetime(2100, 1, 1, tzinfo=UTC)

# The suffixes of partitions: p2026, p202601, p20260131, p2026013115 (an hour), p2026w05 (an ISO
# week), and gaps, which name both ends as far as they need: p20260131_202602, past1970, future2150.
_MOMENT: Final = r"\d{4}(?:\d\d){0,5}(?:\d{6})?"
NAMES: Final = re.compile(
    rf"(?:p\d{{4}}(?:\d\d){{0,3}}|p\d{{4}}w\d\d|p{_MOMENT}_{_MOMENT}"
    rf"|past(?:{_MOMENT})?|future(?:{_MOMENT})?)(?:_\d)?"
)


class Range(NamedTuple):
    """A half-open range of time [lower, upper); the catch-alls reach to the ends of datetime."""

    lower: datetime
    upper: datetime
    suffix: str = ""

    def holds(self, moment: datetime) -> bool:
        return self.lower <= moment < self.upper or moment == self.upper == MAX

    def overlaps(self, other: Range) -> bool:
        return self.lower < other.upper and other.lower < self.upper

    def contains(self, other: Range) -> bool:
        return self.lower <= other.lower and other.upper <= self.upper


def candidates(
    moment: datetime, now: datetime, width: Width = "day", ahead: timedelta = timedelta(0)
) -> Iterator[Range]:
    """The ranges that may hold the moment, the preferred one first and the finest last.

    Args:
        moment: the time of a row.
        now: the present time, from which distances count.
        width: the width of ranges near now.
        ahead: how far ahead ranges of this width are made in any case.
    """
    moment = moment.astimezone(UTC)
    if moment < _FIRST_YEAR:
        yield Range(MIN, _FIRST_YEAR, "past")
        return
    if moment >= _LAST_YEAR:
        yield Range(_LAST_YEAR, MAX, "future")
        return
    coarsest = _coarsest(moment, now, width, ahead)
    # Weeks do not nest in months. If they took the place of a month, none would fit again.
    chain = ("year", "month", *(("week",) if width == "week" else ()), "day", "hour")
    for unit in chain[chain.index(coarsest) :]:
        yield _UNITS[unit](moment)


def natural_range(
    moment: datetime, now: datetime, width: Width, ahead: timedelta = timedelta(0)
) -> Range:
    """The range that the moment would have if there were no other: a year in the catch-alls."""
    moment = moment.astimezone(UTC)
    if not _FIRST_YEAR <= moment < _LAST_YEAR:
        return _year(moment)
    return next(candidates(moment, now, width, ahead))


def free_range(
    moment: datetime,
    now: datetime,
    width: Width,
    taken: Sequence[Range],
    ahead: timedelta = timedelta(0),
) -> Range:
    """The range to make for a moment that none of the ranges in `taken` (in order) holds."""
    fitting = (
        wanted
        for wanted in candidates(moment, now, width, ahead)
        if not any(wanted.overlaps(other) for other in taken)
    )
    found = next(fitting, None)
    return found if found is not None else gap_between(moment, taken)


def gap_between(moment: datetime, taken: Sequence[Range]) -> Range:
    """What is free around the moment: within its hour, and in the catch-alls without end."""
    moment = moment.astimezone(UTC)
    index = bisect_right(taken, moment, key=lambda r: r.lower)
    lower = taken[index - 1].upper if index else MIN
    upper = taken[index].lower if index < len(taken) else MAX
    if moment < _FIRST_YEAR:
        upper = min(upper, _FIRST_YEAR)
    elif moment >= _LAST_YEAR:
        lower = max(lower, _LAST_YEAR)
    else:
        hour = _hour(moment)
        lower, upper = max(lower, hour.lower), min(upper, hour.upper)
    return named_gap(lower, upper)


def named_gap(lower: datetime, upper: datetime) -> Range:
    """The range between two moments, named by both unless it is a plain year, month, day or hour.

    MIN and MAX are the ends of all time.
    """
    if lower == MIN:
        return Range(lower, upper, "past" if upper == _FIRST_YEAR else f"past{_brief(upper)}")
    if upper == MAX:
        return Range(lower, upper, "future" if lower == _LAST_YEAR else f"future{_brief(lower)}")
    for unit in (_year, _month, _week, _day, _hour):
        plain = unit(lower)
        if (plain.lower, plain.upper) == (lower, upper):
            return plain
    return Range(lower, upper, f"p{_brief(lower)}_{_brief(upper)}")


def is_absurd(held: Range) -> bool:
    """Whether the range is of the far past or future, which the catch-alls hold at first."""
    return held.upper <= _FIRST_YEAR or held.lower >= _LAST_YEAR


def range_of(ranges: Sequence[Range], moment: datetime) -> Range | None:
    """The one of the ranges, which are in order, that holds the moment."""
    index = bisect_right(ranges, moment, key=lambda r: r.lower) - 1
    return ranges[index] if index >= 0 and ranges[index].holds(moment) else None


def _coarsest(moment: datetime, now: datetime, width: Width, ahead: timedelta) -> str:
    distance = moment - now
    for unit in _ZONES[width]:
        back, forth = _NEAR[unit]
        if unit == width:
            forth = max(forth, ahead + timedelta(days=1))
        if -back <= distance <= forth:
            return unit
    return "year"


def _brief(moment: datetime) -> str:
    """The moment in digits, without those at the end that are those of the year's beginning."""
    if moment.microsecond:
        return f"{moment.year:04}{moment:%m%d%H%M%S%f}"
    parts = [f"{moment.year:04}", *(f"{moment:%m %d %H %M %S}".split())]
    least = ["", "01", "01", "00", "00", "00"]
    while len(parts) > 1 and parts[-1] == least[len(parts) - 1]:
        parts.pop()
    return "".join(parts)


def _hour(moment: datetime) -> Range:
    lower = moment.replace(minute=0, second=0, microsecond=0)
    return Range(lower, _after(lower, timedelta(hours=1)), f"p{lower.year:04}{lower:%m%d%H}")


def _day(moment: datetime) -> Range:
    lower = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    return Range(lower, _after(lower, timedelta(days=1)), f"p{lower.year:04}{lower:%m%d}")


def _week(moment: datetime) -> Range:
    day = _day(moment).lower
    year, week, weekday = day.isocalendar()
    lower = day - timedelta(days=min(weekday - 1, (day - MIN).days))
    return Range(lower, _after(lower, timedelta(days=7)), f"p{year:04}w{week:02}")


def _month(moment: datetime) -> Range:
    lower = _day(moment).lower.replace(day=1)
    upper = _after(lower, timedelta(days=32))
    return Range(
        lower, upper if upper == MAX else upper.replace(day=1), f"p{lower.year:04}{lower:%m}"
    )


def _year(moment: datetime) -> Range:
    lower = _month(moment).lower.replace(month=1)
    if lower.year == MAX.year:
        return Range(lower, MAX, f"future{lower.year:04}")
    upper = lower.replace(year=lower.year + 1)
    return Range(lower, upper, f"p{lower.year:04}" if lower > MIN else f"past{upper.year:04}")


def _after(moment: datetime, step: timedelta) -> datetime:
    return moment + step if moment <= MAX - step else MAX


_UNITS: Final = {"hour": _hour, "day": _day, "week": _week, "month": _month, "year": _year}
