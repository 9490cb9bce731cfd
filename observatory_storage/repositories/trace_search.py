"""Which traces match: by whichever way is the shorter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import ColumnElement, Select, and_, false, func, literal, or_, select, true

from observatory_storage.models import Trace, TraceSpan
from observatory_storage.repositories.base import Repository
from observatory_storage.repositories.span_filters import TraceFilters

__all__ = ["TraceSearch", "bare"]

# Up to so many spans that an index finds, their traces are looked up and sorted; beyond, walking
# the traces in order meets enough of them soon.
_FEW_SPANS: Final = 5_000


class TraceSearch(Repository):
    """Makes the statement that finds the traces, not yet in order."""

    def matching(self, filters: TraceFilters) -> Select[Trace]:
        """The traces that match, by whichever way is the shorter."""
        conditions = filters.conditions()
        if not conditions:
            return select(Trace)
        if filters.is_indexed() and self._are_few(conditions):
            # Materialized: the planner must not turn it into a search for each trace.
            found = select(TraceSpan.trace_id).where(*conditions).distinct().cte("found")
            found = found.prefix_with("MATERIALIZED")
            return select(Trace).where(Trace.id.in_(select(found.c.trace_id)))
        # Each trace in turn, newest first: look for one of its spans, in its partitions only.
        probe = (
            select(literal(1).label("found"))
            .select_from(TraceSpan)
            .where(
                TraceSpan.trace_id == Trace.id,
                TraceSpan.start_time >= Trace.start_time,
                TraceSpan.start_time <= Trace.last_span_start,
                *conditions,
            )
            .limit(1)
            .lateral("probe")
        )
        return (
            select(Trace)
            .outerjoin(probe, true())
            .where(or_(probe.c.found.is_not(None), bare(filters)), *filters.implied_conditions())
        )

    def _are_few(self, conditions: Sequence[ColumnElement[bool]]) -> bool:
        some = select(literal(1)).select_from(TraceSpan).where(*conditions).limit(_FEW_SPANS + 1)
        count = self._scalar(select(func.count()).select_from(some.subquery()))
        return bool(count <= _FEW_SPANS)


def bare(filters: TraceFilters) -> ColumnElement[bool]:
    """The condition on a trace without spans."""
    conditions = filters.bare_conditions()
    return false() if conditions is None else and_(*conditions)
