"""Spans and their events: whole traces of them, single ones, and lists."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import BindParameter, ColumnElement, Select, bindparam, false, func, select
from sqlalchemy.orm import defer
from sqlalchemy.orm.attributes import set_committed_value

from observatory_storage import ids
from observatory_storage.errors import NotFound, ValidationError
from observatory_storage.models import Trace, TraceEvent, TraceSpan
from observatory_storage.repositories.reading import validation
from observatory_storage.repositories.reading.conditions import asked
from observatory_storage.repositories.reading.counting import Total
from observatory_storage.repositories.reading.pages import Keyset, Page
from observatory_storage.repositories.reading.reader import Repository
from observatory_storage.repositories.traces.filters import SpanFilters
from observatory_storage.repositories.traces.span_search import SpanSearch
from observatory_storage.repositories.tree import SpanTree

__all__ = ["SpanQueries", "events_of_trace", "spans_of_trace"]

_SPANS: Final = Keyset(
    "spans", (TraceSpan.start_time, TraceSpan.start_ns, TraceSpan.trace_id, TraceSpan.span_id)
)
_OLDEST_FIRST: Final = replace(_SPANS, descending=False)
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
        spans = self._entities(_IN_ORDER, _place(key, bounds))
        if with_events:
            _attach(spans, self._events(events_of_trace(key, bounds)))
        return spans

    def get_tree(self, trace_id: str | UUID, *, payload: bool = False) -> SpanTree:
        """The spans of a trace under their parents, with the critical path and self times.

        Two statements, however many spans there are.

        Args:
            payload: load the JSON columns too (attributes, links, resource and scope attributes,
                otlp). Without it, reading one of them raises.

        Raises:
            NotFound: there is no such trace.
            ValidationError: the id is empty or neither text nor a UUID.
        """
        key = ids.trace_uuid(trace_id)
        bounds = self._bounds(key)
        if bounds is None:
            raise NotFound(f"there is no trace {trace_id}")
        statement = _OF_TRACE if payload else _WITHOUT_PAYLOAD
        return SpanTree.of(self._entities(statement, _place(key, bounds)))

    def get_events(self, trace_id: str | UUID, span_id: str | None = None) -> list[TraceEvent]:
        """The events of a trace, or of its spans of one id, by span and position."""
        key = ids.trace_uuid(trace_id)
        span_key = None if span_id is None else ids.span_id(span_id)
        bounds = self._bounds(key)
        if bounds is None:
            return []
        conditions = events_of_trace(key, bounds)
        if span_key is not None:
            conditions.append(TraceEvent.span_id == span_key)
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
            _IN_ORDER.where(TraceSpan.span_id == span_key).limit(1),
            _place(key, bounds),
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
        total: Total | None = None,
    ) -> Page[TraceSpan]:
        """A page of the spans that match, newest first.

        Args:
            payload: load the JSON columns too (attributes, links, resource and scope attributes,
                otlp). Without it, reading one of them raises.
            total: "exact" or "estimated": say how many there are in all, by one more statement.

        Raises:
            ValidationError: a cursor is damaged or another query's.
        """
        filters = validation.filters(filters, SpanFilters)
        return self._span_page(filters, filters.limit, after, before, payload=payload, total=total)

    def search_text(
        self,
        text: str,
        filters: SpanFilters | None = None,
        *,
        after: str | None = None,
        before: str | None = None,
        payload: bool = False,
        total: Total | None = None,
    ) -> Page[TraceSpan]:
        """A page of the spans whose prompts and completions have the words, newest first.

        All the words stand in the span's own attributes, or all in one of its events': see
        `observatory_storage.llm.content` for which attributes, and how much of them. Where
        `build_partition_indexes` has been at a day, its index finds them; the spans of other days
        are read through, some ten microseconds each: bound the time.

        Args:
            text: as in a web search: all the words, ``"a phrase"``, ``or``, ``-not``, and
                ``begin*`` for words that begin so. Words are taken as written, without regard to
                case.
            filters: what else must be met, the time above all; without a text of their own.
            payload, total: as for `list_spans`.

        Raises:
            ValidationError: the text is blank or too long, or a cursor is another query's.
        """
        filters = validation.filters(filters, SpanFilters)
        if filters.text is not None:
            raise ValidationError("filters", filters.text, "must not have a text of their own")
        words = replace(filters, text=validation.required_text("text", text))
        return self._span_page(words, words.limit, after, before, payload=payload, total=total)

    def iterate_spans(
        self,
        filters: SpanFilters | None = None,
        batch_size: int = 1000,
        *,
        payload: bool = False,
        oldest_first: bool = False,
    ) -> Iterator[TraceSpan]:
        """All the spans that match, newest first, with one batch at a time in memory.

        The filters' ``limit`` does not apply. With a ``trace_id`` the spans are those of one
        moment, read through one cursor of the server: the transaction must stay open meanwhile.

        Args:
            payload: as for `list_spans`.
            oldest_first: the other way round.

        Raises:
            StorageError: the transaction has ended before the spans of the ``trace_id``.
        """
        filters = validation.filters(filters, SpanFilters)
        size = validation.limit(batch_size, "batch_size")
        keyset = _OLDEST_FIRST if oldest_first else _SPANS
        if filters.trace_id is not None:
            # No index has the spans of a trace in order: each page of a large one costs all of it.
            return self._stream_spans(filters, size, keyset, payload=payload)
        return self._walk(
            lambda after: self._span_page(
                filters, size, after, None, payload=payload, keyset=keyset
            )
        )

    def _stream_spans(
        self, filters: SpanFilters, batch_size: int, keyset: Keyset, *, payload: bool
    ) -> Iterator[TraceSpan]:
        spans = self._matching_spans(filters, payload=payload)
        in_order = keyset.in_order(spans, descending=keyset.descending)
        for batch in self._entity_batches(in_order, batch_size):
            yield from batch

    def _span_page(
        self,
        filters: SpanFilters,
        limit: int,
        after: str | None,
        before: str | None,
        *,
        payload: bool,
        total: Total | None = None,
        keyset: Keyset = _SPANS,
    ) -> Page[TraceSpan]:
        if filters.trace_id is None and filters.sought():
            search = SpanSearch(self._session, filters, () if payload else _SPAN_PAYLOAD)
            return search.page(keyset, limit, after, before, total)
        return self._page_of(
            keyset,
            self._matching_spans(filters, payload=payload),
            query=asked(filters),
            limit=limit,
            after=after,
            before=before,
            total=total,
        )

    def _matching_spans(self, filters: SpanFilters, *, payload: bool) -> Select[TraceSpan]:
        statement = select(TraceSpan).where(*filters.conditions())
        if filters.trace_id is not None:
            key = ids.trace_uuid(filters.trace_id)
            bounds = self._bounds(key)
            statement = statement.where(*spans_of_trace(key, bounds) if bounds else [false()])
        if not payload:
            statement = statement.options(*_SPAN_PAYLOAD)
        return statement

    def _bounds(self, key: UUID) -> tuple[datetime, datetime] | None:
        """When the trace's first and last span start; None where there is no such trace.

        As constants they let the planner leave out all other partitions.
        """
        rows = self._rows(_BOUNDS, {"trace_id": key})
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


def spans_of_trace(
    key: UUID | BindParameter[Any], bounds: tuple[Any, Any]
) -> list[ColumnElement[bool]]:
    """The conditions on the spans of a trace, of which the first and last start are known."""
    first, last = bounds
    return [TraceSpan.trace_id == key, TraceSpan.start_time >= first, TraceSpan.start_time <= last]


def events_of_trace(key: UUID, bounds: tuple[datetime, datetime]) -> list[ColumnElement[bool]]:
    """The conditions on the events of a trace; an event's partition is its span's."""
    start, (first, last) = TraceEvent.span_start_time, bounds
    return [TraceEvent.trace_id == key, start >= first, start <= last]


def _place(key: UUID, bounds: tuple[datetime, datetime]) -> dict[str, Any]:
    """The parameters of a statement on the spans of a trace."""
    return {"trace_id": key, "first": bounds[0], "last": bounds[1]}


# Asked again and again, and made once.
_BOUNDS: Final = select(
    Trace.start_time, func.coalesce(Trace.last_span_start, Trace.start_time)
).where(Trace.id == bindparam("trace_id"))
_OF_TRACE: Final = select(TraceSpan).where(
    *spans_of_trace(bindparam("trace_id"), (bindparam("first"), bindparam("last")))
)
_WITHOUT_PAYLOAD: Final = _OF_TRACE.options(*_SPAN_PAYLOAD)
_IN_ORDER: Final = _OF_TRACE.order_by(TraceSpan.start_time, TraceSpan.start_ns, TraceSpan.span_id)


def _attach(spans: Sequence[TraceSpan], events: Sequence[TraceEvent]) -> None:
    """Give each span its events, which come in order."""
    of_span: dict[Any, list[TraceEvent]] = {}
    for event in events:
        key = (event.span_id, event.span_start_time, event.span_start_ns)
        of_span.setdefault(key, []).append(event)
    for span in spans:
        key = (span.span_id, span.start_time, span.start_ns)
        set_committed_value(span, "events", of_span.get(key, []))
