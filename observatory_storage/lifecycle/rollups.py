"""Keeps rollups up to date: a step of maintenance that computes what has changed anew.

Whoever changes spans marks their times (`changed_spans`). A refresh takes marks away and computes
the minutes from the spans, in one transaction that sees both at one moment: what it does not see is
still marked afterwards. The hours of changed minutes are then marked in the same way, and the days
of changed hours. Each piece of work is such a transaction. Those of several processes wait for each
other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import sqlalchemy as sa

from observatory_storage.distribution import is_sharded, wait_for_commits
from observatory_storage.errors import ValidationError, translated
from observatory_storage.lifecycle.rollup_work import (
    EARLIEST_BUCKET,
    LATEST_BUCKET,
    MARKS,
    STATE,
    UNITS,
    Piece,
    RollupWork,
)
from observatory_storage.lifecycle.run import Run
from observatory_storage.lifecycle.short_locks import with_short_locks
from observatory_storage.schema_state import quoted_name
from observatory_storage.serialization import Result
from observatory_storage.storing.transaction import Source, retrying

__all__ = ["GRACE", "RefreshedRollups", "keep_rollups_before", "rebuild_rollups", "refresh_rollups"]

_ALMOST_AN_HOUR: Final = timedelta(hours=1, microseconds=-1)
GRACE: Final = timedelta(minutes=2)
"""How long after its end a minute is computed. Most spans that start in it have arrived by then."""


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
    for level, (unit, _) in enumerate(UNITS):
        place = EARLIEST_BUCKET
        while True:
            if run.deadline.is_over:
                return _refreshed(counts, is_complete=False)
            piece = partial(_refresh, run.source, level, run.now, run.now - grace, place)
            done = retrying(run.source.config, piece)
            if done is None:
                break
            place = done.end
            counts[level] += done.buckets
            if done.buckets:
                run.progress(f"refreshed {unit}s until {done.end.isoformat()}")
    return _refreshed(counts, is_complete=not _is_work_left(run.source, run.now - grace))


def _is_work_left(source: Source, complete: datetime) -> bool:
    """Whether something complete is marked: it was marked while the run was past its time."""
    of_level = [
        sa.and_(
            MARKS.c.level == level, MARKS.c.start_time < sa.func.date_trunc(unit, complete, "UTC")
        )
        for level, (unit, _) in enumerate(UNITS)
    ]
    with translated(), source.engine.connect() as connection:
        return bool(connection.scalar(sa.select(sa.exists().where(sa.or_(*of_level)))))


def _refreshed(counts: Sequence[int], *, is_complete: bool) -> RefreshedRollups:
    minutes, hours, days = counts
    return RefreshedRollups(minutes, hours, days, is_complete)


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
    first = start or EARLIEST_BUCKET
    last = LATEST_BUCKET if end is None else end - timedelta(microseconds=1)
    if last < first:
        if start is not None and end is not None and end < start:
            raise ValidationError("end", end, f"must not be before start ({start})")
        return RefreshedRollups()
    _begin(source)
    with translated(), source.engine.begin() as connection:
        mark = {"level": 0, "start_time": first, "end_time": last}
        connection.execute(sa.insert(MARKS), mark)
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
    state = connection.execute(sa.select(STATE)).one_or_none()
    if state is None:
        return True
    marks = MARKS.c
    since = state.raw_since or EARLIEST_BUCKET
    stale = sa.select(marks.id).where(
        marks.level < 2, marks.start_time < moment, marks.end_time >= since
    )
    if not even_if_stale and connection.scalar(sa.select(stale.exists())):
        return False
    # An hour of which a part may be gone cannot be computed from spans either.
    whole = sa.func.date_trunc("hour", sa.literal(moment) + _ALMOST_AN_HOUR, "UTC")
    connection.execute(
        sa.update(STATE).values(raw_since=sa.func.greatest(STATE.c.raw_since, whole))
    )
    return True


def _begin(source: Source) -> None:
    """Begin to keep rollups, while no transaction is writing spans.

    From then on writers mark what they change. The spans that are there are marked here.
    """
    with translated(), source.engine.connect() as connection:
        if connection.execute(sa.select(STATE.c.id)).first() is not None:
            return
    schema = quoted_name(source.schema)

    def begin(connection: sa.Connection) -> None:
        connection.execute(
            sa.text(f"LOCK TABLE ONLY {schema}.trace_spans IN SHARE ROW EXCLUSIVE MODE")
        )
        connection.execute(_locking(connection))
        if connection.execute(sa.select(STATE.c.id)).first() is not None:
            return
        connection.execute(sa.insert(STATE), {"id": 1})
        first, last = connection.execute(
            sa.text(f"SELECT min(start_time), max(start_time) FROM {schema}.trace_spans")  # noqa: S608 - quoted
        ).one()
        if first is not None:
            mark = {"level": 0, "start_time": first, "end_time": last}
            connection.execute(sa.insert(MARKS), mark)

    with_short_locks(source, begin)


def _locking(connection: sa.Connection) -> sa.TextClause:
    """Has pieces wait for each other. A LOCK comes before the snapshot of the transaction."""
    translation = connection.get_execution_options().get("schema_translate_map") or {}
    schema = quoted_name(translation.get(None) or "public")
    return sa.text(f"LOCK TABLE {schema}.rollup_state IN EXCLUSIVE MODE")


def _refresh(
    source: Source, level: int, now: datetime, complete: datetime, place: datetime
) -> Piece | None:
    """Do one piece of work of a level; None if there is none."""
    isolated = source.engine.execution_options(isolation_level="REPEATABLE READ")
    with translated(), isolated.begin() as connection:
        # The plans are simple and expensive: to compile them takes longer than it saves.
        connection.exec_driver_sql("SET LOCAL jit = off")
        # The groups of a piece fit into it; the default is so little that they go to disk.
        connection.exec_driver_sql("SET LOCAL work_mem = '64MB'")
        connection.execute(_locking(connection))
        work = RollupWork(connection, quoted_name(source.schema), level)
        if is_sharded(connection):
            # Otherwise marks would be taken away whose spans are not to be seen yet.
            wait_for_commits(connection)
        return work.piece(now, complete, place)
