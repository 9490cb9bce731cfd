"""Queries for spans of any traces: lists, searches by text, and iteration."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final, Unpack
from uuid import UUID

from sqlalchemy import ColumnElement, Select, false, func, literal, select
from sqlalchemy.dialects.postgresql import ARRAY

from observatory_storage.arrow import shape_of_model
from observatory_storage.errors import ValidationError
from observatory_storage.models import Trace, TraceSpan
from observatory_storage.read_only_guard import follows
from observatory_storage.repositories.reading import pages, validation
from observatory_storage.repositories.reading.filter_fields import with_former
from observatory_storage.repositories.reading.operators import OneOf
from observatory_storage.repositories.reading.reader import Reader, StatementSearch
from observatory_storage.repositories.reading.result_streams import ResultStream, stream_of
from observatory_storage.repositories.reading.validation import BATCH_SIZE
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
from observatory_storage.repositories.traces.span_tail import poll_spans
from observatory_storage.repositories.traces.spans import PAYLOAD, without_payload
from observatory_storage.repositories.traces.trace_bounds import located, spans_of_trace

__all__ = ["SpanListQueries"]

_BY_START: Final = pages.Keyset(
    "spans", (TraceSpan.start_time, TraceSpan.start_ns, TraceSpan.trace_id, TraceSpan.span_id)
)
_WITHOUT_PAYLOAD: Final = without_payload(TraceSpan)
_SHAPES: Final = {
    True: shape_of_model(TraceSpan),
    False: shape_of_model(TraceSpan, PAYLOAD),
}
_BOUNDS_OF_TRACES: Final = select(
    func.min(Trace.start_time), func.max(func.coalesce(Trace.last_span_start, Trace.start_time))
)


class SpanListQueries:
    """The methods of `TraceRepository` for lists of spans."""

    _reader: Reader

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
            search = self._span_search(self._reader, wanted, payload=payload)
        shape = _SHAPES[bool(payload)]
        return pages.read_page(search, wanted.limit, after, before, total, shape=shape)

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
    ) -> ResultStream[TraceSpan]:
        """Iterate over all matching spans, newest first, with one batch at a time in memory.

        The filters' ``limit`` does not apply. `ResultStream.to_arrow` converts the spans to Arrow,
        much faster than they are iterated over. With a ``trace_id``, the spans are read from one
        snapshot by a server-side cursor: keep the transaction open until the last span is read.

        Args:
            payload: as for `list_spans`.
            oldest_first: iterate in the reverse order.

        Example:
            >>> spans = uow.traces.iterate_spans(start_time=start, end_time=end)
            >>> frame = polars.DataFrame(spans)

        Raises:
            StorageError: the transaction ended before the spans of the ``trace_id`` were read.
        """
        wanted = SpanFilters.of(filters, fields)
        size = validation.limit("batch_size", batch_size)
        options = {"payload": payload, "oldest_first": oldest_first}
        if isinstance(wanted.trace_id, UUID):
            return ResultStream(
                self._reader,
                _SHAPES[bool(payload)],
                lambda size: self._stream_spans(wanted, size, **options),
                size,
            )
        return stream_of(
            self._reader,
            _SHAPES[bool(payload)],
            lambda r: self._span_search(r, wanted, **options),
            size,
        )

    @follows
    def tail_spans(
        self,
        cursor: str | None = None,
        filters: SpanFilters | None = None,
        *,
        payload: bool = False,
        **fields: Unpack[SpanKeywords],
    ) -> pages.Page[TraceSpan]:
        """Poll for spans: return those that arrived since the poll that returned the cursor.

        Without a cursor, it returns the newest spans, the oldest of them first. The page's ``next``
        is always set: pass it to the next poll, and run each poll in a new unit of work. Spans are
        returned in the order in which they arrived, whatever their starts are, and none is skipped.
        A span is returned once all transactions that began to write before its own have ended. It
        may be returned again if it is changed within some minutes: when it ends, or when its usage
        is settled. `StoragePool.tail` polls again and again.

        Args:
            filters: selects the spans. Their ``limit`` is the maximum number of spans in one poll.
            payload: load the JSON columns too.

        Raises:
            ValidationError: the cursor is damaged, or belongs to another query or another server.
        """
        wanted = SpanFilters.of(filters, fields)
        page = poll_spans(self._reader, cursor, wanted, () if payload else _WITHOUT_PAYLOAD)
        return replace(page, shape=_SHAPES[bool(payload)])

    def _span_search(
        self, reader: Reader, filters: SpanFilters, *, payload: bool, oldest_first: bool = False
    ) -> pages.Search[TraceSpan]:
        keyset = replace(_BY_START, descending=not oldest_first)
        if not isinstance(filters.trace_id, UUID) and filters.searches_json():
            options = () if payload else _WITHOUT_PAYLOAD
            return SpanSearch(reader, keyset, filters, options)
        statement = self._matching(filters, payload=payload)
        if isinstance(filters.trace_id, (UUID, OneOf)):  # the traces' starts bound the statement
            return StatementSearch(reader, keyset, statement, filters.query())
        return search_by_days(reader, keyset, statement, filters)

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
