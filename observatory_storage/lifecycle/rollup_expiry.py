"""Deletes rollups that have been kept long enough, a little at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final, cast

import sqlalchemy as sa

from observatory_storage.commits import Change, Commit
from observatory_storage.errors import ValidationError, translated
from observatory_storage.lifecycle.rollup_statements import KINDS_OF_ROLLUPS
from observatory_storage.lifecycle.run import Run
from observatory_storage.models import Base, RollupState, SpanChange
from observatory_storage.serialization import Result
from observatory_storage.storing.transaction import Source, retrying
from observatory_storage.tables import SPANS
from observatory_storage.wording import counted

__all__ = ["DAYS_KEPT", "HOURS_KEPT", "MINUTES_KEPT", "ExpiredRollups", "expire_rollups"]

MINUTES_KEPT: Final = timedelta(days=8)
HOURS_KEPT: Final = timedelta(days=210)
DAYS_KEPT: Final = timedelta(days=1095)

_MIDNIGHT: Final = datetime(2000, 1, 1, tzinfo=UTC)
_DAY: Final = timedelta(days=1)
_ROWS_AT_A_TIME: Final = 10_000
_STATE: Final = cast(sa.Table, RollupState.__table__)
_MARKS: Final = cast(sa.Table, SpanChange.__table__)


@dataclass(frozen=True, slots=True)
class ExpiredRollups(Result):
    """The result of `expire_rollups`: the number of deleted rows by unit."""

    minutes: int = 0
    hours: int = 0
    days: int = 0
    is_complete: bool = True


def expire_rollups(
    run: Run,
    *,
    minute: timedelta | None = MINUTES_KEPT,
    hour: timedelta | None = HOURS_KEPT,
    day: timedelta | None = DAYS_KEPT,
) -> ExpiredRollups:
    """Delete rollups that are older, by whole days, in transactions of 10,000 rows.

    Minutes stay while their hours are to be computed from them, and so do hours: refresh first.

    Args:
        run: the run of maintenance. Ages are counted from its time.
        minute: how long rollups of minutes are kept; None for ever.
        hour: how long rollups of hours are kept.
        day: how long rollups of days are kept.

    Raises:
        StorageError: the database could not be used. What was deleted before is gone.
        ValidationError: an age is negative.
    """
    counts = [0, 0, 0]
    for level, (unit, age) in enumerate((("minute", minute), ("hour", hour), ("day", day))):
        if age is not None and age < timedelta(0):
            raise ValidationError(unit, str(age), "must not be negative")
        if age is not None:
            before = _advance(run.source, level, _midnight(run.now - age))
            for kind in KINDS_OF_ROLLUPS:
                table = Base.metadata.tables.get(kind.table(unit))
                while before is not None and table is not None:
                    if run.deadline.is_over:
                        return _expired(counts, is_complete=False)
                    some = retrying(run.source.config, partial(_delete, run.source, table, before))
                    counts[level] += some
                    if some < _ROWS_AT_A_TIME:
                        break
        if counts[level]:
            run.progress(f"deleted {counted(counts[level], 'rollup')} of {unit}s")
    return _expired(counts, is_complete=True)


def _expired(counts: Sequence[int], *, is_complete: bool) -> ExpiredRollups:
    minutes, hours, days = counts
    return ExpiredRollups(minutes, hours, days, is_complete)


def _midnight(moment: datetime) -> datetime:
    return _MIDNIGHT + (moment - _MIDNIGHT) // _DAY * _DAY


def _advance(source: Source, level: int, before: datetime) -> datetime | None:
    """Note from when on rollups are complete; return it, or None if there are no rollups."""
    with (
        translated(),
        source.commits.telling() as telling,
        source.engine.begin() as connection,
    ):
        state = connection.execute(sa.select(_STATE).with_for_update()).one_or_none()
        if state is None:
            return None
        column = ("minute_since", "hour_since", "day_since")[level]
        first = connection.scalar(
            sa.select(sa.func.min(_MARKS.c.start_time)).where(
                _MARKS.c.level <= level + 1, _MARKS.c.start_time >= (state.raw_since or _MIDNIGHT)
            )
        )
        if first is not None:
            before = min(before, _midnight(first))
        known: datetime | None = getattr(state, column)
        if known is None or known < before:
            connection.execute(sa.update(_STATE).values({column: before}))
            # Where the spans have been dropped, results have come from these rollups.
            telling.announce(connection, Commit(changes=[Change(SPANS.name)]))
            return before
        return known


def _delete(source: Source, table: Any, before: datetime) -> int:
    key = sa.tuple_(table.c.bucket, table.c.position)
    some = (
        sa.select(table.c.bucket, table.c.position)
        .where(table.c.bucket < before)
        .order_by(table.c.bucket, table.c.position)
        .limit(_ROWS_AT_A_TIME)
    )
    deleting = sa.delete(table).where(key.in_(some)).returning(sa.literal(1))
    with translated(), source.engine.begin() as connection:
        return len(connection.execute(deleting).all())
