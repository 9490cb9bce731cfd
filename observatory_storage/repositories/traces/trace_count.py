"""How many traces match: by their spans, which is less work than to find them in order."""

from __future__ import annotations

from typing import Final

from sqlalchemy import func, select

from observatory_storage.models import Trace, TraceSpan
from observatory_storage.repositories.reading.counting import Total
from observatory_storage.repositories.reading.reader import Repository
from observatory_storage.repositories.traces.filters import TraceFilters

__all__ = ["TraceCount"]

# So many of the matching spans say how many of them a trace has.
_SAMPLE: Final = 5_000


class TraceCount(Repository):
    """Counts the traces of which a span matches, and those without spans that match themselves."""

    def total(self, filters: TraceFilters, kind: Total) -> int:
        if not filters.parameters():
            return self._total(select(Trace.id), kind)
        return self._counted(filters) if kind == "exact" else self._estimated(filters)

    def _counted(self, filters: TraceFilters) -> int:
        conditions = filters.in_sql()
        traces = select(TraceSpan.trace_id).where(*conditions.all()).distinct()
        found = self._total(traces, "exact")
        if not conditions.need_a_span():
            found += self._total(select(Trace.id).where(conditions.bare()), "exact")
        return found

    def _estimated(self, filters: TraceFilters) -> int:
        """The matching spans that the planner expects, by how many of them a trace has.

        The planner itself knows nothing of how spans spread over traces: for the table as a whole
        autovacuum gathers no statistics.
        """
        conditions = filters.in_sql()
        spans = select(TraceSpan.trace_id).where(*conditions.all())
        sample = spans.limit(_SAMPLE).subquery()
        seen, traces = self._row(
            select(func.count(), func.count(sample.c.trace_id.distinct())).select_from(sample)
        )
        if seen < _SAMPLE:
            return int(traces)
        expected = self._total(spans, "estimated") * float(traces / seen)
        possible = self._total(select(Trace.id).where(*conditions.implied()), "estimated")
        return max(int(traces), min(round(expected), possible))
