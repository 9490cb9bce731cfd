"""What cached values depend on: parts of the tables, each with a generation in Redis.

The tables are taken in three groups: spans (traces, spans, events), metrics and logs. A value
depends on a group as a whole, or on days of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

from observatory_storage.commits import Change, Commit
from observatory_storage.tables import (
    DATA_POINTS,
    EVENTS,
    LOG_FRAMES,
    LOGS,
    METRICS,
    PAYLOAD_FRAMES,
    SPANS,
    TABLES,
    TRACES,
)

__all__ = ["Dependency", "scopes_of"]

_GROUPS: Final = {
    **dict.fromkeys((TRACES.name, SPANS.name, EVENTS.name, PAYLOAD_FRAMES.name), "spans"),
    **dict.fromkeys((METRICS.name, DATA_POINTS.name), "metrics"),
    **dict.fromkeys((LOGS.name, LOG_FRAMES.name), "logs"),
}
# Rows of these have no times that a value may be bound to.
_WITHOUT_DAYS: Final = frozenset((TRACES.name, METRICS.name))
_MOST_DAYS: Final = 62
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Dependency:
    """What a value depends on.

    Attributes:
        group: a group of tables.
        days: the days that it depends on; None for all rows of the group.
    """

    group: str
    days: tuple[date, ...] | None = None

    @classmethod
    def on_range(cls, group: str, start: datetime | None, end: datetime | None) -> Dependency:
        """The dependency on the rows of [start, end)."""
        if start is None or end is None or end - start > _MOST_DAYS * _DAY:
            return cls(group)
        return cls(group, _days(start, max(start, end - timedelta.resolution)))

    def scopes(self) -> list[str]:
        """The generations that the value depends on."""
        if self.days is None:
            return [f"{self.group}:any"]
        return [f"{self.group}:all", *(f"{self.group}:{day}" for day in self.days)]


def scopes_of(commit: Commit, noted: Iterable[tuple[datetime, datetime]]) -> set[str]:
    """The generations that end with a commit.

    Args:
        commit: what is committed.
        noted: ranges of time in which spans have changed.
    """
    found: set[str] = set()
    changes = [*commit.changes, *(Change(SPANS.name, *range_) for range_ in noted)]
    times: dict[str, list[datetime]] = {}
    for row in commit.rows:
        position = TABLES[row.table].partition_position
        if position is None:
            found.add(f"{_GROUPS[row.table]}:any")
        elif row.table != SPANS.name or row.events is not None:
            # What has changed of spans is noted, but not what has changed of their events.
            times.setdefault(row.table, []).append(row.values[position])
    for table, each in times.items():
        found.add(f"{_GROUPS[table]}:any")
        first_and_last = _days_of([min(each), max(each)])
        all_days = first_and_last if len(first_and_last) == 1 else _days_of(each)
        found |= _scopes_of_days(_GROUPS[table], all_days)
    for change in changes:
        if change.table not in _GROUPS:
            continue
        group = _GROUPS[change.table]
        found.add(f"{group}:any")
        if change.table not in _WITHOUT_DAYS:
            first, last = change.first, change.last
            days: Collection[date] = ()
            if first is not None and last is not None and last - first < _MOST_DAYS * _DAY:
                days = _days(first, last)
            found |= _scopes_of_days(group, days)
    return found


def _scopes_of_days(group: str, days: Collection[date]) -> set[str]:
    """The generations of these days; that of all days if there are none, or too many."""
    if 0 < len(days) <= _MOST_DAYS + 1:
        return {f"{group}:{day}" for day in days}
    return {f"{group}:all"}


def _days_of(times: Iterable[datetime]) -> set[date]:
    return {time.astimezone(UTC).date() for time in times}


def _days(first: datetime, last: datetime) -> tuple[date, ...]:
    """The days, in UTC, from one moment to another."""
    day, end = first.astimezone(UTC).date(), last.astimezone(UTC).date()
    found = [day]
    while day < end:
        day += _DAY
        found.append(day)
    return tuple(found)
