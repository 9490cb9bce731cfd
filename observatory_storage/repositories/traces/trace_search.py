"""Finds the traces that have a matching span, in one of five ways."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa

from observatory_storage.models import Trace, TraceSpan
from observatory_storage.payloads.word_blocks import HourKey
from observatory_storage.repositories.reading.filter_fields import Conditions, within
from observatory_storage.repositories.reading.operators import is_selective
from observatory_storage.repositories.reading.page_rates import PageRate
from observatory_storage.repositories.reading.pages import Keyset, Seek, Total
from observatory_storage.repositories.reading.partition_slices import Cuts, cuts_of
from observatory_storage.repositories.reading.partitioned_search import cuts_of_page
from observatory_storage.repositories.reading.reader import Reader
from observatory_storage.repositories.reading.span_days import Range, within_ranges
from observatory_storage.repositories.traces import trace_statements as statements
from observatory_storage.repositories.traces.candidates import CandidateFinder
from observatory_storage.repositories.traces.filters import TraceFilters, template
from observatory_storage.repositories.traces.found_traces import traces_of, with_spanless
from observatory_storage.repositories.traces.framed_content import FramedContent
from observatory_storage.repositories.traces.json_search import JsonSearch
from observatory_storage.repositories.traces.matching_days import days_of
from observatory_storage.repositories.traces.trace_counts import estimated_traces, exact_traces
from observatory_storage.repositories.traces.trace_walk import TraceWalk

__all__ = ["TraceSearch"]

# If an index finds at most this many spans, their traces are looked up and sorted. If there are
# more, reading the traces in order finds enough matches soon.
_FEW_SPANS: Final = 5_000
# The number of matching spans that a trace is expected to have, for way 2 of `TraceSearch.rows`.
_SPANS_A_TRACE: Final = 4
_UNITS: Final = ("partitions of traces", "spans of traces")
# The numbers of traces that are read in order for a model, which is likely common, and a service.
_WALKED_FOR_MODEL: Final = 150
_WALKED_FOR_SERVICE: Final = 900
# If at least this many of these traces have the service, reading on will find the others.
_PROMISING: Final = 2


class TraceSearch:
    """The matching traces: a `pages.Search`."""

    keyset: Keyset = statements.NEWEST_TRACES

    def __init__(self, reader: Reader, filters: TraceFilters) -> None:
        self._reader = reader
        self._filters = filters
        self.query: Mapping[str, Any] = filters.query()
        self._parameters = filters.parameters()

    def _begin(self) -> None:
        """Look for payload frames. What these decide is not in statements that are kept."""
        self._framed = FramedContent(self._reader.session, self._filters)
        names = None if self._framed.is_any else self._filters.kept_names()
        self._is_kept = names is not None
        self._conditions = self._filters.in_sql(by_trace=True) if names is None else template(names)

    def count(self, kind: Total) -> int:
        """Count by the matching spans, which is less work than finding the traces in order."""
        if not self._parameters:
            return self._reader.count(sa.select(Trace.id), kind)
        count = exact_traces if kind == "exact" else estimated_traces
        return count(self._reader, self._filters)

    def rows(self, seek: Seek) -> Sequence[Trace]:
        """The traces of a page.

        There are five ways to find them. No statistics say which is the fastest. Therefore each way
        begins with statements that read a bounded number of rows, and their result decides how the
        search continues.

        1. *In order*: without a condition the page is read from the index of traces by start.
        2. *From the newest spans*: the first page by a model, user, session, operation, or the
           errors of a service. An index has these spans by their start, and the newest spans belong
           to the newest traces. A model is likely to be common: its search first reads some traces
           in order.
        3. *From all spans*: if an index finds few matching spans, their traces are sorted.
        4. *By JSON* (attributes, text): a few traces are read in order, then indexes are searched;
           see `JsonSearch`.
        5. *By reading traces in order*: each trace is probed for a matching span. If the first
           traces have almost no span of the requested service, the spans of the service are
           counted; if they are few, way 3 is used.

        If the spans have many partitions, these ways first read spans back to a bound, or a number
        of traces whose first and last span starts are then the bounds of the spans. Only traces
        that begin after the bound are taken, because of these all spans were read.
        """
        filters = self._filters
        self._begin()
        if not self._parameters:
            return self._reader.entities(statements.all_traces(seek.shape), seek.parameters)
        if seek.key is None and filters.has_newest_spans():
            page = self._from_newest_spans(seek)
            if page is not None:
                return page
        if filters.is_indexed():
            page = self._of_few_framed(seek) if self._framed.is_any else self._from_few_spans(seek)
            if page is not None:
                return page
        if not filters.searches_json():
            return self._by_walking(seek)
        search = JsonSearch(filters, self._walk, self._finder, self._framed, self._is_divided)
        return search.rows(seek)

    def _from_newest_spans(self, seek: Seek) -> Sequence[Trace] | None:
        """The first page; None if the newest spans do not decide it."""
        if self._filters.is_likely_common():
            walked = self._walk.nearest(seek, _WALKED_FOR_MODEL)
            if len(walked) == seek.row_limit:
                return walked
        cuts = self._cuts(seek)
        names = frozenset(self._parameters)
        partitions, spans = (PageRate(self._reader, (unit, names)) for unit in _UNITS)
        cuts.expect(partitions.expected(seek.row_limit))
        span_limit = max(
            _SPANS_A_TRACE * seek.row_limit, min(spans.expected(seek.row_limit), _FEW_SPANS)
        )
        found: list[tuple[Trace, list[int]]] = []
        seen = 0
        # Those of a session are few. Of a user, the newest spans may be enough.
        is_rare = is_selective(self._filters.session_id)
        while span_limit <= _FEW_SPANS:
            since = cuts.next(len(found), seek.row_limit)
            if not cuts.is_one and (is_rare or since is None) and self._days is not None:
                page = self._of_newest_on_days(seek, span_limit) if is_rare else None
                page = self._of_few_spans(seek, None) if page is None else page
                if page is not None:
                    return page
            is_rare, is_bounded = False, since is not None
            statement = self._walk.statement(
                statements.of_newest_spans, seek.shape, is_bounded=is_bounded
            )
            parameters = {**self._walk.values(seek), "since": since}
            while span_limit <= _FEW_SPANS:
                found = self._reader.entities_with(
                    statement, {**parameters, "span_limit": span_limit}
                )
                seen, traces = found[0][1] if found else (0, 0)
                spans.note(seen, traces)
                if len(found) == seek.row_limit:
                    partitions.note(cuts.down_to(found[-1][0].start_time), len(found))
                    return with_spanless(self._walk, seek, [trace for trace, _ in found])
                if seen < span_limit:
                    break
                span_limit *= _SPANS_A_TRACE
            if since is None:
                # Without a trace, perhaps no span matches, perhaps all are of one long trace.
                is_complete = found and seen < span_limit
                rows = [trace for trace, _ in found]
                return with_spanless(self._walk, seek, rows) if is_complete else None
            is_rare = not found
            if is_rare:
                partitions.note(0, 0)
            else:  # so many spans are wanted as the traces of the page seem to have
                span_limit = max(span_limit, min(spans.expected(seek.row_limit), _FEW_SPANS))
        return None

    def _of_newest_on_days(self, seek: Seek, span_limit: int) -> list[Trace] | None:
        """The first page, if these many spans on the days that have some decide it."""
        days = tuple(self._days or ())
        statement = self._walk.statement(statements.of_newest_spans, seek.shape, days=days)
        values = {**self._walk.values(seek), "span_limit": span_limit}
        found = self._reader.entities_with(statement, values)
        if not found or (found[0][1][0] == span_limit and len(found) < seek.row_limit):
            return None
        return with_spanless(self._walk, seek, [trace for trace, _ in found])

    def _from_few_spans(self, seek: Seek) -> Sequence[Trace] | None:
        """The page, if few spans match; otherwise None."""
        # The first page has been searched by the newest spans.
        cuts = self._cuts(seek) if seek.key is not None and seek.descending else Cuts(())
        rows: list[Trace] = []
        while True:
            since = cuts.next(len(rows), seek.row_limit)
            if seek.key is not None and not seek.descending:
                since = seek.key[0]
            found = self._of_few_spans(seek, since)
            if found is None:
                return None
            rows = found
            if since is None or not seek.descending or len(rows) == seek.row_limit:
                return rows

    def _of_few_framed(self, seek: Seek) -> list[Trace] | None:
        """The page of a search for content in frames, if few spans meet the other conditions."""
        plain = [*self._conditions.plain(), *self._within_days()]
        if self._few(plain) is None:
            return None
        ids = self._all_ids(self._framed.of_spans(*plain)).where(*self._within_days())
        return traces_of(self._walk, seek, ids)

    def _of_few_spans(self, seek: Seek, since: datetime | None) -> list[Trace] | None:
        """The rows that begin at a time or later, if few spans match; otherwise None.

        Args:
            since: None for all rows. Their spans are searched on the days that have some.
        """
        spans = within(TraceSpan.start_time, since, None) if since else self._within_days()
        count = self._few([*self._conditions.all(), *spans])
        if count is None:
            return None
        bounds = within(Trace.start_time, since, None)
        if not count:
            return with_spanless(self._walk, seek, [], *bounds)
        return traces_of(
            self._walk, seek, self._all_ids().where(*spans), *bounds, spans_since=since
        )

    @cached_property
    def _days(self) -> Sequence[Range] | None:
        return days_of(self._reader, self._filters)

    def _within_days(self) -> Conditions:
        """Restricts spans to the days that have some, if there are partitions to be left out."""
        if not self._has_many_partitions or self._days is None:
            return []
        return [within_ranges(TraceSpan.start_time, self._days)]

    def _by_walking(self, seek: Seek) -> Sequence[Trace]:
        filters = self._filters
        # Slow traces are few. The rows of the other traces rule them out before spans are read.
        if not is_selective(filters.service_name) or filters.min_duration_us is not None:
            return self._walk.all(seek)
        # Any traces count here: reading until this many may match could read all traces.
        rows = self._walk.nearest(seek, _WALKED_FOR_SERVICE, only_possible=False)
        if len(rows) == seek.row_limit:
            return rows
        if len(rows) < _PROMISING:
            days = self._within_days()
            if self._are_few([*self._conditions.of_service(), *days]):
                return traces_of(self._walk, seek, self._all_ids().where(*days))
        return [*rows, *self._walk.all(seek.following(rows))]

    def _all_ids(self, hours: Collection[HourKey] | None = None) -> sa.Select[UUID]:
        """The ids of the traces of all matching spans.

        Args:
            hours: the hours of traces of these spans, if they are known.
        """
        conditions = self._framed.resolved(self._conditions, hours)
        return sa.select(TraceSpan.trace_id).where(*conditions.all())

    def _are_few(self, conditions: Conditions) -> bool:
        return self._few(conditions) is not None

    def _few(self, conditions: Conditions) -> int | None:
        """The number of spans that meet the conditions; None if there are many."""
        some = sa.select(sa.literal(1)).select_from(TraceSpan).where(*conditions)
        counted = sa.select(sa.func.count()).select_from(some.limit(_FEW_SPANS + 1).subquery())
        count = int(self._reader.scalar(counted, self._parameters))
        return count if count <= _FEW_SPANS else None

    def _cuts(self, seek: Seek) -> Cuts:
        bounds = self._filters.start_time, self._filters.end_time
        return cuts_of_page(self._reader, TraceSpan.start_time, bounds, seek)

    @property
    def _finder(self) -> CandidateFinder:
        return CandidateFinder(
            self._reader, self._conditions, self._parameters, self._framed, is_kept=self._is_kept
        )

    @property
    def _walk(self) -> TraceWalk:
        return TraceWalk(
            self._reader,
            self._conditions,
            self._parameters,
            is_kept=self._is_kept,
            in_batches=self._framed.is_any or self._is_divided,
            framed=self._framed if self._framed.is_any else None,
        )

    @property
    def _is_divided(self) -> bool:
        """Whether traces are found first, and then their spans: if there are shards, by these."""
        return self._reader.is_sharded or self._has_many_partitions

    @cached_property
    def _has_many_partitions(self) -> bool:
        bounds = self._filters.start_time, self._filters.end_time
        return not cuts_of(self._reader, TraceSpan, *bounds, descending=True).is_one
