"""Spans that have what is sought, found place by place, as long as they are few.

Where a partition has closed, its indexes find them at once; an open one is read through. What is
found are keys, so that the next statement, which takes all conditions into account, starts from so
many rows as there are: the planner cannot know how rare a value is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    DateTime,
    Select,
    SmallInteger,
    Text,
    Uuid,
    and_,
    column,
    func,
    literal,
    select,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import TypeEngine

from observatory_storage.models import TraceEvent, TraceSpan
from observatory_storage.repositories.reading.conditions import within
from observatory_storage.repositories.reading.reader import Repository
from observatory_storage.repositories.traces.filters import SpanFilters, TraceFilters
from observatory_storage.repositories.traces.json_conditions import Sought, anywhere

__all__ = ["Candidates", "Finder"]

# Beyond so many, walking the spans in order meets enough of them soon.
_MOST: Final = 5_000


class _Key(NamedTuple):
    trace_id: UUID
    span_id: str
    start_time: datetime
    start_ns: int


_TYPES: Final[Sequence[TypeEngine[Any]]] = (
    Uuid(),
    Text(),
    DateTime(timezone=True),
    SmallInteger(),
)
_OF_SPAN: Final = [getattr(TraceSpan, name) for name in _Key._fields]
_OF_EVENT: Final = [
    TraceEvent.trace_id,
    TraceEvent.span_id,
    TraceEvent.span_start_time.label("start_time"),
    TraceEvent.span_start_ns.label("start_ns"),
]


@dataclass(frozen=True, slots=True)
class Candidates:
    """Spans of which all meet one thing that is sought, and any that match are among them."""

    keys: Sequence[_Key]
    rest: Sequence[Sought]

    def restrict(self, statement: Select[Any], filters: SpanFilters | TraceFilters) -> Select[Any]:
        """The statement on `TraceSpan`, its rows being those candidates that match.

        Args:
            statement: has no condition of what is sought.
        """
        names = [column(name, kind) for name, kind in zip(_Key._fields, _TYPES, strict=True)]
        arrays: list[ColumnElement[Any]] = [
            literal(list(values), ARRAY(kind))
            for values, kind in zip(zip(*self.keys, strict=True), _TYPES, strict=True)
        ]
        wanted = func.unnest(*arrays).table_valued(*names).render_derived("wanted")
        starts = [key.start_time for key in self.keys]
        return statement.join(
            wanted, and_(*(mine == wanted.c[mine.key] for mine in _OF_SPAN))
        ).where(
            *within(TraceSpan.start_time, min(starts), None),
            TraceSpan.start_time <= max(starts),
            *(anywhere(sought, filters.start_time, filters.end_time) for sought in self.rest),
        )


class Finder(Repository):
    """Looks for candidates."""

    def few(
        self,
        filters: SpanFilters | TraceFilters,
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> Candidates | None:
        """The candidates that start in [start, end); None where they are too many to be listed."""
        sought = filters.in_sql().sought()
        for at, first in enumerate(sought):
            found = self._rows(_having(first, filters, start, end).limit(_MOST + 1))
            if len(found) <= _MOST:
                keys = {_Key(*row) for row in found}
                return Candidates(list(keys), [*sought[:at], *sought[at + 1 :]])
        return None


def _having(
    sought: Sought,
    filters: SpanFilters | TraceFilters,
    start: datetime | None,
    end: datetime | None,
) -> Any:
    """The keys of the spans that have what is sought, or whose events have it.

    Materialized: planned for all rows and not for the first few, which would be found by reading
    through a partition if the value were as frequent as the planner takes it to be.
    """
    spans = (
        select(*_OF_SPAN)
        .where(
            *within(TraceSpan.start_time, start, end),
            *filters.in_sql().plain(),
            sought.in_span(),
        )
        .cte("spans")
        .prefix_with("MATERIALIZED")
    )
    bounds = [
        *within(TraceEvent.span_start_time, start, end),
        *within(TraceEvent.span_start_time, filters.start_time, filters.end_time),
    ]
    events = (
        select(*_OF_EVENT)
        .where(*bounds, sought.in_event())
        .cte("events")
        .prefix_with("MATERIALIZED")
    )
    return union_all(select(spans), select(events))
