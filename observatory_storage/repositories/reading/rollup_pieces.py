"""Divides a range of time into pieces that are read from rollups, and pieces read from spans.

A rollup is used if nothing marks its time as changed; what is marked is read from the spans. So a
result is the same as without rollups, apart from the error of percentiles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, Final, Literal, Self, TypeVar

import sqlalchemy as sa

from observatory_storage.models import RollupState, SpanChange
from observatory_storage.repositories.reading import time_buckets, validation
from observatory_storage.repositories.reading.reader import Reader

__all__ = [
    "Pieces",
    "Source",
    "Span",
    "Unit",
    "checked_source",
    "pieces_of",
    "source_of_rows",
    "steadily",
    "within_any",
]

Unit = Literal["minute", "hour", "day"]
Source = Literal["raw", "rollup", "both"]
"""Where a result was read from: spans, rollups, or both."""
Span = tuple[datetime, datetime]
"""A half-open range of time."""

_WIDTHS: Final[dict[Unit, timedelta]] = {
    "minute": timedelta(minutes=1),
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
}
_LEVELS: Final[dict[Unit, int]] = {"minute": 0, "hour": 1, "day": 2}
_ORIGIN: Final = datetime(2000, 1, 1, tzinfo=UTC)
_EARLIEST, _LATEST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
# Before this year, time zones have offsets with seconds.
_FIRST_YEAR: Final = 1973
_STEP: Final = timedelta(days=3)  # offsets change less often
# An open range is taken to begin so long ago.
_ALL_YEARS: Final = timedelta(days=20 * 366)
# More ranges of spans than this are joined: each is a part of the statement.
_MOST_RAW: Final = 24
SOURCES: Final = ("auto", "raw")
_ATTEMPTS: Final = 3
T = TypeVar("T")
_STATE: Final = sa.select(
    *(RollupState.raw_since, RollupState.minute_since),
    *(RollupState.hour_since, RollupState.day_since),
)


@dataclass(frozen=True)
class Pieces:
    """Where each part of a range is read from. The parts do not overlap."""

    raw: list[Span]
    rolled: dict[Unit, list[Span]] = field(default_factory=dict)

    @classmethod
    def of_spans(cls, start: datetime | None, end: datetime | None) -> Self:
        """The whole range, read from spans."""
        return cls([(start or _EARLIEST, end or _LATEST)])


def steadily(reader: Reader, source: str, ask: Callable[[str], list[T]]) -> list[T]:
    """The answer to a question, asked again if maintenance has removed what it was read from.

    A question takes several statements, and each sees what is committed when it begins. Between
    them, spans may be dropped or rollups may expire that the first statement has counted on.

    Args:
        reader: reads whether rollups are kept, and from when on.
        source: "auto" or "raw".
        ask: asks the question of a source.
    """
    before = reader.rows(_STATE) if source != "raw" else ()
    if not before:
        return ask("raw")
    answer: list[T] = []
    for _ in range(_ATTEMPTS):
        answer = ask(source)
        after = reader.rows(_STATE)
        if after == before:
            break
        before = after
    return answer


def checked_source(source: object) -> str:
    """Check the argument ``source`` of a query.

    Raises:
        ValidationError: it is neither "auto" nor "raw".
    """
    return validation.choice("source", source, SOURCES) or "auto"


def source_of_rows(row: dict[str, Any]) -> Source:
    """Take `has_raw` and `has_rolled` out of a row, and return the source that they tell."""
    has_raw, has_rolled = row.pop("has_raw"), row.pop("has_rolled")
    return "both" if has_raw and has_rolled else "rollup" if has_rolled else "raw"


def pieces_of(
    reader: Reader,
    start: datetime | None,
    end: datetime | None,
    buckets: time_buckets.Buckets | time_buckets.WholeRange,
    units: Sequence[Unit],
) -> Pieces | None:
    """The pieces of [start, end); None if rollups serve no part of it.

    Where the spans have been dropped, a range that begins or ends within a bucket is widened to the
    whole bucket.

    Args:
        reader: reads the marks, in the transaction of the query.
        start: the start of the range; None if it is open.
        end: the end of the range; None if it is open.
        buckets: the buckets of the query, which may be finer than those of a rollup.
        units: the units of the rollups that have what is wanted.
    """
    usable = [unit for unit in units if _divides(_WIDTHS[unit], buckets, start, end)]
    first, last = start or _EARLIEST, end or _LATEST
    rows = reader.rows(_COVERAGE, {"first": first, "last": last})
    if not rows:
        return None  # rollups are not kept
    raw_since = rows[0].raw_since or _EARLIEST
    since: dict[Unit, datetime] = {
        "minute": rows[0].minute_since or _EARLIEST,
        "hour": rows[0].hour_since or _EARLIEST,
        "day": rows[0].day_since or _EARLIEST,
    }
    marks = [
        (row.level, max(row.first, raw_since) if row.level == 0 else row.first, row.last)
        for row in rows
        if row.level is not None and (row.level or row.last >= raw_since)
    ]
    for unit in sorted(usable, key=lambda unit: _WIDTHS[unit]):
        if first < raw_since and first >= since[unit]:
            first = _floor(first, _WIDTHS[unit])
            break
    for unit in sorted(usable, key=lambda unit: _WIDTHS[unit]):
        if end is not None and last < raw_since and last >= since[unit]:
            last = _ceiling(last, _WIDTHS[unit])
            break
    rest = [(first, last)] if first < last else []
    rolled: dict[Unit, list[Span]] = {}
    for unit in sorted(usable, key=lambda unit: _WIDTHS[unit], reverse=True):
        width = _WIDTHS[unit]
        inner = [(max(_ceiling(a, width), since[unit]), _floor(b, width)) for a, b in rest]
        stale = [
            (_floor(a, width), _after(_floor(b, width), width))
            for level, a, b in marks
            if level <= _LEVELS[unit]
        ]
        taken = _without([(a, b) for a, b in inner if a < b], stale)
        if taken:
            rolled[unit] = taken
            rest = _without(rest, taken)
    # What is left here of dropped spans is in rollups that the query's buckets cut. An hour counts
    # where it begins.
    for unit in sorted(set(units) - set(usable), key=lambda unit: _WIDTHS[unit]):
        width = _WIDTHS[unit]
        gone = [(max(_ceiling(a, width), since[unit]), min(b, raw_since)) for a, b in rest]
        taken = [(a, _floor(b, width)) for a, b in gone if a < _floor(b, width)]
        if taken:
            rolled[unit] = taken
            rest = _without(rest, taken)
    if not rolled:
        return None
    return _joined(rest, rolled, raw_since)


def within_any(column: Any, ranges: Iterable[Span]) -> sa.ColumnElement[bool]:
    """The condition that a time lies in one of the ranges. Open ends are left out."""
    found = []
    for start, end in ranges:
        conditions = []
        if start > _EARLIEST:
            conditions.append(column >= start)
        if end < _LATEST:
            conditions.append(column < end)
        found.append(sa.and_(sa.true(), *conditions))
    return sa.or_(sa.false(), *found)


def _joined(raw: list[Span], rolled: dict[Unit, list[Span]], raw_since: datetime) -> Pieces:
    """The pieces, with the nearest ranges of spans joined if there are too many."""
    while len(raw) > _MOST_RAW:
        gaps = [
            (following[0] - one[1], place)
            for place, (one, following) in enumerate(pairwise(raw))
            if one[1] >= raw_since
        ]
        if not gaps:
            break
        _, place = min(gaps)
        gap = (raw[place][1], raw[place + 1][0])
        raw[place : place + 2] = [(raw[place][0], raw[place + 1][1])]
        rolled = {unit: _without(ranges, [gap]) for unit, ranges in rolled.items()}
    return Pieces(raw, {unit: ranges for unit, ranges in rolled.items() if ranges})


def _covering() -> Any:
    marks = SpanChange
    minute = sa.literal(timedelta(minutes=1), sa.Interval())
    origin = sa.literal(_ORIGIN, sa.DateTime(timezone=True))
    ranges = (
        sa.select(
            marks.level,
            sa.func.date_bin(minute, marks.start_time, origin).label("first"),
            sa.func.date_bin(minute, marks.end_time, origin).label("last"),
        )
        .where(
            # A mark within a day makes the whole day stale.
            marks.end_time >= sa.bindparam("first") - timedelta(days=1),
            marks.start_time < sa.bindparam("last"),
        )
        .distinct()
        .subquery("ranges")
    )
    state = RollupState
    return sa.select(
        *(state.raw_since, state.minute_since, state.hour_since, state.day_since), *ranges.c
    ).join_from(state, ranges, sa.true(), isouter=True)


_COVERAGE: Final = _covering()


def _divides(
    width: timedelta,
    buckets: time_buckets.Buckets | time_buckets.WholeRange,
    start: datetime | None,
    end: datetime | None,
) -> bool:
    """Whether each bucket of the query consists of whole buckets of this width."""
    if isinstance(buckets, time_buckets.WholeRange):
        return True
    if isinstance(buckets, time_buckets.EqualBuckets):
        return not buckets.width % width
    zone = buckets.zone
    if isinstance(zone, str):  # its offsets are known to the server alone
        return False
    if zone is UTC:
        return True
    now = datetime.now(UTC)
    start, end = start or now - _ALL_YEARS, end or now + timedelta(days=366)
    if start.year < _FIRST_YEAR or end - start > 2 * _ALL_YEARS:
        return False
    moment, offsets = start, {end.astimezone(zone).utcoffset()}
    while moment < end:
        offsets.add(moment.astimezone(zone).utcoffset())
        moment += _STEP
    return not any((offset or timedelta()) % width for offset in offsets)


def _without(ranges: Iterable[Span], holes: Iterable[Span]) -> list[Span]:
    """The parts of the ranges that are in no hole, in order."""
    ordered = sorted(holes)
    found: list[Span] = []
    for start, end in ranges:
        position = start
        for low, high in ordered:
            if high <= position:
                continue
            if low >= end:
                break
            if low > position:
                found.append((position, low))
            position = high
        if position < end:
            found.append((position, end))
    return found


def _floor(moment: datetime, width: timedelta) -> datetime:
    if moment in (_EARLIEST, _LATEST):
        return moment
    return _ORIGIN + (moment - _ORIGIN) // width * width


def _ceiling(moment: datetime, width: timedelta) -> datetime:
    floor = _floor(moment, width)
    return floor if floor == moment else _after(floor, width)


def _after(moment: datetime, width: timedelta) -> datetime:
    return moment + width if _LATEST - moment > width else _LATEST
