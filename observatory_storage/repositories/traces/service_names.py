"""Lists the services, and the operations of a service: skips through an index from name to name.

The cost of a list goes with the number of names, not of spans. But the statement is planned for
each partition of the spans. If there are many, the names of the days that have rollups are read
from these, and only the other days from spans.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, func, literal, select, true, tuple_

from observatory_storage.models import LatencyRollupDay, SpanRollupDay, TraceSpan
from observatory_storage.repositories.reading.partition_slices import cuts_of, whole_partitions
from observatory_storage.repositories.reading.reader import Reader
from observatory_storage.repositories.reading.span_days import (
    Range,
    changed_days,
    within_ranges,
)
from observatory_storage.repositories.traces.results import Operation

__all__ = ["operations_of", "service_names"]

_SERVICE: Final = LatencyRollupDay.service_name


def service_names(reader: Reader) -> list[str]:
    """The names of the services that have spans, in alphabetical order."""
    changed = _changed_days(reader)
    if changed is None:
        return list(_services_of_spans(reader))
    names: set[str] = set()
    if changed:
        names.update(_services_of_spans(reader, _of_spans(reader, changed)))
    # The rollups of all spans of a service have no name.
    rolled = (_SERVICE.is_not(None), LatencyRollupDay.name.is_(None))
    all_names = _services(_SERVICE, *rolled).subquery("rolled")
    has_day = (
        select(true())
        .where(all_names.c.name == _SERVICE, *rolled)
        .where(~within_ranges(LatencyRollupDay.bucket, changed))
        .limit(1)
        .lateral("days")
    )
    names.update(row.name for row in reader.rows(select(all_names).join(has_day, true())))
    return sorted(names)


def operations_of(reader: Reader, service_name: str) -> list[Operation]:
    """The span names of a service, each with its kinds, in alphabetical order."""
    changed = _changed_days(reader)
    if changed is None:
        return [Operation(*row) for row in _operations_of_spans(reader, service_name)]
    pairs: set[tuple[str, str]] = set()
    if changed:
        in_changed = _of_spans(reader, changed)
        pairs.update(
            (row.name, row.kind) for row in _operations_of_spans(reader, service_name, in_changed)
        )
    day = SpanRollupDay
    all_pairs = _operations(day, service_name, day.kind.is_not(None)).subquery("rolled")
    has_day = (
        select(true())
        .where(
            day.service_name == service_name,
            day.name == all_pairs.c.name,
            day.kind == all_pairs.c.kind,
            ~within_ranges(day.bucket, changed),
        )
        .limit(1)
        .lateral("days")
    )
    pairs.update(
        (row.name, row.kind) for row in reader.rows(select(all_pairs).join(has_day, true()))
    )
    return [Operation(*pair) for pair in sorted(pairs)]


def _changed_days(reader: Reader) -> Sequence[Range] | None:
    """The days that are read from spans; None for all."""
    if cuts_of(reader, TraceSpan, None, None, descending=False).is_one:
        return None
    return changed_days(reader)


def _of_spans(reader: Reader, days: Sequence[Range]) -> ColumnElement[bool]:
    # No index has the names and the time. In whole partitions no span of a name is skipped.
    return within_ranges(TraceSpan.start_time, whole_partitions(reader, TraceSpan, days))


def _services_of_spans(reader: Reader, *conditions: ColumnElement[bool]) -> Iterator[str]:
    column = TraceSpan.service_name
    if not reader.is_sharded:
        yield from (row.name for row in reader.rows(_services(column, *conditions)))
        return
    # A recursive query cannot go through the shards: each name takes a statement.
    least = select(func.min(column)).where(*conditions)
    name = reader.scalar(least)
    while name is not None:
        yield name
        name = reader.scalar(least.where(column > name))


def _operations_of_spans(
    reader: Reader, service_name: str, *conditions: ColumnElement[bool]
) -> Iterator[Any]:
    if not reader.is_sharded:
        yield from reader.rows(_operations(TraceSpan, service_name, *conditions))
        return
    columns = (TraceSpan.name, TraceSpan.kind)
    own = select(*columns).where(TraceSpan.service_name == service_name, *conditions)
    first = own.order_by(*columns).limit(1)
    rows = reader.rows(first)
    while rows:
        yield rows[0]
        beyond = tuple_(*columns) > tuple_(literal(rows[0].name), literal(rows[0].kind))
        rows = reader.rows(first.where(beyond, TraceSpan.name >= rows[0].name))


def _services(column: Any, *conditions: ColumnElement[bool]) -> Select[Any]:
    least = select(func.min(column).label("name")).where(*conditions)
    names = least.cte("names", recursive=True)
    following = select(func.min(column)).where(column > names.c.name, *conditions)
    names = names.union_all(select(following.scalar_subquery()).where(names.c.name.is_not(None)))
    return select(names).where(names.c.name.is_not(None))


def _operations(row: Any, service_name: str, *conditions: ColumnElement[bool]) -> Select[Any]:
    columns = (row.name, row.kind)

    def first_beyond(*beyond: ColumnElement[bool]) -> Select[str, str]:
        own = row.service_name == service_name
        found = select(*columns).where(own, *conditions, *beyond)
        return found.order_by(*columns).limit(1)

    found = first_beyond().cte("operations", recursive=True)
    beyond = tuple_(*columns) > tuple_(found.c.name, found.c.kind)
    following = first_beyond(beyond, row.name >= found.c.name).lateral()
    pairs = found.union_all(
        select(following.c.name, following.c.kind).select_from(found.join(following, true()))
    )
    return select(*pairs.c)
