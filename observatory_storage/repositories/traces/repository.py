"""Traces: lists, lookups, totals; their spans, sessions and erasure are beside it."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from typing import Final
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Select,
    bindparam,
    func,
    select,
    true,
    tuple_,
)

from observatory_storage import ids
from observatory_storage.models import Trace, TraceSpan
from observatory_storage.repositories.reading import validation
from observatory_storage.repositories.reading.counting import Total
from observatory_storage.repositories.reading.pages import Page
from observatory_storage.repositories.reading.results import Operation
from observatory_storage.repositories.traces.erasure import ErasureQueries
from observatory_storage.repositories.traces.filters import TraceFilters
from observatory_storage.repositories.traces.sessions import SessionQueries
from observatory_storage.repositories.traces.statistics import StatisticsQueries
from observatory_storage.repositories.traces.trace_search import TraceSearch

__all__ = ["TraceRepository"]

_BY_ID: Final = select(Trace).where(Trace.id == bindparam("id"))


class TraceRepository(ErasureQueries, SessionQueries, StatisticsQueries):
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
        return self._entity(_BY_ID, {"id": key}, f"trace {id}")

    def get_by_trace_id(self, trace_id: str | UUID) -> Trace:
        """The trace that a program knows by this id.

        Raises:
            NotFound: there is none.
            ValidationError: the id is empty or neither text nor a UUID.
        """
        key = ids.trace_uuid(trace_id)
        return self._entity(_BY_ID, {"id": key}, f"trace {trace_id}")

    def list(
        self,
        filters: TraceFilters | None = None,
        *,
        after: str | None = None,
        before: str | None = None,
        total: Total | None = None,
    ) -> Page[Trace]:
        """A page of the traces that match, newest first.

        A forward walk never misses a trace; one whose start moved earlier meanwhile may come
        twice.

        Args:
            total: "exact" or "estimated": say how many there are in all, by more statements.

        Raises:
            ValidationError: a cursor is damaged or another query's.
        """
        filters = validation.filters(filters, TraceFilters)
        return self._page(filters, filters.limit, after, before, total)

    def iterate(
        self, filters: TraceFilters | None = None, batch_size: int = 1000
    ) -> Iterator[Trace]:
        """All the traces that match, newest first, with one batch at a time in memory.

        The filters' ``limit`` does not apply.
        """
        filters = validation.filters(filters, TraceFilters)
        size = validation.limit(batch_size, "batch_size")
        return self._walk(lambda after: self._page(filters, size, after, None, None))

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
        service = validation.required_text("service_name", service_name)

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

    def _page(
        self,
        filters: TraceFilters,
        limit: int,
        after: str | None,
        before: str | None,
        total: Total | None,
    ) -> Page[Trace]:
        search = TraceSearch(self._session, filters)
        return search.page(limit, after, before, total)
