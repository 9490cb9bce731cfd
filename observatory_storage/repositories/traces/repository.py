"""The questions about traces, their spans and sessions, and their deletion."""

from __future__ import annotations

import builtins
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final, Unpack, overload

from sqlalchemy import ColumnElement, Select, bindparam, func, select, true, tuple_

from observatory_storage.errors import ValidationError
from observatory_storage.models import Trace, TraceSpan
from observatory_storage.repositories.reading import pages, time_buckets, validation
from observatory_storage.repositories.traces import results
from observatory_storage.repositories.traces.deletion import delete_all_of, delete_trace
from observatory_storage.repositories.traces.filters import (
    SpanFilters,
    SpanKeywords,
    TraceFilters,
    TraceKeywords,
)
from observatory_storage.repositories.traces.session_filters import SessionFilters, SessionKeywords
from observatory_storage.repositories.traces.sessions import SessionSearch, session_by_id
from observatory_storage.repositories.traces.spans import SpanQueries, trace_name
from observatory_storage.repositories.traces.statistics import span_stats, trace_stats
from observatory_storage.repositories.traces.trace_search import TraceSearch

__all__ = ["TraceRepository"]

_BY_ID: Final = select(Trace).where(Trace.id == bindparam("id"))


class TraceRepository(SpanQueries):
    """Questions about traces.

    A trace id is hex text, a UUID, whatever other text a program uses (see `ids.trace_uuid`), or
    the `Trace` itself. Filters are given as an object or as keywords:
    ``list(TraceFilters(service_name="chat"))`` and ``list(service_name="chat")`` are the same. A
    method raises `ValidationError` for an argument that it does not understand, for a damaged
    cursor and for the cursor of another query. A cursor goes with a query's filters but for
    ``limit``, ``start_time`` and ``end_time``.
    """

    def get(self, id: validation.TraceId) -> Trace:  # noqa: A002 - the column's name
        """The trace of an id.

        Raises:
            NotFound: there is none.
        """
        key = validation.trace_key("id", id)
        return self._reader.entity(_BY_ID, {"id": key}, f"trace {trace_name(id)}")

    def get_by_trace_id(self, trace_id: validation.TraceId) -> Trace:
        """The trace that a program knows by this id.

        Raises:
            NotFound: there is none.
        """
        key = validation.trace_key("trace_id", trace_id)
        return self._reader.entity(_BY_ID, {"id": key}, f"trace {trace_name(trace_id)}")

    def list(
        self,
        filters: TraceFilters | None = None,
        *,
        after: str | None = None,
        before: str | None = None,
        total: pages.Total | None = None,
        **fields: Unpack[TraceKeywords],
    ) -> pages.Page[Trace]:
        """A page of the traces that match, newest first.

        A forward walk never misses a trace; one whose start moved earlier meanwhile may come
        twice.

        Args:
            total: "exact" or "estimated": say how many there are in all, by more statements.

        Example:
            >>> page = uow.traces.list(service_name="chat", status="error", limit=20)
            >>> more = uow.traces.list(service_name="chat", status="error", after=page.next)
        """
        wanted = TraceFilters.of(filters, fields)
        search = TraceSearch(self._reader, wanted)
        return pages.read_page(search, wanted.limit, after, before, total)

    def iterate(
        self,
        filters: TraceFilters | None = None,
        batch_size: int = validation.BATCH_SIZE,
        **fields: Unpack[TraceKeywords],
    ) -> Iterator[Trace]:
        """All the traces that match, newest first, with one batch at a time in memory.

        The filters' ``limit`` does not apply.
        """
        size = validation.limit("batch_size", batch_size)
        return pages.read_all(TraceSearch(self._reader, TraceFilters.of(filters, fields)), size)

    def services(self) -> builtins.list[str]:
        """The names of the services that have spans, in order."""
        # Skips through the index from name to name; the cost goes with the number of names.
        least = select(func.min(TraceSpan.service_name).label("name")).cte("names", recursive=True)
        following = (
            select(func.min(TraceSpan.service_name))
            .where(TraceSpan.service_name > least.c.name)
            .scalar_subquery()
        )
        names = least.union_all(select(following).where(least.c.name.is_not(None)))
        found = select(names).where(names.c.name.is_not(None))
        return [row.name for row in self._reader.rows(found)]

    def operations(self, service_name: str) -> builtins.list[results.Operation]:
        """The names of a service's spans with the kinds that they have, in order."""
        own = TraceSpan.service_name == validation.required_text("service_name", service_name)
        columns = (TraceSpan.name, TraceSpan.kind)

        def first_beyond(*conditions: ColumnElement[bool]) -> Select[str, str]:
            return select(*columns).where(own, *conditions).order_by(*columns).limit(1)

        # As in `services`, by name and kind.
        found = first_beyond().cte("operations", recursive=True)
        beyond = tuple_(*columns) > tuple_(found.c.name, found.c.kind)
        following = first_beyond(beyond, TraceSpan.name >= found.c.name).lateral()
        pairs = found.union_all(
            select(following.c.name, following.c.kind).select_from(found.join(following, true()))
        )
        return [results.Operation(*row) for row in self._reader.rows(select(*pairs.c))]

    def list_sessions(
        self,
        filters: SessionFilters | None = None,
        *,
        after: str | None = None,
        before: str | None = None,
        total: pages.Total | None = None,
        **fields: Unpack[SessionKeywords],
    ) -> pages.Page[results.SessionSummary]:
        """A page of the sessions that match, the last active first.

        The time range chooses the spans that are looked at, and so the traces: those of which a
        span with the session's id starts within it. The order is that of `last_start_time`. A
        session that becomes active between two pages moves to the front; an ``end_time`` keeps it
        in its place. The traces of a session are ``list(session_id=…)``.

        At most four statements, however many sessions are in the page, and one for the total.

        Args:
            total: "exact" or "estimated": say how many there are in all, by one more statement.
        """
        wanted = SessionFilters.of(filters, fields)
        search = SessionSearch(self._reader, wanted)
        return pages.read_page(search, wanted.limit, after, before, total)

    def iterate_sessions(
        self,
        filters: SessionFilters | None = None,
        batch_size: int = validation.BATCH_SIZE,
        **fields: Unpack[SessionKeywords],
    ) -> Iterator[results.SessionSummary]:
        """All the sessions that match, the last active first, one batch at a time in memory.

        The filters' ``limit`` does not apply.
        """
        size = validation.limit("batch_size", batch_size)
        return pages.read_all(SessionSearch(self._reader, SessionFilters.of(filters, fields)), size)

    def get_session(
        self,
        session_id: str,
        *,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
    ) -> results.SessionSummary:
        """A session, or what of it lies in [start_time, end_time).

        Raises:
            NotFound: no span (that starts in the range) carries the id.
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
        **fields: Unpack[SpanKeywords],
    ) -> builtins.list[results.SpanStats]: ...
    @overload
    def get_stats(
        self,
        filters: TraceFilters | SpanFilters | None = None,
        *,
        group_by: str | Sequence[str] = ...,
        bucket_size_secs: time_buckets.BucketSize,
        time_zone: str | None = None,
        **fields: Unpack[SpanKeywords],
    ) -> builtins.list[results.SpanStats]: ...
    def get_stats(
        self,
        filters: TraceFilters | SpanFilters | None = None,
        *,
        group_by: str | Sequence[str] | None = None,
        bucket_size_secs: time_buckets.BucketSize | None = None,
        time_zone: str | None = None,
        **fields: Any,
    ) -> results.TraceStats | builtins.list[results.SpanStats]:
        """Totals over the traces that match, or over the spans that match by group and time.

        Without ``group_by`` and ``bucket_size_secs`` the traces are counted of which a span
        matches, each as a whole: `TraceStats`. With either, the spans themselves are, and nothing
        else of their traces: a `SpanStats` for each group that has spans, the earlier bucket
        first, within it the group of the most spans. The filters' ``limit`` does not apply.

        Args:
            filters: which traces or spans; `SpanFilters` only for spans. As keywords too.
            group_by: one or more of ``service_name operation kind status provider model environment
                user_id session_id``; none at all (``()``) for one group of all spans.
            bucket_size_secs: the width of a bucket of time in seconds or as a timedelta, by the
                spans' start, counted from Monday, 1970-01-05 UTC.
            time_zone: the name of the time zone whose days the buckets follow, as "Asia/Tokyo".
                Buckets are then of whole days, which have 23 or 25 hours when clocks are set.

        Raises:
            ValidationError: a group, a bucket or a time zone is unknown.
        """
        if group_by is None and bucket_size_secs is None and time_zone is None:
            if isinstance(filters, SpanFilters):
                raise ValidationError("filters", filters, "must be TraceFilters without group_by")
            return trace_stats(self._reader, TraceFilters.of(filters, fields))
        kind = TraceFilters if isinstance(filters, TraceFilters) else SpanFilters
        wanted = kind.of(filters, fields)
        by = () if group_by is None else group_by
        return span_stats(self._reader, wanted, by, bucket_size_secs, time_zone)

    def delete(self, trace_id: validation.TraceId) -> results.DeletedTrace:
        """Delete a trace with its spans, their events, and the log records that name it.

        Raises:
            NotFound: there is nothing of such a trace.
        """
        key = validation.trace_key("trace_id", trace_id)
        return delete_trace(self._reader, key, trace_name(trace_id))

    def delete_user(self, user_id: str) -> results.DeletedRows:
        """Erase a user from every table: whatever was committed before.

        What is deleted:

        - traces of which a span's ``user_id`` is the user, or whose own attributes name the user:
          the whole traces, with all spans, events and log records, also where a span of such a
          trace is another user's;
        - log records and data points whose attributes name the user;
        - exemplars that name the user or one of these traces, from data points that stay.

        Attributes name a user by any key that ``user_id`` is read from (``user.id``,
        ``enduser.id`` and so on, see `llm.dialects`). Rows written meanwhile or afterwards stay:
        stop the writers first, or erase again. All log records and data points are read, which
        takes its time in large tables. Nothing to erase is no error.

        Raises:
            ValidationError: the id is empty or not text.
            Conflict: another transaction had some of the rows; it may be tried again.
        """
        return delete_all_of(self._reader, "user_id", user_id)

    def delete_session(self, session_id: str) -> results.DeletedRows:
        """Erase a session from every table, as `delete_user` does a user.

        Raises:
            ValidationError: the id is empty or not text.
            Conflict: another transaction had some of the rows; it may be tried again.
        """
        return delete_all_of(self._reader, "session_id", session_id)
