"""The names of services, from rollups where they are up to date, and from an index of spans."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import func, select

from observatory_storage.models import (
    LatencyRollupDay,
    LatencyRollupHour,
    RollupState,
    SpanRollupMinute,
    TraceSpan,
)
from observatory_storage.repositories.reading.reader import Reader
from observatory_storage.repositories.reading.rollup_pieces import (
    Pieces,
    Span,
    Unit,
    pieces_of,
    within_any,
)
from observatory_storage.repositories.reading.time_buckets import WholeRange

__all__ = ["service_names"]

_ROLLUPS: Final[dict[Unit, Any]] = {
    "minute": SpanRollupMinute,
    "hour": LatencyRollupHour,
    "day": LatencyRollupDay,
}
_DAY: Final = timedelta(days=1)


def service_names(reader: Reader) -> list[str]:
    """The services that have spans, in alphabetical order.

    Without rollups, each partition is searched. With them, only those of the times that they do not
    answer.
    """
    pieces = pieces_of(reader, None, None, WholeRange(), ("minute", "hour", "day"))
    if pieces is None:
        return [row.name for row in reader.rows(_names_of_spans())]
    found = {row.name for row in reader.rows(_names_in_rollups(pieces))}
    if days := _whole_days(pieces.raw):
        found.update(row.name for row in reader.rows(_names_of_spans(days)))
    return sorted(found)


def _names_of_spans(ranges: list[Span] | None = None) -> sa.Select[Any]:
    """Skips through the index from name to name; the cost goes with the number of names."""
    within = [] if ranges is None else [within_any(TraceSpan.start_time, ranges)]
    least = select(func.min(TraceSpan.service_name).label("name")).where(*within)
    names = least.cte("names", recursive=True)
    following = (
        select(func.min(TraceSpan.service_name))
        .where(TraceSpan.service_name > names.c.name, *within)
        .scalar_subquery()
    )
    names = names.union_all(select(following).where(names.c.name.is_not(None)))
    return select(names).where(names.c.name.is_not(None))


def _names_in_rollups(pieces: Pieces) -> Any:
    # Rollups stay when their spans are dropped.
    earliest = sa.cast("-infinity", TraceSpan.start_time.type)
    since = func.coalesce(select(RollupState.raw_since).scalar_subquery(), earliest)
    parts = []
    for unit, ranges in pieces.rolled.items():
        model = _ROLLUPS[unit]
        rows = select(model.service_name.label("name")).where(
            within_any(model.bucket, ranges), model.bucket >= since
        )
        if unit != "minute":
            rows = rows.where(model.service_name.is_not(None), model.name.is_(None))
        parts.append(rows)
    return sa.union(*parts)


def _whole_days(ranges: list[Span]) -> list[Span]:
    """The days that the ranges touch: whole partitions need no look at the starts of spans."""
    found: list[Span] = []
    for start, end in ranges:
        first = start.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        last = end if datetime.max.replace(tzinfo=UTC) - end < _DAY else _midnight_after(end)
        if found and first <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], last)
        else:
            found.append((first, last))
    return found


def _midnight_after(moment: datetime) -> datetime:
    midnight = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight if midnight == moment else midnight + _DAY
