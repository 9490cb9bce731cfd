"""Spans and their events: whole traces of them, single ones, and lists."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, false, func, select
from sqlalchemy.orm import defer
from sqlalchemy.orm.attributes import set_committed_value

from observatory_storage import ids
from observatory_storage.errors import NotFound
from observatory_storage.models import Trace, TraceEvent, TraceSpan
from observatory_storage.repositories import arguments
from observatory_storage.repositories.base import Repository
from observatory_storage.repositories.conditions import asked
from observatory_storage.repositories.paging import Keyset, Page
from observatory_storage.repositories.span_filters import SpanFilters

__all__ = ["SpanQueries", "events_of_trace", "spans_of_trace"]

_SPANS: Final = Keyset(
    "spans", (TraceSpan.start_time, TraceSpan.start_ns, TraceSpan.trace_id, TraceSpan.span_id)
)
_SPAN_PAYLOAD: Final = tuple(
    defer(column, raiseload=True)
    for column in (
        TraceSpan.attributes,
        TraceSpan.links,
        TraceSpan.resource_attributes,
        TraceSpan.scope_attributes,
        TraceSpan.otlp,
    )
)


class SpanQueries(Repository):
    """The questions of `TraceRepository` that are about spans and events."""

    def get_spans(self, trace_id: str | UUID, *, with_events: bool = False) -> list[TraceSpan]:
        """All spans of a trace, whole, by start; empty where there is no such trace.

        Two statements, three with events, however many spans there are. For traces too large for
        memory there is `iterate_spans`.

        Args:
            with_events: fill each span's ``events`` too.
        """
        key = ids.trace_uuid(trace_id)
        bounds = self._bounds(key)
        if bounds is None:
            return []
        spans = self._entities(
            select(TraceSpan)
            .where(*spans_of_trace(key, bounds))
            .order_by(TraceSpan.start_time, TraceSpan.start_ns, TraceSpan.span_id)
        )
        if with_events:
            _attach(spans, self._events(events_of_trace(key, bounds)))
        return spans

    def get_events(self, trace_id: str | UUID, span_id: str | None = None) -> list[TraceEvent]:
        """The events of a trace, or of its spans of one id, by span and position."""
        key = ids.trace_uuid(trace_id)
        bounds = self._bounds(key)
        if bounds is None:
            return []
        conditions = events_of_trace(key, bounds)
        if span_id is not None:
            conditions.append(TraceEvent.span_id == ids.span_id(span_id))
        return self._events(conditions)

    def get_span(
        self, trace_id: str | UUID, span_id: str, *, with_events: bool = False
    ) -> TraceSpan:
        """A span, whole. Where spans of a trace share an id, the one that started first.

        Args:
            with_events: fill the span's ``events`` too.

        Raises:
            NotFound: there is none.
            ValidationError: an id is not one.
        """
        key, span_key = ids.trace_uuid(trace_id), ids.span_id(span_id)
        bounds = self._bounds(key)
        if bounds is None:
            raise NotFound(f"there is no trace {trace_id}")
        span = self._entity(
            select(TraceSpan)
            .where(*spans_of_trace(key, bounds), TraceSpan.span_id == span_key)
            .order_by(TraceSpan.start_time, TraceSpan.start_ns),
            f"span {span_id} in trace {trace_id}",
        )
        if with_events:
            start = (span.start_time, span.start_time)
            _attach(
                [span],
                self._events([*events_of_trace(key, start), TraceEvent.span_id == span_key]),
            )
        return span

    def list_spans(
        self,
        filters: SpanFilters | None = None,
        *,
        after: str | None = None,
        before: str | None = None,
        payload: bool = False,
    ) -> Page[TraceSpan]:
        """A page of the spans that match, newest first.

        Args:
            payload: load the JSON columns too (attributes, links, resource and scope attributes,
                otlp). Without it, reading one of them raises.

        Raises:
            ValidationError: a cursor is damaged or another query's.
        """
        filters = arguments.filters(filters, SpanFilters)
        return self._span_page(filters, filters.limit, after, before, payload=payload)

    def iterate_spans(
        self,
        filters: SpanFilters | None = None,
        batch_size: int = 1000,
        *,
        payload: bool = False,
    ) -> Iterator[TraceSpan]:
        """All the spans that match, newest first, with one batch at a time in memory.

        The filters' ``limit`` does not apply.
        """
        filters = arguments.filters(filters, SpanFilters)
        size = arguments.limit(batch_size, "batch_size")
        return self._walk(
            lambda after: self._span_page(filters, size, after, None, payload=payload)
        )

    def _span_page(
        self,
        filters: SpanFilters,
        limit: int,
        after: str | None,
        before: str | None,
        *,
        payload: bool,
    ) -> Page[TraceSpan]:
        statement = select(TraceSpan).where(*filters.conditions())
        if filters.trace_id is not None:
            key = ids.trace_uuid(filters.trace_id)
            bounds = self._bounds(key)
            statement = statement.where(*spans_of_trace(key, bounds) if bounds else [false()])
        if not payload:
            statement = statement.options(*_SPAN_PAYLOAD)
        return _SPANS.page(
            statement,
            self._entities,
            query=asked(filters),
            limit=limit,
            after=after,
            before=before,
        )

    def _bounds(self, key: UUID, *, lock: bool = False) -> tuple[datetime, datetime] | None:
        """When the trace's first and last span start; None where there is no such trace.

        As constants they let the planner leave out all other partitions.
        """
        last = func.coalesce(Trace.last_span_start, Trace.start_time)
        statement = select(Trace.start_time, last).where(Trace.id == key)
        rows = self._rows(statement.with_for_update() if lock else statement)
        return (rows[0][0], rows[0][1]) if rows else None

    def _events(self, conditions: Sequence[ColumnElement[bool]]) -> list[TraceEvent]:
        return self._entities(
            select(TraceEvent)
            .where(*conditions)
            .order_by(
                TraceEvent.span_start_time,
                TraceEvent.span_start_ns,
                TraceEvent.span_id,
                TraceEvent.position,
            )
        )


def spans_of_trace(key: UUID, bounds: tuple[datetime, datetime]) -> list[ColumnElement[bool]]:
    """The conditions on the spans of a trace, of which the first and last start are known."""
    first, last = bounds
    return [TraceSpan.trace_id == key, TraceSpan.start_time >= first, TraceSpan.start_time <= last]


def events_of_trace(key: UUID, bounds: tuple[datetime, datetime]) -> list[ColumnElement[bool]]:
    """The conditions on the events of a trace; an event's partition is its span's."""
    start, (first, last) = TraceEvent.span_start_time, bounds
    return [TraceEvent.trace_id == key, start >= first, start <= last]


def _attach(spans: Sequence[TraceSpan], events: Sequence[TraceEvent]) -> None:
    """Give each span its events, which come in order."""
    of_span: dict[Any, list[TraceEvent]] = {}
    for event in events:
        key = (event.span_id, event.span_start_time, event.span_start_ns)
        of_span.setdefault(key, []).append(event)
    for span in spans:
        key = (span.span_id, span.start_time, span.start_ns)
        set_committed_value(span, "events", of_span.get(key, []))
