"""One piece of the work that keeps rollups up to date, within its transaction."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, cast

import sqlalchemy as sa

from observatory_storage.lifecycle import rollup_statements as statements
from observatory_storage.lifecycle.rollup_statements import KINDS_OF_ROLLUPS
from observatory_storage.models import RollupState, SpanChange

__all__ = ["EARLIEST_BUCKET", "LATEST_BUCKET", "MARKS", "STATE", "UNITS", "Piece", "RollupWork"]

_MINUTE, _HOUR, _DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
UNITS: Final = (("minute", _MINUTE), ("hour", _HOUR), ("day", _DAY))
_ORIGIN: Final = datetime(2000, 1, 1, tzinfo=UTC)
EARLIEST_BUCKET, _END = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
# Spans that start later than this have a wrong time. To wait for it would never end.
_AHEAD: Final = timedelta(hours=1)
# The kinds whose hours are computed from minutes; those of the others from spans.
_OF_MINUTES: Final = KINDS_OF_ROLLUPS[:2]
MARKS: Final = cast(sa.Table, SpanChange.__table__)
STATE: Final = cast(sa.Table, RollupState.__table__)


LATEST_BUCKET: Final = _END - timedelta(days=1)
_MANY_SPANS: Final = (
    "SELECT start_time FROM {schema}.trace_spans"
    " WHERE start_time >= :start AND start_time < :end ORDER BY start_time OFFSET 200000 LIMIT 1"
)


@dataclass(frozen=True)
class Piece:
    """A piece of work that was done: the number of changed buckets, and where it ended."""

    buckets: int
    end: datetime


class RollupWork:
    """One piece of work, in its transaction."""

    def __init__(self, connection: sa.Connection, schema: str, level: int) -> None:
        self._connection = connection
        self._schema = schema
        self._level = level
        self._unit, self._width = UNITS[level]
        state = connection.execute(sa.select(STATE)).one()
        self._raw_since: datetime = state.raw_since or EARLIEST_BUCKET
        self._minute_since: datetime = state.minute_since or EARLIEST_BUCKET
        self._hour_since: datetime = state.hour_since or EARLIEST_BUCKET

    def piece(self, now: datetime, complete: datetime, place: datetime) -> Piece | None:
        """Do the first piece of work at or after a place; None if there is none.

        Args:
            now: the present time.
            complete: what starts before it is complete.
            place: the end of the piece before. What has been marked behind it is left to the next
                run: with late spans coming all the time, a run would never end.
        """
        marks = MARKS.c
        end_of_complete = _floor(complete, self._width)
        ahead = now + _AHEAD
        first = self._connection.scalar(
            sa.select(sa.func.min(sa.func.greatest(marks.start_time, place))).where(
                marks.level == self._level,
                marks.end_time >= place,
                sa.or_(marks.start_time < end_of_complete, marks.start_time >= ahead),
            )
        )
        if first is None or end_of_complete <= first < ahead:
            return None
        bound = end_of_complete if first < end_of_complete else _END
        start = _floor(first, self._width)
        if self._level == 0 and start < self._raw_since:
            # The spans may be gone, so their rollups stay as they are.
            return self._consumed(start, self._raw_since, 0, has_changed=False)
        start, end = self._window(start, bound)
        # What is computed from differs on both sides of these times. Spans may be kept from within
        # a day on, but a bucket is never computed in two parts.
        sinces = (self._raw_since, self._minute_since, self._hour_since)
        edges = (_ceiling(since, self._width) for since in sinces if start < since)
        end = min(end, *edges, end)
        changed = self._computed(start, end)
        # Where these rollups have expired, there were none whose change could be seen.
        own_since = (self._minute_since, self._hour_since, _END)[self._level]
        return self._consumed(start, end, changed, has_changed=changed > 0 or start < own_since)

    def _window(self, start: datetime, bound: datetime) -> tuple[datetime, datetime]:
        """The buckets from the start that are computed together.

        An hour or a day by itself; as many marked minutes of an hour as do not have too many spans.
        Where nothing is to be found for long, the window extends to what comes next.
        """
        end = min(_after(start, self._width), bound)
        if self._level < 2:
            end = self._end_of_marked(start, min(_after(_floor(start, _DAY), _DAY), bound))
        if self._next_source(start, end) is not None:
            return start, end
        following = self._next_source(end)
        marks = MARKS.c
        marked_until = self._connection.scalar(
            sa.select(sa.func.max(marks.end_time)).where(
                marks.level == self._level, marks.start_time < end
            )
        )
        assert marked_until is not None
        reach = _after(_floor(marked_until, self._width), self._width)
        if following is not None:
            reach = min(reach, _floor(following, self._width))
        return start, min(max(end, reach), bound)

    def _end_of_marked(self, start: datetime, bound: datetime) -> datetime:
        """The end of the marked buckets that follow each other, and have not too many spans."""
        marks = MARKS.c
        width = sa.literal(self._width, sa.Interval())
        origin = sa.literal(_ORIGIN, sa.DateTime(timezone=True))
        ranges = sa.select(
            sa.func.date_bin(width, marks.start_time, origin).label("first"),
            sa.func.date_bin(width, marks.end_time, origin).label("last"),
        ).where(marks.level == self._level, marks.start_time < bound, marks.end_time >= start)
        least = end = _after(start, self._width)
        for first, last in self._connection.execute(ranges.distinct().order_by("first", "last")):
            if first > end:
                break
            end = max(end, _after(last, self._width))
        end = min(end, bound)
        if end <= least:
            return end
        many = self._connection.scalar(
            sa.text(_MANY_SPANS.format(schema=self._schema)), {"start": start, "end": end}
        )
        return end if many is None else max(_floor(many, self._width), least)

    def _next_source(self, start: datetime, end: datetime = _END) -> datetime | None:
        """The first time in [start, end) of anything that these buckets are computed from."""
        table, column = (
            ("trace_spans", "start_time"),
            ("span_rollups_minute", "bucket"),
            ("span_rollups_hour", "bucket"),
        )[self._level]
        found: list[datetime] = []
        raw = "trace_spans", "start_time"
        expired = max(self._minute_since, self._hour_since) if self._level else EARLIEST_BUCKET
        for name, time in {(table, column), *([raw] if start < expired else [])}:
            statement = f"SELECT min({time}) FROM {self._schema}.{name} WHERE {time} >= :start"  # noqa: S608 - quoted
            if end < _END:  # known in advance, it prunes partitions
                statement += f" AND {time} < :end"
            moment = self._connection.scalar(sa.text(statement), {"start": start, "end": end})
            if moment is not None:
                found.append(moment)
        return min(found, default=None)

    def _computed(self, start: datetime, end: datetime) -> int:
        """Compute the buckets in [start, end); return how many were changed."""
        if self._level == 0:
            return self._minutes(start, end)
        if self._next_source(start, end) is None:
            return self._cleared(start, end)
        return self._hours(start, end) if self._level == 1 else self._day(start, end)

    def _minutes(self, start: datetime, end: datetime) -> int:
        deleted = self._delete(KINDS_OF_ROLLUPS[0].table("minute"), start, end)
        return max(deleted, self._run(statements.minutes(self._schema), start, end))

    def _hours(self, start: datetime, end: datetime) -> int:
        spans, latency, *personal = KINDS_OF_ROLLUPS
        has_raw = start >= self._raw_since
        changed = 0
        if start < self._minute_since and has_raw:
            self._minutes(start, end)  # they have expired
        if start >= self._minute_since or has_raw:
            for kind in (spans, latency):
                changed = max(changed, self._delete(kind.table("hour"), start, end))
            merging = statements.merged(spans, self._schema, "minute", "hour")
            changed = max(changed, self._run(merging, start, end))
            self._run(statements.latency_of_hours(self._schema), start, end)
        if has_raw:
            for kind in personal:
                changed = max(changed, self._delete(kind.table("hour"), start, end))
            inserting = sa.text(statements.personal(self._schema))
            counts = self._connection.execute(inserting, {"start": start, "end": end}).one()
            changed = max(changed, *counts)
        return changed

    def _day(self, start: datetime, end: datetime) -> int:
        changed = 0
        if start < self._hour_since:
            if start < self._raw_since:
                return 0  # neither hours nor spans are left of it
            self._hours(start, end)
        for kind in KINDS_OF_ROLLUPS:
            merging = statements.merged(kind, self._schema, "hour", "day")
            deleted = self._delete(kind.table("day"), start, end)
            changed = max(changed, deleted, self._run(merging, start, end))
        return changed

    def _cleared(self, start: datetime, end: datetime) -> int:
        # Where neither finer rollups nor spans are left, what there is stays.
        finer = self._minute_since if self._level == 1 else self._hour_since
        changed = 0
        for kind in KINDS_OF_ROLLUPS:
            of_spans = self._level == 1 and kind not in _OF_MINUTES
            since = self._raw_since if of_spans else min(self._raw_since, finer)
            deleted = self._delete(kind.table(self._unit), max(start, since), end)
            changed = max(changed, deleted)
        return changed

    def _delete(self, table: str, start: datetime, end: datetime) -> int:
        deleting = f"DELETE FROM {self._schema}.{table} WHERE bucket >= :start AND bucket < :end"  # noqa: S608 - quoted
        return self._run(deleting, start, end)

    def _run(self, statement: str, start: datetime, end: datetime) -> int:
        """Run a change of rollups; return how many buckets it changed."""
        counting = sa.text(
            f"WITH changed AS ({statement} RETURNING bucket)"  # noqa: S608 - quoted
            " SELECT count(DISTINCT bucket) FROM changed"
        )
        return int(self._connection.execute(counting, {"start": start, "end": end}).scalar_one())

    def _consumed(
        self, start: datetime, end: datetime, changed: int, *, has_changed: bool
    ) -> Piece:
        """Take away the marks in [start, end), and mark what is coarser if rows have changed."""
        marks = MARKS.c
        taken = self._connection.execute(
            sa.delete(MARKS)
            .where(marks.level == self._level, marks.start_time < end, marks.end_time >= start)
            .returning(marks.start_time, marks.end_time)
        ).all()
        left = []
        if (first := min((mark.start_time for mark in taken), default=start)) < start:
            left.append((self._level, first, start - _MICROSECOND))
        if (last := max((mark.end_time for mark in taken), default=start)) >= end and end < _END:
            left.append((self._level, end, last))
        if has_changed and self._level < 2:
            left.append((self._level + 1, start, end - _MICROSECOND))
        if left:
            names = ("level", "start_time", "end_time")
            rows = [dict(zip(names, mark, strict=True)) for mark in left]
            self._connection.execute(sa.insert(MARKS), rows)
        return Piece(changed, end)


def _floor(moment: datetime, width: timedelta) -> datetime:
    try:
        return _ORIGIN + (moment - _ORIGIN) // width * width
    except OverflowError:
        return EARLIEST_BUCKET


def _ceiling(moment: datetime, width: timedelta) -> datetime:
    floor = _floor(moment, width)
    return floor if floor == moment else _after(floor, width)


def _after(moment: datetime, width: timedelta) -> datetime:
    return moment + width if _END - moment > width else _END
