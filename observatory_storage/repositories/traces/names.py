"""The names of services and operations, read from an index by skipping from name to name.

The cost goes with the number of names, not of spans.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, Select, func, select, true, tuple_

from observatory_storage.models import TraceSpan
from observatory_storage.repositories.reading.reader import Reader
from observatory_storage.repositories.traces.results import Operation

__all__ = ["operation_names", "service_names"]


def service_names(reader: Reader) -> list[str]:
    """The names of the services that have spans, in order."""
    least = select(func.min(TraceSpan.service_name).label("name")).cte("services", recursive=True)
    following = (
        select(func.min(TraceSpan.service_name))
        .where(TraceSpan.service_name > least.c.name)
        .scalar_subquery()
    )
    names = least.union_all(select(following).where(least.c.name.is_not(None)))
    return [row.name for row in reader.rows(select(names).where(names.c.name.is_not(None)))]


def operation_names(reader: Reader, service_name: str) -> list[Operation]:
    """The names of a service's spans with the kinds that they have, in order."""

    def first_beyond(*conditions: ColumnElement[bool]) -> Select[str, str]:
        return (
            select(TraceSpan.name, TraceSpan.kind)
            .where(TraceSpan.service_name == service_name, *conditions)
            .order_by(TraceSpan.name, TraceSpan.kind)
            .limit(1)
        )

    found = first_beyond().cte("operations", recursive=True)
    beyond = tuple_(TraceSpan.name, TraceSpan.kind) > tuple_(found.c.name, found.c.kind)
    following = first_beyond(beyond, TraceSpan.name >= found.c.name).lateral()
    pairs = found.union_all(
        select(following.c.name, following.c.kind).select_from(found.join(following, true()))
    )
    statement = select(pairs.c.name, pairs.c.kind)
    return [Operation(name=row.name, kind=row.kind) for row in reader.rows(statement)]
