"""Keeps rollups up to date: a step of maintenance that computes what has changed anew.

Whoever changes spans marks their times (`changed_spans`). A refresh takes marks away and computes
the minutes from the spans, in one transaction that sees both at one moment: what it does not see is
still marked afterwards. The hours of changed minutes are then marked in the same way, and the days
of changed hours. Each piece of work is such a transaction. Those of several processes wait for each
other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

import sqlalchemy as sa

from observatory_storage.errors import ValidationError, translated
from observatory_storage.lifecycle import rollup_statements as statements
from observatory_storage.lifecycle.rollup_statements import KINDS_OF_ROLLUPS
from observatory_storage.lifecycle.run import Run
from observatory_storage.lifecycle.short_locks import with_short_locks
from observatory_storage.models import RollupState, SpanChange
from observatory_storage.schema_state import quoted_name
from observatory_storage.serialization import Result
from observatory_storage.storing.transaction import Source, retrying

__all__ = ["GRACE", "RefreshedRollups", "keep_rollups_before", "rebuild_rollups", "refresh_rollups"]

GRACE: Final = timedelta(minutes=2)
"""How long after its end a minute is computed. Most spans that start in it have arrived by then."""

_MINUTE, _HOUR, _DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
_UNITS: Final = (("minute", _MINUTE), ("hour", _HOUR), ("day", _DAY))
_ORIGIN: Final = datetime(2000, 1, 1, tzinfo=UTC)
_EARLIEST, _LATEST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
# Spans that start later than this have a wrong time. To wait for it would never end.
_AHEAD: Final = timedelta(hours=1)
_SPANS_AT_A_TIME: Final = 200_000
# The kinds whose hours are computed from minutes; those of the others from spans.
_OF_MINUTES: Final = KINDS_OF_ROLLUPS[:2]
_MARKS = SpanChange.__table__
_STATE = RollupState.__table__


@dataclass(frozen=True, slots=True)
class RefreshedRollups(Result):
    """The result of `refresh_rollups`.

    Attributes:
        minutes: the number of minutes that were computed from spans.
        hours: the number of hours that were computed.
        days: the number of days that were computed.
        is_complete: whether nothing is left that could be computed at this time.
    """

    minutes: int = 0
    hours: int = 0
    days: int = 0
    is_complete: bool = True


def refresh_rollups(run: Run, *, grace: timedelta = GRACE) -> RefreshedRollups:
    """Compute the minutes, hours and days anew whose spans have changed, in bounded pieces.

    The first call begins to keep rollups: it briefly waits until nobody is writing spans, and then
    computes the rollups of all stored spans.

    Args:
        run: the run of maintenance.
        grace: how long a minute must be over.

    Raises:
        StorageError: the database could not be used. Pieces that were done before stay.
        ValidationError: the grace is negative.
    """
    if grace < timedelta(0):
        raise ValidationError("grace", grace, "must not be negative")
    _begin(run.source)
    counts = [0, 0, 0]
    for level, (unit, _) in enumerate(_UNITS):
        while True:
            if run.deadline.is_over:
                return RefreshedRollups(*counts, is_complete=False)
            piece = partial(_refresh, run.source, level, run.now, run.now - grace)
            done = retrying(run.source.config, piece)
            if done is None:
                break
            counts[level] += done.buckets
            if done.buckets:
                run.progress(f"refreshed {unit}s until {done.end.isoformat()}")
    return RefreshedRollups(*counts)


def rebuild_rollups(
    source: Source,
    start: datetime | None = None,
    end: datetime | None = None,
    *,
    progress: Callable[[str], object] = lambda _: None,
) -> RefreshedRollups:
    """Compute the rollups in [start, end) anew from the spans, whether or not they are marked.

    Times whose spans may have been dropped keep their rollups.

    Args:
        source: the pool.
        start: the first start; None for the earliest.
        end: the first start that is left out; None for no bound.
        progress: is called with a line for people.

    Raises:
        StorageError: the database could not be used. What is left is computed by the next refresh.
        ValidationError: a time has no time zone, or the end is before the start.
    """
    for name, moment in (("start", start), ("end", end)):
        if moment is not None and moment.utcoffset() is None:
            raise ValidationError(name, moment, "must be a datetime with a time zone")
    first, last = start or _EARLIEST, _LATEST - _DAY if end is None else end - _MICROSECOND
    if last < first:
        if start is not None and end is not None and end < start:
            raise ValidationError("end", end, f"must not be before start ({start})")
        return RefreshedRollups()
    _begin(source)
    with translated(), source.engine.begin() as connection:
        mark = {"level": 0, "start_time": first, "end_time": last}
        connection.execute(sa.insert(_MARKS), mark)
    return refresh_rollups(Run(source, progress=progress))


def keep_rollups_before(
    connection: sa.Connection, moment: datetime, *, even_if_stale: bool = False
) -> bool:
    """Keep the rollups of what starts before the moment, whatever becomes of its spans.

    Retention calls it in a transaction that it commits before it detaches or drops partitions
    whose spans start before the moment. It waits for a refresh that is reading them.

    Args:
        connection: a connection in a transaction, whose engine has the schema.
        moment: the end of the partitions.
        even_if_stale: keep them even if they do not have all of the spans.

    Returns:
        False if rollups of these spans are not up to date, and nothing was changed: refresh them
        first. True if there are no rollups.
    """
    connection.execute(_locking(connection))
    state = connection.execute(sa.select(_STATE)).one_or_none()
    if state is None:
        return True
    marks = _MARKS.c
    since = state.raw_since or _EARLIEST
    stale = sa.select(marks.id).where(
        marks.level < 2, marks.start_time < moment, marks.end_time >= since
    )
    if not even_if_stale and connection.scalar(sa.select(stale.exists())):
        return False
    connection.execute(sa.update(_STATE).values(raw_since=max(since, moment)))
    return True


@dataclass(frozen=True)
class _Piece:
    buckets: int
    end: datetime


def _begin(source: Source) -> None:
    """Begin to keep rollups, while no transaction is writing spans.

    From then on writers mark what they change. The spans that are there are marked here.
    """
    with translated(), source.engine.connect() as connection:
        if connection.execute(sa.select(_STATE.c.id)).first() is not None:
            return
    schema = quoted_name(source.schema)

    def begin(connection: sa.Connection) -> None:
        connection.execute(
            sa.text(f"LOCK TABLE ONLY {schema}.trace_spans IN SHARE ROW EXCLUSIVE MODE")
        )
        connection.execute(_locking(connection))
        if connection.execute(sa.select(_STATE.c.id)).first() is not None:
            return
        connection.execute(sa.insert(_STATE), {"id": 1})
        first, last = connection.execute(
            sa.text(f"SELECT min(start_time), max(start_time) FROM {schema}.trace_spans")  # noqa: S608 - quoted
        ).one()
        if first is not None:
            mark = {"level": 0, "start_time": first, "end_time": last}
            connection.execute(sa.insert(_MARKS), mark)

    with_short_locks(source, begin)


def _locking(connection: sa.Connection) -> sa.TextClause:
    """Has pieces wait for each other. A LOCK comes before the snapshot of the transaction."""
    translation = connection.get_execution_options().get("schema_translate_map") or {}
    schema = quoted_name(translation.get(None) or "public")
    return sa.text(f"LOCK TABLE {schema}.rollup_state IN EXCLUSIVE MODE")


def _refresh(source: Source, level: int, now: datetime, complete: datetime) -> _Piece | None:
    """Do one piece of work of a level; None if there is none."""
    isolated = source.engine.execution_options(isolation_level="REPEATABLE READ")
    with translated(), isolated.begin() as connection:
        connection.execute(_locking(connection))
        work = _Work(connection, quoted_name(source.schema), level)
        return work.piece(now, complete)


class _Work:
    """One piece of work, in its transaction."""

    def __init__(self, connection: sa.Connection, schema: str, level: int) -> None:
        self._connection = connection
        self._schema = schema
        self._level = level
        self._unit, self._width = _UNITS[level]
        state = connection.execute(sa.select(_STATE)).one()
        self._raw_since: datetime = state.raw_since or _EARLIEST
        self._minute_since: datetime = state.minute_since or _EARLIEST
        self._hour_since: datetime = state.hour_since or _EARLIEST

    def piece(self, now: datetime, complete: datetime) -> _Piece | None:
        marks = _MARKS.c
        end_of_complete = _floor(complete, self._width)
        ahead = now + _AHEAD
        first = self._connection.scalar(
            sa.select(sa.func.min(marks.start_time)).where(
                marks.level == self._level,
                sa.or_(marks.start_time < end_of_complete, marks.start_time >= ahead),
            )
        )
        if first is None:
            return None
        bound = end_of_complete if first < end_of_complete else _LATEST
        start = _floor(first, self._width)
        if self._level == 0 and start < self._raw_since:
            # The spans may be gone, so their rollups stay as they are.
            return self._consumed(start, self._raw_since, 0)
        start, end = self._window(start, bound)
        return self._consumed(start, end, self._computed(start, end))

    def _window(self, start: datetime, bound: datetime) -> tuple[datetime, datetime]:
        """The buckets from the start that are computed together.

        An hour or a day by itself; as many marked minutes of an hour as do not have too many spans.
        Where nothing is to be found for long, the window extends to what comes next.
        """
        end = min(_after(start, self._width), bound)
        if self._level == 0:
            end = self._end_of_marked(start, min(_after(_floor(start, _HOUR), _HOUR), bound))
        following = self._next_source(start)
        if following is not None and following < end:
            return start, end
        marks = _MARKS.c
        marked_until = self._connection.scalar(
            sa.select(sa.func.max(marks.end_time)).where(
                marks.level == self._level, marks.start_time < end
            )
        )
        reach = _after(_floor(marked_until, self._width), self._width)
        if following is not None:
            reach = min(reach, _floor(following, self._width))
        return start, min(max(end, reach), bound)

    def _end_of_marked(self, start: datetime, bound: datetime) -> datetime:
        """The end of the marked minutes that follow each other, and have not too many spans."""
        marks = _MARKS.c
        minute = sa.literal(_MINUTE, sa.Interval()), sa.literal(_ORIGIN, sa.DateTime(True))
        ranges = sa.select(
            sa.func.date_bin(minute[0], marks.start_time, minute[1]).label("first"),
            sa.func.date_bin(minute[0], marks.end_time, minute[1]).label("last"),
        ).where(marks.level == 0, marks.start_time < bound, marks.end_time >= start)
        end = _after(start, _MINUTE)
        for first, last in self._connection.execute(ranges.distinct().order_by("first", "last")):
            if first > end:
                break
            end = max(end, _after(last, _MINUTE))
        end = min(end, bound)
        many = self._connection.scalar(
            sa.text(
                f"SELECT start_time FROM {self._schema}.trace_spans"  # noqa: S608 - quoted
                " WHERE start_time >= :start AND start_time < :end"
                f" ORDER BY start_time OFFSET {_SPANS_AT_A_TIME} LIMIT 1"
            ),
            {"start": start, "end": end},
        )
        return end if many is None else max(_floor(many, _MINUTE), _after(start, _MINUTE))

    def _next_source(self, start: datetime) -> datetime | None:
        """The first time, from the start on, of anything that these buckets are computed from."""
        table, column = (
            ("trace_spans", "start_time"),
            ("span_rollups_minute", "bucket"),
            ("span_rollups_hour", "bucket"),
        )[self._level]
        found: list[datetime] = []
        raw = "trace_spans", "start_time"
        expired = max(self._minute_since, self._hour_since) if self._level else _EARLIEST
        for name, time in {(table, column), *([raw] if start < expired else [])}:
            moment = self._connection.scalar(
                sa.text(
                    f"SELECT min({time}) FROM {self._schema}.{name} WHERE {time} >= :start"  # noqa: S608 - quoted
                ),
                {"start": start},
            )
            if moment is not None:
                found.append(moment)
        return min(found, default=None)

    def _computed(self, start: datetime, end: datetime) -> int:
        """Compute the buckets in [start, end); return the number of rows that were changed."""
        if self._level == 0:
            return self._minutes(start, end)
        if end - start > self._width:  # nothing is there to compute it from
            return self._cleared(start, end)
        return self._hour(start, end) if self._level == 1 else self._day(start, end)

    def _minutes(self, start: datetime, end: datetime) -> int:
        deleted = self._delete(KINDS_OF_ROLLUPS[0].table("minute"), start, end)
        return deleted + self._run(statements.minutes(self._schema), start, end)

    def _hour(self, start: datetime, end: datetime) -> int:
        spans, latency, *personal = KINDS_OF_ROLLUPS
        has_raw = start >= self._raw_since
        changed = 0
        if start < self._minute_since and has_raw:
            self._minutes(start, end)  # they have expired
        if start >= self._minute_since or has_raw:
            for kind in (spans, latency):
                changed += self._delete(kind.table("hour"), start, end)
            changed += self._run(
                statements.merged(spans, self._schema, "minute", "hour"), start, end
            )
            self._run(statements.latency_of_hours(self._schema), start, end)
        if has_raw:
            for kind in personal:
                changed += self._delete(kind.table("hour"), start, end)
            changed += self._connection.execute(
                sa.text(statements.personal(self._schema)), {"start": start, "end": end}
            ).scalar_one()
        return changed

    def _day(self, start: datetime, end: datetime) -> int:
        changed = 0
        if start < self._hour_since:
            if start < self._raw_since:
                return 0  # neither hours nor spans are left of it
            for hour in range(24):
                self._hour(start + hour * _HOUR, start + (hour + 1) * _HOUR)
        for kind in KINDS_OF_ROLLUPS:
            changed += self._delete(kind.table("day"), start, end)
            changed += self._run(statements.merged(kind, self._schema, "hour", "day"), start, end)
        return changed

    def _cleared(self, start: datetime, end: datetime) -> int:
        # Where neither finer rollups nor spans are left, what there is stays.
        finer = self._minute_since if self._level == 1 else self._hour_since
        changed = 0
        for kind in KINDS_OF_ROLLUPS:
            of_spans = self._level == 1 and kind not in _OF_MINUTES
            since = self._raw_since if of_spans else min(self._raw_since, finer)
            changed += self._delete(kind.table(self._unit), max(start, since), end)
        return changed

    def _delete(self, table: str, start: datetime, end: datetime) -> int:
        deleting = f"DELETE FROM {self._schema}.{table} WHERE bucket >= :start AND bucket < :end"  # noqa: S608 - quoted
        return self._run(deleting, start, end)

    def _run(self, statement: str, start: datetime, end: datetime) -> int:
        counting = f"WITH changed AS ({statement} RETURNING 1) SELECT count(*) FROM changed"  # noqa: S608 - quoted
        return int(
            self._connection.execute(sa.text(counting), {"start": start, "end": end}).scalar_one()
        )

    def _consumed(self, start: datetime, end: datetime, changed: int) -> _Piece:
        """Take away the marks in [start, end), and mark what is coarser if rows have changed."""
        marks = _MARKS.c
        taken = self._connection.execute(
            sa.delete(_MARKS)
            .where(marks.level == self._level, marks.start_time < end, marks.end_time >= start)
            .returning(marks.start_time, marks.end_time)
        ).all()
        left = []
        if (first := min((mark.start_time for mark in taken), default=start)) < start:
            left.append((self._level, first, start - _MICROSECOND))
        if (last := max((mark.end_time for mark in taken), default=start)) >= end and end < _LATEST:
            left.append((self._level, end, last))
        if changed and self._level < 2:
            left.append((self._level + 1, start, end - _MICROSECOND))
        if left:
            names = ("level", "start_time", "end_time")
            rows = [dict(zip(names, mark, strict=True)) for mark in left]
            self._connection.execute(sa.insert(_MARKS), rows)
        buckets = (end - start) // self._width if changed else 0
        return _Piece(buckets, end)


def _floor(moment: datetime, width: timedelta) -> datetime:
    try:
        return _ORIGIN + (moment - _ORIGIN) // width * width
    except OverflowError:
        return _EARLIEST


def _after(moment: datetime, width: timedelta) -> datetime:
    return moment + width if _LATEST - moment > width else _LATEST
