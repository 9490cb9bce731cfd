"""Lists of traces and spans in the order of their duration, tokens or cost, within a time range.

No index serves these orders. On traces such an index would prevent HOT updates, and on spans it
would slow down ingestion. So the rows of the time range are read and sorted. Rows without a value
come last.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, Literal, get_args
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import aliased

from observatory_storage.errors import ValidationError
from observatory_storage.models import Trace, TraceSpan
from observatory_storage.repositories.reading import validation
from observatory_storage.repositories.reading.filter_fields import within
from observatory_storage.repositories.reading.pages import Keyset, Seek, SeekShape, Total
from observatory_storage.repositories.reading.reader import Reader
from observatory_storage.repositories.traces.candidates import CandidateFinder
from observatory_storage.repositories.traces.filters import SpanFilters, TraceFilters
from observatory_storage.repositories.traces.found_traces import traces_of
from observatory_storage.repositories.traces.framed_content import FramedContent
from observatory_storage.repositories.traces.json_search import ids_among
from observatory_storage.repositories.traces.span_conditions import SpanConditions
from observatory_storage.repositories.traces.trace_search import TraceSearch
from observatory_storage.repositories.traces.trace_statements import is_matching, probed

__all__ = [
    "NEWEST_FIRST",
    "Order",
    "OrderedTraceSearch",
    "is_ordered",
    "matching_spans",
    "span_order",
]

Order = Literal[
    "-start_time",
    "-duration_us",
    "duration_us",
    "-total_tokens",
    "total_tokens",
    "-total_cost_usd",
    "total_cost_usd",
]
NEWEST_FIRST: Final = "-start_time"
_ORDERS: Final = get_args(Order)
# The sort keys of rows without a value, so that they come last: one is less than any value, the
# other greater than any likely value.
_LEAST, _GREATEST = -1, 2**63 - 1


def is_ordered(
    order: str, filters: TraceFilters | SpanFilters, *, is_bounded: bool = False
) -> bool:
    """Whether the order is another one than newest first.

    Args:
        is_bounded: whether something other than a time range bounds the number of rows.

    Raises:
        ValidationError: the order is unknown, or nothing bounds the number of rows.
    """
    validation.choice("order_by", validation.required_text("order_by", order), _ORDERS)
    if order == NEWEST_FIRST:
        return False
    for name in ("start_time", "end_time"):
        if not is_bounded and getattr(filters, name) is None:
            raise ValidationError(name, None, f"is required where order_by is {order!r}")
    return True


def span_order(order: str) -> Keyset:
    """The order of spans."""
    more = [TraceSpan.duration_ns] if order.endswith("duration_us") else []
    ties = (TraceSpan.start_time, TraceSpan.start_ns, TraceSpan.trace_id, TraceSpan.span_id)
    return _keyset("spans", order, _value(TraceSpan, order), *more, *ties)


class OrderedTraceSearch(TraceSearch):
    """The matching traces that begin within the time range, in an order: a `pages.Search`.

    Traces that begin before the range are left out, even if one of their spans is in it. To find
    them, all older traces would have to be read.
    """

    def __init__(self, reader: Reader, filters: TraceFilters, order: str) -> None:
        super().__init__(reader, filters)
        self._order = order
        self.keyset = _keyset("traces", order, _value(Trace, order), Trace.id)
        self._bounds = within(Trace.start_time, filters.start_time, filters.end_time)

    def count(self, kind: Total) -> int:
        framed = FramedContent(self._reader.session, self._filters)
        matches = is_matching(framed.resolved(self._filters.in_sql(by_trace=True)))
        return self._reader.count(sa.select(Trace.id).where(*self._bounds, matches), kind)

    def rows(self, seek: Seek) -> Sequence[Trace]:
        """The traces of a page.

        If an index finds few matching spans, only their traces are sorted. Otherwise all traces of
        the range are sorted, then probed for a matching span in that order until the page is full.
        """
        self._begin()
        if self._parameters.keys() == {"start_time", "end_time"}:
            # Every trace of the range matches, because its first span is in the range.
            traces = seek.of(sa.select(Trace).where(*self._bounds))
            return self._reader.entities(traces, seek.parameters)
        ids = self._few_ids()
        if ids is not None:
            return traces_of(self._walk, seek, ids, *self._bounds)
        make = _in_order if self._is_kept else _in_order.__wrapped__
        conditions = self._framed.resolved(self._conditions)
        statement = make(conditions, self._order, seek.shape, is_sharded=self._reader.is_sharded)
        return self._reader.entities(statement, self._walk.values(seek))

    def _few_ids(self) -> sa.Select[UUID] | None:
        filters = self._filters
        if filters.is_indexed():
            # The planner does not know frames, so here other conditions decide.
            is_framed, plain = self._framed.is_any, self._conditions.plain()
            if self._are_few(plain if is_framed else self._conditions.all()):
                return self._all_ids(self._framed.of_spans(*plain) if is_framed else None)
        if not filters.searches_json():
            return None
        candidates = self._finder.few(filters.start_time, filters.end_time)
        return None if candidates is None else ids_among(candidates, self._conditions)


def matching_spans(reader: Reader, filters: SpanFilters) -> sa.Select[TraceSpan]:
    """The spans that match. If few spans meet a condition on JSON, they are found by its index."""
    conditions = filters.in_sql()
    framed = FramedContent(reader.session, filters)
    if filters.searches_json():
        parameters = filters.parameters()
        finder = CandidateFinder(reader, conditions, parameters, framed, is_kept=False)
        candidates = finder.few(filters.start_time, filters.end_time)
        if candidates is not None:
            found = sa.select(TraceSpan).where(*conditions.plain())
            return candidates.restrict(found) if candidates.keys else found.where(sa.false())
    return sa.select(TraceSpan).where(*framed.resolved(conditions).all())


@lru_cache(maxsize=256)
def _in_order(
    conditions: SpanConditions, order: str, shape: SeekShape, *, is_sharded: bool = False
) -> sa.Select[Trace]:
    """The statement for a page. Its subquery keeps the planner from probing before the sort.

    Args:
        is_sharded: whether the traces are probed on their shards, before they are brought together.
    """
    trace = aliased(Trace, name="trace")
    value = _value(trace, order).label("sort_key")
    walked = sa.select(trace, value).where(*conditions.within(trace), *conditions.implied(trace))
    in_order = _keyset("traces", order, _value(trace, order), trace.id).seek(walked, shape)
    if is_sharded:
        on_shards = walked.where(*conditions.of_no_span(trace))
        keyset = _keyset("traces", order, _value(trace, order), trace.id)
        return probed(keyset.seek(on_shards.with_only_columns(trace), shape), trace, conditions)
    sorted_ones = in_order.limit(None).offset(sa.literal_column("'0'")).subquery("sorted")
    near = aliased(Trace, sorted_ones)
    outer = _keyset("traces", order, sorted_ones.c.sort_key, near.id)
    found = sa.select(near).where(*conditions.of_no_span(near))
    page = outer.seek(found, SeekShape(shape.descending, from_key=False))
    return probed(page, near, conditions)


def _value(row: Any, order: str) -> sa.Label[Any]:
    column = getattr(row, order.removeprefix("-"))
    missing = _LEAST if order.startswith("-") else _GREATEST
    return sa.func.coalesce(column, missing).label(column.key)


def _keyset(list_name: str, order: str, *columns: Any) -> Keyset:
    descending = order.startswith("-")
    missing = _LEAST if descending else _GREATEST
    return Keyset(f"{list_name} by {order}", columns, descending, missing)
