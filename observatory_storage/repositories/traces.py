"""Traces, their spans and events: lists, lookups, totals, and the erasure of one."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from typing import Final
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Delete,
    Double,
    Select,
    cast,
    delete,
    func,
    literal,
    or_,
    select,
    true,
    tuple_,
)
from sqlalchemy.dialects.postgresql import ARRAY

from observatory_storage import ids
from observatory_storage.errors import NotFound
from observatory_storage.models import Trace, TraceEvent, TraceSpan
from observatory_storage.repositories import arguments
from observatory_storage.repositories.conditions import asked
from observatory_storage.repositories.paging import Keyset, Page
from observatory_storage.repositories.results import DeletedTrace, Operation, TraceStats
from observatory_storage.repositories.span_filters import TraceFilters
from observatory_storage.repositories.spans import SpanQueries, events_of_trace, spans_of_trace
from observatory_storage.repositories.trace_search import TraceSearch, bare

__all__ = ["TraceRepository"]

_TRACES: Final = Keyset("traces", (Trace.start_time, Trace.id))
_QUANTILES: Final = (0.5, 0.9, 0.95, 0.99)


class TraceRepository(SpanQueries):
    """Questions about traces.

    Ids of traces are hex text, UUIDs, or whatever other text a program uses: see `ids.trace_uuid`.
    """

    def get(self, id: str | UUID) -> Trace:  # noqa: A002 - the column's name
        """The trace of an id.

        Raises:
            NotFound: there is none.
            ValidationError: the id is empty or neither text nor a UUID.
        """
        key = ids.trace_uuid(id, "id")
        return self._entity(select(Trace).where(Trace.id == key), f"trace {id}")

    def get_by_trace_id(self, trace_id: str | UUID) -> Trace:
        """The trace that a program knows by this id.

        Raises:
            NotFound: there is none.
            ValidationError: the id is empty or neither text nor a UUID.
        """
        key = ids.trace_uuid(trace_id)
        return self._entity(select(Trace).where(Trace.id == key), f"trace {trace_id}")

    def list(
        self,
        filters: TraceFilters | None = None,
        *,
        after: str | None = None,
        before: str | None = None,
    ) -> Page[Trace]:
        """A page of the traces that match, newest first.

        A forward walk never misses a trace; one whose start moved earlier meanwhile may come
        twice.

        Raises:
            ValidationError: a cursor is damaged or another query's.
        """
        filters = arguments.filters(filters, TraceFilters)
        return self._page(filters, filters.limit, after, before)

    def iterate(
        self, filters: TraceFilters | None = None, batch_size: int = 1000
    ) -> Iterator[Trace]:
        """All the traces that match, newest first, with one batch at a time in memory.

        The filters' ``limit`` does not apply.
        """
        filters = arguments.filters(filters, TraceFilters)
        size = arguments.limit(batch_size, "batch_size")
        return self._walk(lambda after: self._page(filters, size, after, None))

    def services(self) -> builtins.list[str]:
        """The names of the services that have spans, in order.

        The index is skipped through from name to name: the cost goes with the number of services,
        not of spans.
        """
        least = select(func.min(TraceSpan.service_name).label("name")).cte(
            "services", recursive=True
        )
        following = (
            select(func.min(TraceSpan.service_name))
            .where(TraceSpan.service_name > least.c.name)
            .scalar_subquery()
        )
        names = least.union_all(select(following).where(least.c.name.is_not(None)))
        return self._scalars(select(names.c.name).where(names.c.name.is_not(None)))

    def operations(self, service_name: str) -> builtins.list[Operation]:
        """The names of a service's spans with the kinds that they have, in order.

        Raises:
            ValidationError: the service's name is not text.
        """
        service = arguments.required_text("service_name", service_name)

        def first_beyond(*conditions: ColumnElement[bool]) -> Select[str, str]:
            return (
                select(TraceSpan.name, TraceSpan.kind)
                .where(TraceSpan.service_name == service, *conditions)
                .order_by(TraceSpan.name, TraceSpan.kind)
                .limit(1)
            )

        found = first_beyond().cte("operations", recursive=True)
        beyond = tuple_(TraceSpan.name, TraceSpan.kind) > tuple_(found.c.name, found.c.kind)
        following = first_beyond(beyond, TraceSpan.name >= found.c.name).lateral()
        pairs = found.union_all(
            select(following.c.name, following.c.kind).select_from(found.join(following, true()))
        )
        return [Operation(*row) for row in self._rows(select(pairs.c.name, pairs.c.kind))]

    def get_stats(self, filters: TraceFilters | None = None) -> TraceStats:
        """Totals over the traces that match; the filters' ``limit`` does not apply."""
        filters = arguments.filters(filters, TraceFilters)
        statement = select(
            func.count(),
            func.count().filter(Trace.status == "error"),
            cast(func.coalesce(func.sum(Trace.span_count), 0), Trace.span_count.type),
            cast(func.coalesce(func.sum(Trace.error_count), 0), Trace.error_count.type),
            cast(func.sum(Trace.total_tokens), Trace.total_tokens.type),
            func.sum(Trace.total_cost_usd),
            func.min(Trace.duration_us),
            func.max(Trace.duration_us),
            cast(func.avg(Trace.duration_us), Double),
            func.percentile_cont(literal(_QUANTILES, ARRAY(Double))).within_group(
                cast(Trace.duration_us, Double)
            ),
            func.min(Trace.start_time),
            func.max(Trace.start_time),
        )
        conditions = filters.conditions()
        if conditions:
            of_spans = Trace.id.in_(select(TraceSpan.trace_id).where(*conditions))
            statement = statement.where(or_(of_spans, bare(filters)))
        *totals, quantiles, first, last = self._row(statement)
        percentiles = quantiles or [None] * len(_QUANTILES)
        return TraceStats(*[*totals, *percentiles, first, last])

    def delete(self, trace_id: str | UUID) -> DeletedTrace:
        """Delete a trace with its spans and their events. Log records of the trace stay.

        The trace's row is locked first, so that no writer adds a span meanwhile.

        Raises:
            NotFound: there is no such trace.
        """
        key = ids.trace_uuid(trace_id)
        bounds = self._bounds(key, lock=True)
        if bounds is None:
            raise NotFound(f"there is no trace {trace_id}")
        events = self._deleted(delete(TraceEvent).where(*events_of_trace(key, bounds)))
        spans = self._deleted(delete(TraceSpan).where(*spans_of_trace(key, bounds)))
        self._deleted(delete(Trace).where(Trace.id == key))
        return DeletedTrace(spans=spans, events=events)

    def _page(
        self, filters: TraceFilters, limit: int, after: str | None, before: str | None
    ) -> Page[Trace]:
        return _TRACES.page(
            TraceSearch(self._session).matching(filters),
            self._entities,
            query=asked(filters),
            limit=limit,
            after=after,
            before=before,
        )

    def _deleted(self, statement: Delete) -> int:
        """Run the statement; the number of rows that it deleted."""
        gone = statement.returning(literal(1)).cte("gone")
        return int(self._scalar(select(func.count()).select_from(gone)))
