"""Queries for the spans and events of one trace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, and_, bindparam, func, select
from sqlalchemy.orm import Session, aliased, defer
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.orm.interfaces import ORMOption

from observatory_storage import ids
from observatory_storage.arrow import ResultList, shape_of_model
from observatory_storage.errors import NotFound
from observatory_storage.models import Trace, TraceEvent, TraceSpan
from observatory_storage.repositories.reading import validation
from observatory_storage.repositories.reading.cached_results import CACHE
from observatory_storage.repositories.reading.reader import Reader
from observatory_storage.repositories.reading.validation import BATCH_SIZE, TraceId
from observatory_storage.repositories.traces.cached_trace import CachedTrace, read_cached
from observatory_storage.repositories.traces.trace_bounds import (
    Bounds,
    events_of_trace,
    located,
    spans_of_trace,
    trace_name,
)
from observatory_storage.repositories.traces.tree import SpanTree, tree_of_rows
from observatory_storage.tables import PAYLOAD_COLUMNS

__all__ = ["PAYLOAD", "SpanQueries", "without_payload"]

# The tree of a trace with more spans is made of rows without entities.
_MOST_ENTITIES: Final = 2_000

PAYLOAD: Final = (
    *("attributes", "links", "resource_attributes", "scope_attributes", "otlp"),
    *PAYLOAD_COLUMNS,
)

_LEFT_OUT: Final = frozenset(PAYLOAD)
_SPANS_SHAPE: Final = shape_of_model(TraceSpan)
_EVENTS_SHAPE: Final = shape_of_model(TraceEvent)


def without_payload(span: type[TraceSpan]) -> tuple[ORMOption, ...]:
    """The options of a statement that leave out the large columns of spans."""
    return tuple(defer(getattr(span, name), raiseload=True) for name in PAYLOAD)


# The alias has no schema, which would be written at each column of the statement.
_SPAN: Final = aliased(TraceSpan, name="span")
_OF_TRACE: Final = select(_SPAN).where(
    *spans_of_trace(bindparam("trace_id"), (bindparam("first"), bindparam("last")), _SPAN)
)
_OF_TRACE_WITHOUT_PAYLOAD: Final = _OF_TRACE.options(*without_payload(_SPAN))
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
    """The methods of `TraceRepository` for the spans and events of one trace."""

    def __init__(self, session: Session) -> None:
        self._reader = Reader(session)
        self._latest: Trace | None = None  # the trace that was got by its id most recently

    def get_spans(self, trace_id: TraceId, *, with_events: bool = False) -> ResultList[TraceSpan]:
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
        cached = self._cached(trace_id)
        if cached is not None:
            spans = cached.spans()
            if with_events:
                _attach(spans, cached.events())
            return ResultList(spans, _SPANS_SHAPE)
        key, bounds, spans = self._spans(trace_id)
        if with_events:
            _attach(spans, self._events(events_of_trace(key, bounds)))
        return ResultList(spans, _SPANS_SHAPE)

    def get_tree(self, trace_id: TraceId, *, payload: bool = False) -> SpanTree:
        """Get the spans of a trace as a tree, with the critical path and self times.

        It runs two statements, however many spans there are.

        Args:
            payload: load the JSON columns too (attributes, links, resource and scope attributes,
                otlp). Without it, reading one of them raises.

        Raises:
            NotFound: there is no such trace.
        """
        cached = self._cached(trace_id)
        if cached is not None:
            return SpanTree.of(cached.spans(frozenset() if payload else _LEFT_OUT))
        statement = _OF_TRACE if payload else _OF_TRACE_WITHOUT_PAYLOAD
        key, bounds = self._located(trace_id)
        parameters = _parameters(key, bounds)
        if payload or bounds.span_count <= _MOST_ENTITIES:
            return SpanTree.of(self._reader.entities(statement, parameters))
        return tree_of_rows(self._reader.compact_rows(statement, BATCH_SIZE, parameters))

    def get_events(self, trace_id: TraceId, span_id: str | None = None) -> ResultList[TraceEvent]:
        """Get the events of a trace, or of its spans with one id, ordered by span and position.

        Raises:
            NotFound: there is no such trace.
        """
        span_key = None if span_id is None else ids.span_id(span_id)
        cached = self._cached(trace_id)
        if cached is not None:
            events = cached.events()
            of_span = [one for one in events if span_key is None or one.span_id == span_key]
            return ResultList(of_span, _EVENTS_SHAPE)
        conditions = events_of_trace(*self._located(trace_id))
        if span_key is not None:
            conditions.append(TraceEvent.span_id == span_key)
        return ResultList(self._events(conditions), _EVENTS_SHAPE)

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

    def _cached(self, trace_id: TraceId) -> CachedTrace | None:
        """The spans and events of a trace, if they are read through the cache."""
        if not self._reader.session.info.get(CACHE):
            return None
        key, known = validation.trace_key("trace_id", trace_id), self._known(trace_id)
        return read_cached(self._reader, key, known[1] if known else None)

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
