"""Queries for spans and events: those of one trace, single spans, and lists."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final, Unpack
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    bindparam,
    false,
    func,
    literal,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session, aliased, defer
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.orm.interfaces import ORMOption

from observatory_storage import ids
from observatory_storage.errors import NotFound, ValidationError
from observatory_storage.models import Trace, TraceEvent, TraceSpan
from observatory_storage.repositories.reading import pages, validation
from observatory_storage.repositories.reading.filter_fields import with_former
from observatory_storage.repositories.reading.operators import OneOf
from observatory_storage.repositories.reading.reader import Reader, StatementSearch
from observatory_storage.repositories.reading.validation import BATCH_SIZE, TraceId
from observatory_storage.repositories.traces.filters import (
    SpanFilters,
    SpanKeywords,
    SpanSearchKeywords,
)
from observatory_storage.repositories.traces.framed_content import FramedContent
from observatory_storage.repositories.traces.matching_days import search_by_days
from observatory_storage.repositories.traces.ordered_search import (
    NEWEST_FIRST,
    Order,
    is_ordered,
    matching_spans,
    span_order,
)
from observatory_storage.repositories.traces.span_search import SpanSearch
from observatory_storage.repositories.traces.trace_bounds import (
    Bounds,
    events_of_trace,
    located,
    spans_of_trace,
    trace_name,
)
from observatory_storage.repositories.traces.tree import SpanTree, tree_of_rows
from observatory_storage.tables import PAYLOAD_COLUMNS

__all__ = ["SpanQueries"]


# The tree of a trace with more spans is made of rows without entities.
_MOST_ENTITIES: Final = 2_000

_BY_START: Final = pages.Keyset(
    "spans", (TraceSpan.start_time, TraceSpan.start_ns, TraceSpan.trace_id, TraceSpan.span_id)
)
_PAYLOAD: Final = (
    *("attributes", "links", "resource_attributes", "scope_attributes", "otlp"),
    *PAYLOAD_COLUMNS,
)


def _without_payload(span: type[TraceSpan]) -> tuple[ORMOption, ...]:
    return tuple(defer(getattr(span, name), raiseload=True) for name in _PAYLOAD)


_WITHOUT_PAYLOAD: Final = _without_payload(TraceSpan)
_BOUNDS_OF_TRACES: Final = select(
    func.min(Trace.start_time), func.max(func.coalesce(Trace.last_span_start, Trace.start_time))
)


# The alias has no schema, which would be written at each column of the statement.
_SPAN: Final = aliased(TraceSpan, name="span")
_OF_TRACE: Final = select(_SPAN).where(
    *spans_of_trace(bindparam("trace_id"), (bindparam("first"), bindparam("last")), _SPAN)
)
_OF_TRACE_WITHOUT_PAYLOAD: Final = _OF_TRACE.options(*_without_payload(_SPAN))
_OF_TRACE_IN_ORDER: Final = _OF_TRACE.order_by(_SPAN.start_time, _SPAN.start_ns, _SPAN.span_id)
# Whether the trace still begins and ends within the bounds that a statement was given.
_IS_WITHIN: Final = (
    select(
        and_(
            Trace.start_time >= bindparam("first"),
            func.coalesce(Trace.last_span_start, Trace.start_time) <= bindparam("last"),
        )
    )
    .where(Trace.id == bindparam("trace_id"))
    .scalar_subquery()
    .label("is_within")
)
_KNOWN_IN_ORDER: Final = _OF_TRACE_IN_ORDER.add_columns(_IS_WITHIN)
_EVENTS_IN_ORDER: Final = select(TraceEvent).order_by(
    TraceEvent.span_start_time,
    TraceEvent.span_start_ns,
    TraceEvent.span_id,
    TraceEvent.position,
)


class SpanQueries:
    """The methods of `TraceRepository` for spans and events."""

    def __init__(self, session: Session) -> None:
        self._reader = Reader(session)
        self._latest: Trace | None = None  # the trace that was got by its id most recently

    def get_spans(self, trace_id: TraceId, *, with_events: bool = False) -> list[TraceSpan]:
        """Get all spans of a trace with all columns, ordered by start.

        It runs two statements, or three with events, however many spans there are; one less if you
        pass the `Trace`, or if this repository got the trace just before; and one more each for
        spans and events with values in payload frames. For traces too large for memory use
        `iterate_spans`.

        Args:
            with_events: fill each span's ``events`` too.

        Raises:
            NotFound: there is no such trace.
        """
        key, bounds, spans = self._spans(trace_id)
        if with_events:
            _attach(spans, self._events(events_of_trace(key, bounds)))
        return spans

    def get_tree(self, trace_id: TraceId, *, payload: bool = False) -> SpanTree:
        """Get the spans of a trace as a tree, with the critical path and self times.

        It runs two statements, however many spans there are.

        Args:
            payload: load the JSON columns too (attributes, links, resource and scope attributes,
                otlp). Without it, reading one of them raises.

        Raises:
            NotFound: there is no such trace.
        """
        statement = _OF_TRACE if payload else _OF_TRACE_WITHOUT_PAYLOAD
        key, bounds = self._located(trace_id)
        parameters = _parameters(key, bounds)
        if payload or bounds.span_count <= _MOST_ENTITIES:
            return SpanTree.of(self._reader.entities(statement, parameters))
        return tree_of_rows(self._reader.compact_rows(statement, BATCH_SIZE, parameters))

    def get_events(self, trace_id: TraceId, span_id: str | None = None) -> list[TraceEvent]:
        """Get the events of a trace, or of its spans with one id, ordered by span and position.

        Raises:
            NotFound: there is no such trace.
        """
        span_key = None if span_id is None else ids.span_id(span_id)
        conditions = events_of_trace(*self._located(trace_id))
        if span_key is not None:
            conditions.append(TraceEvent.span_id == span_key)
        return self._events(conditions)

    def get_span(self, trace_id: TraceId, span_id: str, *, with_events: bool = False) -> TraceSpan:
        """Get a span with all columns. If spans share the id, get the one that started first.

        Args:
            with_events: fill the span's ``events`` too.

        Raises:
            NotFound: there is no such span.
        """
        span_key = ids.span_id(span_id)
        key, bounds = self._located(trace_id)
        statement = _OF_TRACE_IN_ORDER.where(_SPAN.span_id == span_key).limit(1)
        what = f"span {span_id} in trace {trace_name(trace_id)}"
        span = self._reader.entity(statement, _parameters(key, bounds), what)
        if with_events:
            own = events_of_trace(key, Bounds(span.start_time, span.start_time))
            _attach([span], self._events([*own, TraceEvent.span_id == span_key]))
        return span

    def list_spans(
        self,
        filters: SpanFilters | None = None,
        *,
        after: str | None = None,
        before: str | None = None,
        payload: bool = False,
        total: pages.Total | None = None,
        order_by: Order = NEWEST_FIRST,
        **fields: Unpack[SpanKeywords],
    ) -> pages.Page[TraceSpan]:
        """List a page of the matching spans, newest first.

        Args:
            payload: load the JSON columns too (attributes, links, resource and scope attributes,
                otlp). Without it, reading one of them raises.
            total: "exact" or "estimated" also counts the spans of all pages, by one more statement.
            order_by: ``"-duration_us"``, ``"-total_tokens"`` or ``"-total_cost_usd"``, highest
                first; without the minus, lowest first. Spans without a value come last. No index
                serves these orders, so the matching spans of the time range are sorted for each
                page. ``start_time`` and ``end_time`` are required, unless one ``trace_id`` is
                given.
        """
        wanted = SpanFilters.of(filters, fields)
        search: pages.Search[TraceSpan]
        if is_ordered(order_by, wanted, is_bounded=isinstance(wanted.trace_id, UUID)):
            search = self._ordered_search(wanted, order_by, payload=payload)
        else:
            search = self._span_search(wanted, payload=payload)
        return pages.read_page(search, wanted.limit, after, before, total)

    def search_text(
        self,
        text: str,
        filters: SpanFilters | None = None,
        *,
        after: str | None = None,
        before: str | None = None,
        payload: bool = False,
        total: pages.Total | None = None,
        **fields: Unpack[SpanSearchKeywords],
    ) -> pages.Page[TraceSpan]:
        """Search prompts and completions, and list a page of the matching spans, newest first.

        A span matches if all words are in its own attributes, or all in one of its events, or all
        in one log record that names it. The guide "LLM columns of a span" lists what is searched,
        and how much of it. In partitions for which `build_partition_indexes` has run, an index
        finds the spans. In other partitions the query reads all spans, which takes some ten
        microseconds a span: pass a time range.

        Args:
            text: the words, in web search syntax: all words, ``"a phrase"``, ``or``, ``-not``, and
                ``begin*`` for all words with this prefix. Case is ignored and words are not
                stemmed.
            filters: further conditions, above all a time range; their ``text`` must not be set.
            payload, total: as for `list_spans`.
        """
        wanted = SpanFilters.of(filters, fields)
        if wanted.text is not None:
            raise ValidationError("filters", wanted.text, "must not have a text of their own")
        wanted = replace(wanted, text=validation.required_text("text", text))
        return self.list_spans(wanted, after=after, before=before, payload=payload, total=total)

    def iterate_spans(
        self,
        filters: SpanFilters | None = None,
        batch_size: int = BATCH_SIZE,
        *,
        payload: bool = False,
        oldest_first: bool = False,
        **fields: Unpack[SpanKeywords],
    ) -> Iterator[TraceSpan]:
        """Iterate over all matching spans, newest first, with one batch at a time in memory.

        The filters' ``limit`` does not apply. With a ``trace_id``, the spans are read from one
        snapshot by a server-side cursor: keep the transaction open until the last span is read.

        Args:
            payload: as for `list_spans`.
            oldest_first: iterate in the reverse order.

        Raises:
            StorageError: the transaction ended before the spans of the ``trace_id`` were read.
        """
        wanted = SpanFilters.of(filters, fields)
        size = validation.limit("batch_size", batch_size)
        if not isinstance(wanted.trace_id, UUID):
            search = self._span_search(wanted, payload=payload, oldest_first=oldest_first)
            return pages.read_all(search, size)
        return self._stream_spans(wanted, size, payload=payload, oldest_first=oldest_first)

    def _span_search(
        self, filters: SpanFilters, *, payload: bool, oldest_first: bool = False
    ) -> pages.Search[TraceSpan]:
        keyset = replace(_BY_START, descending=not oldest_first)
        if not isinstance(filters.trace_id, UUID) and filters.searches_json():
            options = () if payload else _WITHOUT_PAYLOAD
            return SpanSearch(self._reader, keyset, filters, options)
        statement = self._matching(filters, payload=payload)
        if isinstance(filters.trace_id, (UUID, OneOf)):  # the traces' starts bound the statement
            return StatementSearch(self._reader, keyset, statement, filters.query())
        return search_by_days(self._reader, keyset, statement, filters)

    def _ordered_search(
        self, filters: SpanFilters, order: Order, *, payload: bool
    ) -> pages.Search[TraceSpan]:
        if filters.trace_id is None:
            statement = matching_spans(self._reader, filters)
            if not payload:
                statement = statement.options(*_WITHOUT_PAYLOAD)
        else:
            statement = self._matching(filters, payload=payload)
        return StatementSearch(self._reader, span_order(order), statement, filters.query())

    def _stream_spans(
        self, filters: SpanFilters, batch_size: int, *, payload: bool, oldest_first: bool
    ) -> Iterator[TraceSpan]:
        # No index contains the spans of a trace in order, so each page would read the whole trace.
        statement = self._matching(filters, payload=payload)
        in_order = _BY_START.in_order(statement, descending=not oldest_first)
        for batch in self._reader.entity_batches(in_order, batch_size):
            yield from batch

    def _matching(self, filters: SpanFilters, *, payload: bool) -> Select[TraceSpan]:
        conditions = filters.in_sql()
        of_traces: list[ColumnElement[bool]] = []
        if isinstance(filters.trace_id, UUID):
            key, bounds = located(self._reader, filters.trace_id)
            of_traces = spans_of_trace(key, bounds) if bounds else [false()]
        elif isinstance(filters.trace_id, OneOf):
            wanted = with_former(filters.trace_id).values
            keys = func.any(literal(list(wanted), ARRAY(Trace.id.type)))
            bounds = self._reader.row(_BOUNDS_OF_TRACES.where(Trace.id == keys))
            of_traces = [TraceSpan.start_time.between(*bounds)]
        framed = FramedContent(self._reader.session, filters)
        if framed.is_any:
            conditions = framed.resolved(
                conditions, framed.of_spans(*conditions.plain(), *of_traces)
            )
        statement = select(TraceSpan).where(*conditions.all(), *of_traces)
        return statement if payload else statement.options(*_WITHOUT_PAYLOAD)

    def _located(self, trace_id: TraceId) -> tuple[UUID, Bounds]:
        """The key of a trace, and the first and the last start of its spans."""
        key, bounds = located(self._reader, validation.trace_key("trace_id", trace_id))
        if bounds is None:
            raise NotFound(f"there is no trace {trace_name(trace_id)}")
        return key, bounds

    def _spans(self, trace_id: TraceId) -> tuple[UUID, Bounds, list[TraceSpan]]:
        """The key of a trace, the first and the last start of its spans, and the spans."""
        known = self._known(trace_id)
        if known is not None:
            # Others may have written spans since the trace was read.
            found = self._reader.entities_with(_KNOWN_IN_ORDER, _parameters(*known))
            if found and found[0][1]:
                return *known, [span for span, _ in found]
        key, bounds = self._located(trace_id)
        return key, bounds, self._reader.entities(_OF_TRACE_IN_ORDER, _parameters(key, bounds))

    def _known(self, trace_id: TraceId) -> tuple[UUID, Bounds] | None:
        """The key and the bounds of a trace that has been read; None if they are not known."""
        key = validation.trace_key("trace_id", trace_id)
        trace = trace_id if isinstance(trace_id, Trace) else self._latest
        read = {} if trace is None else vars(trace)
        first, last = read.get("start_time"), read.get("last_span_start")
        return (key, Bounds(first, last)) if first and last and read.get("id") == key else None

    def _events(self, conditions: Sequence[ColumnElement[bool]]) -> list[TraceEvent]:
        return self._reader.entities(_EVENTS_IN_ORDER.where(*conditions))


def _parameters(key: UUID, bounds: Bounds) -> dict[str, Any]:
    return {"trace_id": key, "first": bounds.first, "last": bounds.last}


def _attach(spans: Sequence[TraceSpan], events: Sequence[TraceEvent]) -> None:
    """Attach the events, which are in order, to their spans."""
    of_span: dict[Any, list[TraceEvent]] = {}
    for event in events:
        key = (event.span_id, event.span_start_time, event.span_start_ns)
        of_span.setdefault(key, []).append(event)
    for span in spans:
        key = (span.span_id, span.start_time, span.start_ns)
        set_committed_value(span, "events", of_span.get(key, []))
