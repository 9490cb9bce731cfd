"""Queries for traces, spans and sessions, and the deletion of traces."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, Unpack, overload
from uuid import UUID

from sqlalchemy import bindparam, select
from sqlalchemy.orm import aliased

from observatory_storage.arrow import ResultList, shape_of_model, shape_of_results
from observatory_storage.cache import Dependency
from observatory_storage.commits import telling_itself
from observatory_storage.errors import ValidationError
from observatory_storage.models import Trace
from observatory_storage.read_only_guard import writes
from observatory_storage.repositories.reading import pages, time_buckets, validation
from observatory_storage.repositories.reading.cached_results import (
    Question,
    cached_result,
    list_of,
)
from observatory_storage.repositories.reading.measured_methods import measured
from observatory_storage.repositories.reading.result_streams import ResultStream, stream_of
from observatory_storage.repositories.traces import results
from observatory_storage.repositories.traces.deletion import delete_all_of, delete_trace
from observatory_storage.repositories.traces.dependencies import spans_of
from observatory_storage.repositories.traces.filters import (
    SpanFilters,
    SpanKeywords,
    TraceFilters,
    TraceKeywords,
)
from observatory_storage.repositories.traces.former_ids import by_either_id
from observatory_storage.repositories.traces.message_queries import MessageQueries
from observatory_storage.repositories.traces.ordered_search import (
    NEWEST_FIRST,
    Order,
    OrderedTraceSearch,
    is_ordered,
)
from observatory_storage.repositories.traces.pins import PinQueries
from observatory_storage.repositories.traces.service_names import operations_of, service_names
from observatory_storage.repositories.traces.session_filters import SessionFilters, SessionKeywords
from observatory_storage.repositories.traces.sessions import SessionSearch, session_by_id
from observatory_storage.repositories.traces.span_lists import SpanListQueries
from observatory_storage.repositories.traces.statistics import span_stats, trace_stats
from observatory_storage.repositories.traces.trace_bounds import trace_name
from observatory_storage.repositories.traces.trace_search import TraceSearch

__all__ = ["TraceRepository"]

# The alias has no schema, which would be written at each column of the statement.
_TRACE: Final = aliased(Trace, name="trace")
_BY_ID: Final = select(_TRACE).where(_TRACE.id == bindparam("id"))


_TRACES: Final = shape_of_model(Trace)
_SESSIONS: Final = shape_of_results(results.SessionSummary)
_OPERATIONS: Final = shape_of_results(results.Operation)


@measured("traces")
class TraceRepository(MessageQueries, SpanListQueries, PinQueries):
    """Queries for traces, spans and sessions.

    A trace id may be hex text, a UUID, any other text (see `ids.trace_uuid`), or the `Trace`
    itself. Filters are given as an object or as keywords:
    ``list(TraceFilters(service_name="chat"))`` and ``list(service_name="chat")`` are the same. A
    method raises `ValidationError` for an invalid argument, for a damaged cursor and for the cursor
    of another query. Two queries are the same if their filters and orders are equal; ``limit``,
    ``start_time``, ``end_time``, ``ended_after`` and ``ended_before`` may differ.
    """

    def get(self, id: validation.TraceId) -> Trace:  # noqa: A002 - the column's name
        """Get a trace by its ``id``.

        Raises:
            NotFound: there is no such trace.
        """
        return self._get(validation.trace_key("id", id), f"trace {trace_name(id)}")

    def get_by_trace_id(self, trace_id: validation.TraceId) -> Trace:
        """Get a trace by the trace id that the program gave.

        Raises:
            NotFound: there is no such trace.
        """
        return self._get(
            validation.trace_key("trace_id", trace_id), f"trace {trace_name(trace_id)}"
        )

    def list(
        self,
        filters: TraceFilters | None = None,
        *,
        after: str | None = None,
        before: str | None = None,
        total: pages.Total | None = None,
        order_by: Order = NEWEST_FIRST,
        **fields: Unpack[TraceKeywords],
    ) -> pages.Page[Trace]:
        """List a page of the matching traces, newest first.

        Paging forward never misses a trace. A trace whose start moves to an earlier time meanwhile
        may be listed twice.

        Args:
            total: "exact" or "estimated" also counts the traces of all pages, by further
                statements.
            order_by: ``"-duration_us"``, ``"-total_tokens"`` or ``"-total_cost_usd"`` of the trace,
                highest first; without the minus, lowest first. Traces without a value come last.
                No index serves these orders, so the traces of the time range are sorted for each
                page. ``start_time`` and ``end_time`` are required, and only traces that begin
                between them are listed.

        Example:
            >>> page = uow.traces.list(service_name="chat", status="error", limit=20)
            >>> more = uow.traces.list(service_name="chat", status="error", after=page.next)
            >>> slow = uow.traces.list(order_by="-duration_us", start_time=start, end_time=end)
        """
        wanted = TraceFilters.of(filters, fields)
        search = TraceSearch(self._reader, wanted)
        if is_ordered(order_by, wanted):
            search = OrderedTraceSearch(self._reader, wanted, order_by)
        return pages.read_page(search, wanted.limit, after, before, total, shape=_TRACES)

    def iterate(
        self,
        filters: TraceFilters | None = None,
        batch_size: int = validation.BATCH_SIZE,
        **fields: Unpack[TraceKeywords],
    ) -> ResultStream[Trace]:
        """Iterate over all matching traces, newest first, with one batch at a time in memory.

        The filters' ``limit`` does not apply. `ResultStream.to_arrow` converts the traces to Arrow.
        """
        size = validation.limit("batch_size", batch_size)
        wanted = TraceFilters.of(filters, fields)
        # A search by spans combines what it reads.
        is_copied = not wanted.parameters()
        return stream_of(
            self._reader, _TRACES, lambda r: TraceSearch(r, wanted), size, is_copied=is_copied
        )

    def services(self) -> builtins.list[str]:
        """List the names of the services that have spans, in alphabetical order."""
        return cached_result(
            self._reader,
            Question("names", ("services",), Dependency("spans")),
            list_of(str),
            lambda: service_names(self._reader),
        )

    def operations(self, service_name: str) -> ResultList[results.Operation]:
        """List the span names of a service, each with its kinds, in alphabetical order."""
        name = validation.required_text("service_name", service_name)
        found = cached_result(
            self._reader,
            Question("names", ("operations", name), Dependency("spans")),
            list_of(results.Operation),
            lambda: operations_of(self._reader, name),
        )
        return ResultList(found, _OPERATIONS)

    def list_sessions(
        self,
        filters: SessionFilters | None = None,
        *,
        after: str | None = None,
        before: str | None = None,
        total: pages.Total | None = None,
        **fields: Unpack[SessionKeywords],
    ) -> pages.Page[results.SessionSummary]:
        """List a page of the matching sessions, most recently active first.

        The time range selects spans by their start. A session consists of the traces that have a
        span with the session's id in this range. Sessions are ordered by ``last_start_time``. A
        session that becomes active between two pages moves to the front; set ``end_time`` to
        prevent this. To list the traces of a session, call ``list(session_id=…)``.

        It runs at most four statements, however many sessions are in the page, and one more for the
        total. With very many partitions it runs a few more, each of which is planned for few.

        Args:
            total: "exact" or "estimated" also counts the sessions of all pages.
        """
        wanted = SessionFilters.of(filters, fields)
        search = SessionSearch(self._reader, wanted)
        return pages.read_page(search, wanted.limit, after, before, total, shape=_SESSIONS)

    def iterate_sessions(
        self,
        filters: SessionFilters | None = None,
        batch_size: int = validation.BATCH_SIZE,
        **fields: Unpack[SessionKeywords],
    ) -> ResultStream[results.SessionSummary]:
        """Iterate over all matching sessions, most recently active first, in batches.

        The filters' ``limit`` does not apply. `ResultStream.to_arrow` converts them to Arrow.
        """
        size = validation.limit("batch_size", batch_size)
        wanted = SessionFilters.of(filters, fields)
        return stream_of(
            self._reader, _SESSIONS, lambda r: SessionSearch(r, wanted), size, is_copied=False
        )

    def get_session(
        self,
        session_id: str,
        *,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
    ) -> results.SessionSummary:
        """Get a session, or the part of it with spans that start in [start_time, end_time).

        Raises:
            NotFound: no span that starts in the range has the session's id.
        """
        key = validation.required_text("session_id", session_id)
        in_range = SessionFilters(start_time=start_time, end_time=end_time)
        return session_by_id(self._reader, key, in_range)

    @overload
    def get_stats(
        self, filters: TraceFilters | None = None, **fields: Unpack[TraceKeywords]
    ) -> results.TraceStats: ...
    @overload
    def get_stats(
        self,
        filters: TraceFilters | SpanFilters | None = None,
        *,
        group_by: str | Sequence[str],
        bucket_size_secs: time_buckets.BucketSize | None = None,
        time_zone: str | None = None,
        fill: str | None = None,
        **fields: Unpack[SpanKeywords],
    ) -> ResultList[results.SpanStats]: ...
    @overload
    def get_stats(
        self,
        filters: TraceFilters | SpanFilters | None = None,
        *,
        group_by: str | Sequence[str] = ...,
        bucket_size_secs: time_buckets.BucketSize,
        time_zone: str | None = None,
        fill: str | None = None,
        **fields: Unpack[SpanKeywords],
    ) -> ResultList[results.SpanStats]: ...
    def get_stats(
        self,
        filters: TraceFilters | SpanFilters | None = None,
        *,
        group_by: str | Sequence[str] | None = None,
        bucket_size_secs: time_buckets.BucketSize | None = None,
        time_zone: str | None = None,
        fill: str | None = None,
        **fields: Any,
    ) -> results.TraceStats | ResultList[results.SpanStats]:
        """Get totals over the matching traces, or over the matching spans by group and time.

        Without ``group_by`` and ``bucket_size_secs``, the result is one `TraceStats` over whole
        traces that have a matching span. With either argument, only the matching spans themselves
        are counted. The result then has one `SpanStats` for each group that has spans, ordered by
        bucket, then by the number of spans, highest first. The filters' ``limit`` does not apply.

        Args:
            filters: selects the traces or spans, as an object or as keywords. `SpanFilters` require
                ``group_by`` or ``bucket_size_secs``.
            group_by: one or more of ``service_name operation kind status provider model environment
                user_id session_id gen_ai_operation response_model agent_name tool_name
                finish_reason error_type prompt_name``. ``operation`` is the name of the span. An
                empty sequence gives one group of all spans.
            bucket_size_secs: the width of a bucket of time, in seconds or as a timedelta; or
                ``"day"``, ``"week"`` (from Monday), ``"month"``, ``"quarter"`` or ``"year"``. A
                span belongs to the bucket of its start. Buckets of one width are aligned to Monday,
                1970-01-05 UTC.
            time_zone: the time zone in which days begin, such as "Asia/Tokyo", in upper or lower
                case; UTC by default. With a time zone, buckets must be whole days or a unit of the
                calendar. A day on which the clocks change has 23 or 25 hours.
            fill: also return the buckets in which a group has no spans. Their counts are zero and
                their durations None; their sums are None with ``"null"`` and zero with ``"zero"``.
                If ``start_time`` or ``end_time`` is missing, the range begins or ends with the
                first or last bucket that has spans. At most 200,000 rows are returned.

        Raises:
            ValidationError: a group, the bucket width, the time zone or the fill is invalid.
        """
        if group_by is None and bucket_size_secs is None and time_zone is None and fill is None:
            if isinstance(filters, SpanFilters):
                raise ValidationError("filters", filters, "must be TraceFilters without group_by")
            whole = TraceFilters.of(filters, fields)
            return cached_result(
                self._reader,
                Question("statistics", ("trace_stats", whole), spans_of(whole)),
                results.TraceStats,
                lambda: trace_stats(self._reader, whole),
            )
        kind = TraceFilters if isinstance(filters, TraceFilters) else SpanFilters
        wanted = kind.of(filters, fields)
        by = () if group_by is None else group_by
        buckets = time_buckets.buckets_or_whole(bucket_size_secs, time_zone)
        found = cached_result(
            self._reader,
            Question("statistics", ("spans", wanted, by, buckets, fill), spans_of(wanted)),
            list_of(results.SpanStats),
            lambda: span_stats(self._reader, wanted, by, buckets, fill),
        )
        keys = tuple(validation.names("group_by", by))
        return ResultList(found, shape_of_results(results.SpanStats, keys))

    @writes
    def delete(self, trace_id: validation.TraceId) -> results.DeletedTrace:
        """Delete a trace with its spans, their events, and the log records that name it.

        The index of the words in payload frames keeps its id and its words until maintenance runs.

        Raises:
            NotFound: no row belongs to such a trace.
        """
        key, name = validation.trace_key("trace_id", trace_id), trace_name(trace_id)
        with telling_itself(self._reader.session):
            return by_either_id(key, lambda one: delete_trace(self._reader, one, name))

    def _get(self, key: UUID, name: str) -> Trace:
        found = by_either_id(key, lambda one: self._reader.entity(_BY_ID, {"id": one}, name))
        self._latest = found
        return found

    @writes
    def delete_user(self, user_id: str) -> results.DeletedRows:
        """Erase the data of a user from every table but the index of words in payload frames.

        The following is deleted, as far as it was committed before the call:

        - traces that have a span with this ``user_id``, and traces whose own attributes name the
          user. A trace is deleted as a whole, with its spans, events and log records, even if some
          of its spans belong to another user;
        - log records and data points whose attributes name the user;
        - exemplars that name the user or one of these traces. They are removed from their data
          points, which stay;
        - rollups that name the user. Those of other groups are computed again by maintenance.

        The index of the words in payload frames (the tables ``payload_words``, ``payload_segments``
        and ``payload_unindexed``) keeps the words and the ids of these traces until maintenance
        runs. Searches do not find them any more.

        Attributes name a user by any key from which ``user_id`` is read (``user.id``,
        ``enduser.id`` and so on, see `llm.dialects`). Rows that are written during or after the
        call stay: stop the writers first, or erase again. The call reads all log records and data
        points, which takes long in large tables. If there is nothing to erase, the counts are zero.

        Raises:
            ValidationError: the id is empty or not text.
            Conflict: another transaction locked some of the rows. The call can be repeated.
        """
        with telling_itself(self._reader.session):
            return delete_all_of(self._reader, "user_id", user_id)

    @writes
    def delete_session(self, session_id: str) -> results.DeletedRows:
        """Erase the data of a session, in the same way as `delete_user`.

        Maintenance removes its words from the index of words in payload frames.

        Raises:
            ValidationError: the id is empty or not text.
            Conflict: another transaction locked some of the rows. The call can be repeated.
        """
        with telling_itself(self._reader.session):
            return delete_all_of(self._reader, "session_id", session_id)
